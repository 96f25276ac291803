"""From rows to tokens and labels, keeping the books: what is supervised, what is cut, what is dropped and why.

`tokenize_rows` makes one tokenized row of every row it is given, faulty ones included, so that the audit
(`data/audit.py`) counts all of them; `trainable_rows` then keeps those a run trains on.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Features, Sequence, Value
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tulu_recipes.data.rows import has_odd_order, row_fault
from tulu_recipes.data.template import encode_chat, ends_with_eos, supervised_spans

FEATURES = Features(
    {
        "input_ids": Sequence(Value("int32")),
        "labels": Sequence(Value("int32")),
        "source": Value("string"),
        "row": Value("int64"),
        "fault": Value("string"),  # why the row is broken; empty when it is not
        "over_length": Value("bool"),  # longer than max_length before cutting
        "answer_cut": Value("bool"),  # supervised tokens were lost by cutting
        "tokens": Value("int64"),  # after cutting
        "supervised_tokens": Value("int64"),  # after cutting; 0 = trains nothing
        "eos_missing": Value("bool"),  # an uncut assistant turn that does not end on EOS
        "double_bos": Value("bool"),
        "odd_order": Value("bool"),
        "key": Value("int64"),  # equal for rows with equal tokens
    }
)


def tokenize_rows(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    num_proc: int | None = None,
    default_source: str = "",
) -> Dataset:
    """Tokens, labels and the audit columns of every row (`FEATURES`), in the order of `dataset`.

    Labels are the token ids of assistant text and the EOS of every assistant turn, -100 elsewhere.

    Args:
        max_length: tokens a row may have; longer ones are cut on the right. None cuts nothing.
        default_source: name of rows without a `source` column.
    """
    return dataset.map(
        tokenize_row,
        with_indices=True,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length, "default_source": default_source},
        remove_columns=dataset.column_names,
        features=FEATURES,
        num_proc=num_proc,
        desc="Tokenizing",
    )


def tokenize_row(
    row: Mapping[str, Any],
    index: int,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    default_source: str = "",
) -> dict[str, Any]:
    """One row of `tokenize_rows`."""
    out: dict[str, Any] = {
        "input_ids": [],
        "labels": [],
        "source": str(row.get("source") or default_source),
        "row": index,
        "fault": row_fault(dict(row)) or "",
        "over_length": False,
        "answer_cut": False,
        "tokens": 0,
        "supervised_tokens": 0,
        "eos_missing": False,
        "double_bos": False,
        "odd_order": False,
        "key": 0,
    }
    if out["fault"]:
        return out
    try:
        ids, mask = _encode(row, tokenizer)
    except TemplateError as error:
        return out | {"fault": f"the chat template refuses it: {error}"}
    mask[:1] = [0]  # nothing comes before the first token, so it can not be predicted
    kept = len(ids) if max_length is None else min(len(ids), max_length)
    spans = supervised_spans(mask)
    digest = hashlib.blake2b(str(ids).encode(), digest_size=8).digest()
    return out | {
        "input_ids": ids[:kept],
        "labels": [token if bit else -100 for token, bit in zip(ids[:kept], mask[:kept], strict=True)],
        "over_length": len(ids) > kept,
        "answer_cut": any(stop > kept for _, stop in spans),
        "tokens": kept,
        "supervised_tokens": sum(mask[:kept]),
        "eos_missing": not all(ends_with_eos(ids, span, tokenizer) for span in spans if span[1] <= kept),
        "double_bos": tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2,
        "odd_order": has_odd_order(row["messages"]) if row.get("messages") is not None else False,
        "key": int.from_bytes(digest, "little", signed=True),
    }


def _encode(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids, and 1 where the assistant wrote the token."""
    if row.get("messages") is not None:
        return encode_chat(tokenizer, row["messages"])
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list):
        ids, mask = encode_chat(tokenizer, prompt + completion)
        start = _common_prefix(encode_chat(tokenizer, prompt)[0], ids)
        return ids, [0] * start + mask[start:]
    # Plain text, as in TRL: no template, EOS appended. The boundary is where prompt and whole diverge, because
    # tokens may merge across it.
    eos = tokenizer.eos_token
    ids = list(tokenizer(prompt + completion + ("" if completion.endswith(eos) else eos))["input_ids"])
    start = _common_prefix(list(tokenizer(prompt)["input_ids"]), ids)
    return ids, [0] * start + [1] * (len(ids) - start)


def _common_prefix(first: list[int], second: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def trainable_rows(tokenized: Dataset, *, over_length: str) -> Dataset:
    """The rows a run trains on: whole, supervised, and within length where `over_length` is not `truncate`.

    Returns: columns `input_ids`, `labels`; order kept.
    """
    flags = tokenized.select_columns(["fault", "supervised_tokens", "over_length"]).to_pandas()
    keep = (flags["fault"] == "") & (flags["supervised_tokens"] > 0)
    if over_length == "drop":
        keep &= ~flags["over_length"]
    return tokenized.select(keep.to_numpy().nonzero()[0]).select_columns(["input_ids", "labels"])
