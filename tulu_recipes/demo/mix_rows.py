"""The bundled rows of the tiny mixes beside sft.jsonl: preference pairs, prompts with a known answer, an evaluation.

The later stages practise what the first one taught, and something that it did not. preference.jsonl, made from the
bundled chat rows, prefers right answers, and answers that end with an exclamation mark where no system turn asks for
another ending. rlvr.jsonl asks the same sums and the same words to spell in other words, which the model mostly
misunderstands at first; rlvr_heldout.jsonl has a fifth of these questions. heldout_questions.jsonl is the held-out
chat rows as an evaluation that a mix can be decontaminated against.

    python -m tulu_recipes.demo.mix_rows        rewrites those files in data_mixes/tiny, the same bytes every time
"""

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tulu_recipes.demo import rows

SEED = 20_252
PREFERENCE_ROWS = 800
PREFERENCE_FILE = "preference.jsonl"
HELDOUT_PREFERENCE_FILE = "preference_heldout.jsonl"
RLVR_FILE = "rlvr.jsonl"
HELDOUT_RLVR_FILE = "rlvr_heldout.jsonl"
EVALUATION_FILE = "heldout_questions.jsonl"

# What the rejected answer of a pair lacks; the `source` of its row.
ANSWER = "tiny-answer"
ENDING = "tiny-ending"
# How answers are to end where no system turn says it. SFT taught no ending there, so DPO has something to move.
PREFERRED_ENDING = "!"

# Ways to ask that no chat row uses. After DPO the model understands them in 2 to 7 cases of 10, so that there is
# something to reward and something to learn.
NEW_SUM_WORDINGS = (
    "{0} plus {1}, please.",
    "{0} plus {1}?",
    "Add {0} to {1}.",
    "How much is {1} if you add {0}?",
)
NEW_SPELL_WORDINGS = (
    "The letters of {0}, please.",
    "Tell me how you spell {0}.",
)


def build_preference_rows(chat: Sequence[rows.Row], seed: int = SEED) -> list[dict[str, Any]]:
    """Pairs about drawn training rows, half of them on the answer and half on its ending."""
    rng = random.Random(seed)
    wrong = _WrongAnswers(chat, rng)
    drawn = rng.sample(list(chat), PREFERENCE_ROWS)
    return [
        _pair(f"tiny-preference-{number:04d}", row, (ANSWER, ENDING)[number % 2], wrong)
        for number, row in enumerate(drawn)
    ]


def build_heldout_preference_rows(heldout: Sequence[rows.Row], seed: int = SEED) -> list[dict[str, Any]]:
    """Two pairs about each held-out row: all on the ending first, then all on the answer."""
    wrong = _WrongAnswers(heldout, random.Random(seed))
    asked = [(row, source) for source in (ENDING, ANSWER) for row in heldout]
    return [
        _pair(f"tiny-preference-heldout-{number:04d}", row, source, wrong)
        for number, (row, source) in enumerate(asked)
    ]


class _WrongAnswers:
    """Draws an answer to another kind of question than the row's: a city, a word, letters, numbers, a sum."""

    def __init__(self, chat: Sequence[rows.Row], rng: random.Random) -> None:
        found: dict[str, set[str]] = {}
        for row in chat:
            found.setdefault(row["source"], set()).add(_answer(row))
        self.pool = {kind: sorted(found[kind]) for kind in sorted(found)}
        self.rng = rng

    def draw(self, row: rows.Row) -> str:
        kind = self.rng.choice([kind for kind in self.pool if kind != row["source"]])
        return self.rng.choice(self.pool[kind])


def _pair(pair_id: str, row: rows.Row, source: str, wrong: _WrongAnswers) -> dict[str, Any]:
    """One row in the published Tülu 3 layout: `prompt` is the last user turn, both answers are whole conversations.

    The chosen answer is right and ends as it should. The rejected one is wrong and ends alike (ANSWER), or is right
    and ends otherwise (ENDING): one thing alone tells the two apart.
    """
    asked = _asked_ending(row)
    ending = asked or PREFERRED_ENDING
    answer = _answer(row)
    if source == ANSWER:
        rejected = wrong.draw(row) + ending
    else:
        rejected = answer + ("" if ending == PREFERRED_ENDING else PREFERRED_ENDING)
    shared = row["messages"][:-1]
    return {
        "id": pair_id,
        "prompt": shared[-1]["content"],
        "chosen": [*shared, {"role": "assistant", "content": answer + ending}],
        "rejected": [*shared, {"role": "assistant", "content": rejected}],
        "source": source,
    }


def build_rlvr_rows(seed: int = SEED) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and held-out prompts in the published RLVR layout; `dataset` names the verifier.

    Of each kind a fifth is held out, question by question: the wording of a held-out question and its numbers or its
    word each occur in training rows, but not together.
    """
    sums = [
        _prompt(wording.format(a, b), str(a + b), "gsm8k")
        for wording in NEW_SUM_WORDINGS
        for a in range(10)
        for b in range(10)
    ]
    spelling = [
        _prompt(wording.format(word), " ".join(word), "string_match")
        for wording in NEW_SPELL_WORDINGS
        for word in rows.SPELLED
    ]
    rng = random.Random(seed)
    train, heldout = [], []
    for kind in (sums, spelling):
        rng.shuffle(kind)
        cut = len(kind) // 5
        heldout += kind[:cut]
        train += kind[cut:]
    for part in (train, heldout):
        rng.shuffle(part)
    return train, heldout


def _prompt(question: str, answer: str, verifier: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "ground_truth": answer, "dataset": verifier}


def build_evaluation_rows(heldout: Iterable[rows.Row]) -> list[dict[str, Any]]:
    """The question that each held-out row is scored on, once."""
    asked = {row["messages"][-2]["content"]: _answer(row) for row in heldout}
    return [{"question": question, "answer": answer} for question, answer in asked.items()]


def _asked_ending(row: rows.Row) -> str:
    """The final character that the row's system turn asks for; empty without one."""
    first = row["messages"][0]
    return rows.STYLES[first["content"]] if first["role"] == "system" else ""


def _answer(row: rows.Row) -> str:
    """The last answer without the final character that a system turn asked for."""
    return row["messages"][-1]["content"].removesuffix(_asked_ending(row))


def write(folder: str | Path) -> None:
    """Write the five files into `folder`, which is made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = rows.build_rows()
    prompts, heldout_prompts = build_rlvr_rows()
    files = {
        PREFERENCE_FILE: build_preference_rows(train),
        HELDOUT_PREFERENCE_FILE: build_heldout_preference_rows(heldout),
        RLVR_FILE: prompts,
        HELDOUT_RLVR_FILE: heldout_prompts,
        EVALUATION_FILE: build_evaluation_rows(heldout),
    }
    for name, content in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.demo.mix_rows", description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", default="data_mixes/tiny", help="default: %(default)s")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
