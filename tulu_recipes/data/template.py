"""Tokenizer and chat template of a run, checked before any row is tokenized.

A run is refused when its template cannot say which tokens the assistant wrote, when the assistant's end-of-turn
token is left out of the loss (the model never learns to stop), or when padding and end-of-turn are the same token.
"""

import hashlib
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tulu_recipes.errors import DataError, Problem

TULU_TEMPLATE = Path(__file__).with_name("tulu.jinja")
PROBE = [
    {"role": "user", "content": "How many legs has a cat?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And a bird?"},
    {"role": "assistant", "content": "Two."},
]


def load_tokenizer(
    model_name_or_path: str,
    *,
    chat_template: str | None = None,
    pad_token: str | None = None,
    eos_token: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    supervised: bool = True,
) -> PreTrainedTokenizerBase:
    """The tokenizer a run trains and saves with: template set, padding apart from EOS, both checked.

    Args:
        chat_template: "tulu", a .jinja file, a folder or Hub id whose tokenizer has one, or None for its own.
        pad_token: token to pad with; added to the vocabulary when it is not there.
        eos_token: token that ends an assistant turn; must be in the vocabulary.
        supervised: False when no assistant turns of rows are trained on, so that the template need not mark them.
    Raises:
        DataError: with every reason why this tokenizer cannot train a chat model.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        model_name_or_path, revision=revision, trust_remote_code=trust_remote_code
    )
    if eos_token is not None:
        if eos_token not in tokenizer.get_vocab():
            raise DataError(
                Problem(
                    "eos-token-unknown",
                    f"eos_token: {eos_token}",
                    f"{eos_token!r} is not in the vocabulary of {model_name_or_path}; the model could never emit it.",
                    "name a token of that vocabulary, or drop the key to keep the tokenizer's own EOS.",
                )
            )
        tokenizer.eos_token = eos_token
    if pad_token is not None:
        tokenizer.add_special_tokens({"pad_token": pad_token})
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template, trust_remote_code=trust_remote_code)
    problems = check_tokenizer(tokenizer, model_name_or_path, supervised=supervised)
    if problems:
        raise DataError(problems)
    return tokenizer


def read_template(name: str, *, trust_remote_code: bool = False) -> str | None:
    """The text of a chat template given by name, file, folder or Hub id."""
    if name == "tulu":
        return TULU_TEMPLATE.read_text(encoding="utf-8")
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    template: str | None = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code).chat_template
    return template


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the chat template's text; of nothing where there is none."""
    return hashlib.sha256(str(tokenizer.chat_template or "").encode()).hexdigest()


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and 1 where the assistant wrote the token (its EOS included)."""
    encoded: Any = tokenizer.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=not add_generation_prompt,
        add_generation_prompt=add_generation_prompt,
    )
    ids = list(encoded["input_ids"])
    return ids, [0] * len(ids) if add_generation_prompt else list(encoded["assistant_masks"])


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, *, supervised: bool = True) -> list[Problem]:
    """Everything that would make this tokenizer train something else than whole assistant turns."""
    problems = []
    if tokenizer.eos_token is None:
        problems.append(
            Problem(
                "eos-missing", name, "The tokenizer names no EOS token, so no turn could end.", "set eos_token: ..."
            )
        )
    if tokenizer.pad_token is None:
        problems.append(
            Problem(
                "pad-missing",
                name,
                "The tokenizer has no padding token; padding with EOS would hide EOS from the loss.",
                'write  pad_token: "<pad>"  (added to the vocabulary when absent).',
            )
        )
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        problems.append(
            Problem(
                "pad-is-eos",
                name,
                f"Padding and EOS are the same token ({tokenizer.eos_token!r}): masking one hides the other, and the "
                "model never learns to stop.",
                'write  pad_token: "<pad>"  (added to the vocabulary when absent).',
            )
        )
    problems += _check_template(tokenizer, name, supervised)
    return problems


def _check_template(tokenizer: PreTrainedTokenizerBase, name: str, supervised: bool) -> list[Problem]:
    if tokenizer.chat_template is None:
        return [
            Problem(
                "template-missing",
                name,
                "The tokenizer has no chat template, so messages cannot become text.",
                "write  chat_template: tulu  (or the path of a .jinja file).",
            )
        ]
    try:
        ids, mask = encode_chat(tokenizer, PROBE)
    except TemplateError as error:
        return [
            Problem(
                "template-broken",
                name,
                f"The chat template cannot render a user/assistant conversation: {error}.",
                "mend the template, or write  chat_template: tulu.",
            )
        ]
    if not supervised:
        return []
    spans = supervised_spans(mask)
    if len(spans) != 2:
        return [
            Problem(
                "template-without-generation",
                name,
                f"The chat template marks {len(spans)} assistant turns of a conversation that has 2: without "
                "{% generation %} markers the labels cannot cover exactly what the assistant wrote.",
                "write  chat_template: tulu, or put {% generation %} … {% endgeneration %} around assistant turns.",
            )
        ]
    if tokenizer.eos_token_id is not None and not all(ends_with_eos(ids, span, tokenizer) for span in spans):
        return [
            Problem(
                "template-eos-unsupervised",
                name,
                f"The chat template ends an assistant turn outside the loss: {tokenizer.eos_token!r} would never be "
                "learned, and the trained model would not stop.",
                "move the EOS inside {% generation %} … {% endgeneration %}, or set eos_token to the token that ends "
                "a turn in this template.",
            )
        ]
    return []


def supervised_spans(mask: list[int]) -> list[tuple[int, int]]:
    """Runs of 1 in a mask, as (start, stop) pairs."""
    edges = [i for i in range(len(mask) + 1) if (i and mask[i - 1] == 1) != (i < len(mask) and mask[i] == 1)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def ends_with_eos(ids: list[int], span: tuple[int, int], tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a supervised span ends on EOS; white space after it is tolerated, as in ChatML's line break."""
    for position in range(span[1] - 1, span[0] - 1, -1):
        if ids[position] == tokenizer.eos_token_id:
            return True
        if str(tokenizer.decode([ids[position]])).strip():
            return False
    return False
