"""One row of a known layout becomes one canonical row, or a `BrokenRow` that says why it cannot.

Nothing here guesses: which layout a dataset has is decided in `data.layouts`, once, from its columns. Values are never
changed: text is kept character by character; only roles get their usual names. A row that does not fit is broken and
counted, whatever it holds; no value may raise anything but `BrokenRow`.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from tulu_recipes.data.rows import messages_fault

Message = dict[str, str]
Row = dict[str, Any]

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
# Reason of a pair that has nothing to prefer; counted apart from broken rows
IDENTICAL = "chosen and rejected are the same"
ANSWERABLE = ("user", "tool")  # turns that an assistant answers


class BrokenRow(ValueError):
    """This row cannot become a canonical one. Its text is a reason without values, so that reasons can be counted."""


def messages_of(value: Any, what: str = "messages") -> list[Message]:
    """A list of turns in either spelling (role/content, from/value) as [{role, content}], roles by `ROLES`.

    Other keys of a turn, such as `name`, are left out; a turn that calls tools is broken: its calls would be lost.
    """
    if isinstance(value, Mapping):  # a column per key, as older files store lists of structs
        value = _by_turn(value)
    if not isinstance(value, list | tuple):
        raise BrokenRow(f"{what} is missing" if value is None else f"{what} is not a list of turns")
    messages = [_message(turn) for turn in value]
    fault = messages_fault(messages)
    if fault:
        raise BrokenRow(re.sub(r"message \d+", "a message", fault))
    return messages


def _message(turn: Any) -> Any:
    if not isinstance(turn, Mapping):
        raise BrokenRow("a message is not an object with role and content")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise BrokenRow("a message calls tools")
    role = turn.get("role")
    if role is None:
        role = turn.get("from")
    content = turn.get("content")
    if content is None:
        content = turn.get("value")
    if not isinstance(role, str) or not role:
        raise BrokenRow("a message has no role")
    known = ROLES.get(role) or ROLES.get(role.strip().lower())
    if known is None:
        raise BrokenRow("a message has an unknown role")
    return {"role": known, "content": content}


def _by_turn(columns: Mapping[str, Any]) -> Any:
    lists = {key: value for key, value in columns.items() if isinstance(value, list)}
    if not lists or len({len(value) for value in lists.values()}) != 1:
        return columns
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def text_of(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BrokenRow(f"{what} is missing" if value is None else f"{what} is not text")
    if not value.strip():
        raise BrokenRow(f"empty {what}")
    return value


def _system(row: Mapping[str, Any]) -> list[Message]:
    """An optional column `system`; absent, null and blank all mean no system turn."""
    system = row.get("system")
    if system is None or (isinstance(system, str) and not system.strip()):
        return []
    return [{"role": "system", "content": text_of(system, "system")}]


def _conversation(messages: list[Message]) -> Row:
    roles = {message["role"] for message in messages}
    if "assistant" not in roles:
        raise BrokenRow("no assistant turn")
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise BrokenRow("no user turn with text")
    return {"messages": messages}


def _pair(row: Mapping[str, Any], user: str, answer: str) -> Row:
    return {
        "messages": [
            *_system(row),
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer},
        ]
    }


def from_messages(row: Mapping[str, Any]) -> Row:
    return _conversation(messages_of(row.get("messages")))


def from_sharegpt(row: Mapping[str, Any]) -> Row:
    messages = messages_of(row.get("conversations"), "conversations")
    system = _system(row)
    if system and messages[0]["role"] == "system":
        raise BrokenRow("two system prompts")
    return _conversation(system + messages)


def from_prompt_completion(row: Mapping[str, Any]) -> Row:
    """Each side is text or a list of turns. Text becomes a user turn and an assistant turn."""
    prompt = _prompt_turns(row.get("prompt"))
    completion = row.get("completion")
    if isinstance(completion, list | tuple | Mapping):
        return _conversation(prompt + messages_of(completion, "completion"))
    return _conversation([*prompt, {"role": "assistant", "content": text_of(completion, "completion")}])


def _prompt_turns(prompt: Any) -> list[Message]:
    if isinstance(prompt, list | tuple | Mapping):
        return messages_of(prompt, "prompt")
    return [{"role": "user", "content": text_of(prompt, "prompt")}]


def from_alpaca(row: Mapping[str, Any]) -> Row:
    """The user turn is the instruction; where an input is given, a newline and the input follow."""
    user = text_of(row.get("instruction"), "instruction")
    given = row.get("input")
    if given is not None and not isinstance(given, str):
        raise BrokenRow("input is not text")
    if given and given.strip():
        user = f"{user}\n{given}"
    return _pair(row, user, text_of(row.get("output"), "output"))


def from_question_answer(row: Mapping[str, Any]) -> Row:
    return _pair(row, text_of(row.get("question"), "question"), text_of(row.get("answer"), "answer"))


def from_preference(row: Mapping[str, Any]) -> Row:
    """Answers as text, as a list of the answer's turns, or as lists that hold the whole conversation.

    The last is told by a user turn inside. A given prompt must be part of what both conversations share.
    """
    prompt = row.get("prompt")
    given = None if prompt is None else _prompt_turns(prompt)
    chosen = _answer_turns(row.get("chosen"), given, "chosen")
    rejected = _answer_turns(row.get("rejected"), given, "rejected")
    result = _preference(chosen, rejected)
    if given is not None:
        _check_prompt(prompt, given, chosen, rejected)
    better, worse = _number(row.get("score_chosen")), _number(row.get("score_rejected"))
    if better is not None and worse is not None and better < worse:
        raise BrokenRow("rejected has the higher score")
    return result


def _answer_turns(value: Any, prompt: list[Message] | None, what: str) -> list[Message]:
    if isinstance(value, list | tuple | Mapping):
        messages = messages_of(value, what)
        if any(message["role"] == "user" for message in messages):
            return messages
    else:
        messages = [{"role": "assistant", "content": text_of(value, what)}]
    if prompt is None:
        raise BrokenRow("prompt is missing")
    return prompt + messages


def shared_turns(chosen: list[Message], rejected: list[Message]) -> int:
    """How many turns both conversations start with."""
    count = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        count += 1
    return count


def _preference(chosen: list[Message], rejected: list[Message]) -> Row:
    """Both must answer the same last turn and end with an assistant.

    Conversations may part before the last turn, as long as it is two different answers at which they part.
    """
    for messages, what in ((chosen, "chosen"), (rejected, "rejected")):
        if messages[-1]["role"] != "assistant":
            raise BrokenRow(f"{what} does not end with an assistant turn")
    if chosen == rejected:
        raise BrokenRow(IDENTICAL)
    shared = shared_turns(chosen, rejected)
    if shared == len(chosen) or shared == len(rejected):
        raise BrokenRow("one answer continues the other")
    if chosen[shared]["role"] != "assistant" or rejected[shared]["role"] != "assistant":
        raise BrokenRow("chosen and rejected have different prompts")
    if not shared or chosen[shared - 1]["role"] not in ANSWERABLE:
        raise BrokenRow("chosen and rejected do not part after a user turn")
    prompt = chosen[shared - 1]["content"]
    if not prompt.strip():
        raise BrokenRow("empty prompt")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _check_prompt(prompt: Any, given: list[Message], chosen: list[Message], rejected: list[Message]) -> None:
    """Text must be a user turn of both (published sets name the first or the last); turns the start of both."""
    if isinstance(prompt, str):
        text = prompt.strip()
        fits = all(
            any(message["role"] in ANSWERABLE and message["content"].strip() == text for message in messages)
            for messages in (chosen, rejected)
        )
    else:
        shared = chosen[: shared_turns(chosen, rejected)]
        without_system = [message for message in shared if message["role"] != "system"]
        fits = given in (shared[: len(given)], without_system[: len(given)])
    if not fits:
        raise BrokenRow("prompt is not in the conversations")


def from_ultrafeedback(row: Mapping[str, Any]) -> Row:
    """Chosen: the highest mean; rejected: one of those below it, drawn by a hash of its text (arXiv 2411.15124, §5.2).

    Equal means at the top are told apart by the same hash. Answers without text or score are left out.
    """
    instruction = text_of(row.get("instruction"), "instruction")
    completions = row.get("completions")
    if isinstance(completions, Mapping):
        completions = _by_turn(completions)
    if not isinstance(completions, list | tuple):
        raise BrokenRow("completions is not a list")
    scored = []
    for completion in completions:
        if not isinstance(completion, Mapping):
            raise BrokenRow("a completion is not an object")
        response, score = completion.get("response"), _mean_score(completion)
        if isinstance(response, str) and response.strip() and score is not None:
            scored.append((score, _draw(instruction, response), response))
    if len(scored) < 2:
        raise BrokenRow("fewer than two answers with a score")
    best = min(scored, key=lambda answer: (-answer[0], answer[1]))
    lower = [answer for answer in scored if answer[0] < best[0]]
    if not lower:
        raise BrokenRow("all answers have the same score")
    user = [{"role": "user", "content": instruction}]
    chosen, rejected = best[2], min(lower, key=lambda answer: answer[1])[2]
    return _preference(
        [*user, {"role": "assistant", "content": chosen}], [*user, {"role": "assistant", "content": rejected}]
    )


def _mean_score(completion: Mapping[str, Any]) -> float | None:
    """Mean of the aspects' ratings ("N/A" left out); without ratings `fine-grained_score`, then `overall_score`."""
    annotations = completion.get("annotations")
    if isinstance(annotations, Mapping):
        given = [aspect.get("Rating") if isinstance(aspect, Mapping) else aspect for aspect in annotations.values()]
        ratings = [rating for rating in map(_number, given) if rating is not None]
        if ratings:
            return math.fsum(ratings) / len(ratings)
    for key in ("fine-grained_score", "overall_score"):
        score = _number(completion.get(key))
        if score is not None:
            return score
    return None


def _number(value: Any) -> float | None:
    if _is_number(value):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}(\.[0-9]{1,9})?\s*", value):
        return float(value)
    return None


def _is_number(value: Any) -> bool:
    """A finite number that a float can hold; true and false are none."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 1 << 53
    return isinstance(value, float) and math.isfinite(value)


def _draw(instruction: str, response: str) -> bytes:
    text = f"{len(instruction)} {instruction}{response}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def from_rlvr(row: Mapping[str, Any]) -> Row:
    """Prompt turns only: the last is the user's. What is no text in `ground_truth` becomes JSON with sorted keys."""
    messages = messages_of(row.get("messages"))
    if messages[-1]["role"] == "assistant":
        raise BrokenRow("messages hold an answer, not only the prompt")
    if messages[-1]["role"] != "user":
        raise BrokenRow("messages do not end with a user turn")
    if not messages[-1]["content"].strip():
        raise BrokenRow("empty prompt")
    return {
        "messages": messages,
        "ground_truth": _ground_truth(row.get("ground_truth")),
        "dataset": text_of(row.get("dataset"), "dataset"),
        "constraint_type": _optional_text(row, "constraint_type"),
        "constraint": _optional_text(row, "constraint"),
    }


def _ground_truth(value: Any) -> str:
    if value is None or isinstance(value, str):
        return text_of(value, "ground_truth")
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise BrokenRow("ground_truth has no JSON form") from None


def _optional_text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise BrokenRow(f"{name} is not text")
    return value


CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Row]] = {
    "messages": from_messages,
    "sharegpt": from_sharegpt,
    "prompt_completion": from_prompt_completion,
    "alpaca": from_alpaca,
    "question_answer": from_question_answer,
    "preference": from_preference,
    "ultrafeedback": from_ultrafeedback,
    "rlvr": from_rlvr,
}
