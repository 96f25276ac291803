"""From preference rows to tokens and completion masks, keeping the books of both answers.

`tokenize_pairs` makes one tokenized row of every row it is given, faulty ones included, so that the audit
(`data/pair_audit.py`) counts all of them; `trainable_pairs` then keeps those a run trains on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from datasets import Dataset, Features, Sequence, Value
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tulu_recipes.data.conversion import IDENTICAL, BrokenRow, shared_turns
from tulu_recipes.data.layouts import Layout, recognise
from tulu_recipes.data.template import encode_chat, ends_with_eos, supervised_spans

Masking = Literal["last_turn", "all_assistant_turns"]
Row = Mapping[str, Any]

SIDES = ("chosen", "rejected")
# What a trainer reads
TRAINED = ("chosen_ids", "rejected_ids", "chosen_mask", "rejected_mask")
FEATURES = Features(
    {
        "chosen_ids": Sequence(Value("int32")),
        "rejected_ids": Sequence(Value("int32")),
        "chosen_mask": Sequence(Value("int8")),
        "rejected_mask": Sequence(Value("int8")),
        "margin": Value("float32"),  # the chosen score must lead by it; null where no column is named
        "source": Value("string"),
        "row": Value("int64"),
        "fault": Value("string"),  # why the row is no pair; empty when it is one
        "identical": Value("bool"),  # both answers are the same text
        "prefix_only": Value("bool"),  # cutting left only what both share
        "early": Value("bool"),  # the conversations part before their last turn
        "over_length": Value("bool"),  # one of them is longer than max_length; as_released: the prompt is
        "answer_cut": Value("bool"),
        "chosen_cut": Value("bool"),  # completion tokens of this side were lost by cutting
        "rejected_cut": Value("bool"),
        "tokens": Value("int64"),  # of both sides, after cutting
        "supervised_tokens": Value("int64"),  # of both masks, after cutting; 0 = one side has none left
        "chosen_tokens": Value("int64"),  # of its mask
        "rejected_tokens": Value("int64"),
        "eos_missing": Value("bool"),  # a compared, uncut turn that does not end on EOS
        "double_bos": Value("bool"),
        "odd_order": Value("bool"),
        "key": Value("int64"),  # equal for pairs with equal tokens and masks
    }
)


@dataclass(frozen=True)
class PairRules:
    """How a pair becomes tokens.

    max_length: tokens of a whole conversation; None: no limit.
    prompt_only: the limit is on the prompt alone, and nothing is cut. [OIr] as released, by a slip of precedence.
    masking: last_turn: the last answer of each side. all_assistant_turns: every assistant turn, shared ones included
        [OIr]. Either way EOS is in, headers and user text are out.
    mask_termination_tokens: the EOS of each compared turn is out too (Llama 3.1, arXiv 2407.21783 §4.1.4).
    """

    max_length: int | None
    prompt_only: bool = False
    masking: Masking = "last_turn"
    mask_termination_tokens: bool = False


@dataclass(frozen=True)
class _Side:
    ids: list[int]
    mask: list[int]  # 1 = compared
    spans: list[tuple[int, int]]  # the compared turns

    @property
    def prompt_length(self) -> int:
        return self.spans[-1][0] if self.spans else len(self.ids)


def tokenize_pairs(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    rules: PairRules,
    *,
    margin_column: str | None = None,
    num_proc: int | None = None,
    default_source: str = "",
) -> Dataset:
    """Tokens, masks and the audit columns of every pair (`FEATURES`), in the order of `dataset`.

    Args:
        dataset: any layout of preference rows (docs/layouts.md).
        margin_column: column of numbers that becomes `margin`.
        default_source: name of rows without a `source` column.
    Raises:
        DataError: the columns are of no such layout.
    """
    return dataset.map(
        tokenize_pair,
        with_indices=True,
        fn_kwargs={
            "layout": recognise(dataset.features, "preference", default_source or "train_dataset"),
            "tokenizer": tokenizer,
            "rules": rules,
            "margin_column": margin_column,
            "default_source": default_source,
        },
        remove_columns=dataset.column_names,
        features=FEATURES,
        num_proc=num_proc,
        desc="Tokenizing pairs",
    )


def tokenize_pair(
    row: Row,
    index: int,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    rules: PairRules,
    margin_column: str | None = None,
    default_source: str = "",
) -> dict[str, Any]:
    """One row of `tokenize_pairs`."""
    out: dict[str, Any] = {
        name: [] if isinstance(feature, Sequence) else _EMPTY[feature.dtype] for name, feature in FEATURES.items()
    }
    out |= {"source": str(row.get("source") or default_source), "row": index, "margin": None}
    try:
        pair = layout.convert(row)
        out["margin"] = _margin(row, margin_column)
        sides = {side: _encode(tokenizer, pair[side], rules) for side in SIDES}
    except BrokenRow as broken:
        return out | {"fault": str(broken), "identical": str(broken) == IDENTICAL}
    except TemplateError as error:
        return out | {"fault": f"the chat template refuses it: {error}"}
    return out | _books(sides, pair, tokenizer, rules)


_EMPTY = {"float32": None, "string": "", "int64": 0, "bool": False}


def _margin(row: Row, column: str | None) -> float | None:
    if column is None:
        return None
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise BrokenRow(f"{column} is not a number")
    return float(value)


def _encode(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], rules: PairRules) -> _Side:
    ids, mask = encode_chat(tokenizer, messages)
    mask[:1] = [0]  # nothing comes before the first token, so it can not be predicted
    spans = supervised_spans(mask)
    if rules.masking == "last_turn":
        spans = spans[-1:]
    compared = [0] * len(ids)
    for start, stop in spans:
        compared[start:stop] = [1] * (stop - start)
        if rules.mask_termination_tokens:
            for place in range(start, stop):
                compared[place] = int(ids[place] != tokenizer.eos_token_id)
    return _Side(ids, compared, spans)


def _books(sides: dict[str, _Side], pair: Row, tokenizer: PreTrainedTokenizerBase, rules: PairRules) -> dict[str, Any]:
    """Everything but the columns that a faulty row has too."""
    limit = None if rules.prompt_only else rules.max_length
    kept = {side: len(sides[side].ids) if limit is None else min(len(sides[side].ids), limit) for side in SIDES}
    ids = {side: sides[side].ids[: kept[side]] for side in SIDES}
    masks = {side: sides[side].mask[: kept[side]] for side in SIDES}
    tokens = {side: sum(masks[side]) for side in SIDES}
    cut = {side: any(stop > kept[side] for _, stop in sides[side].spans) for side in SIDES}
    long_prompt = rules.max_length is not None and sides["chosen"].prompt_length > rules.max_length
    bos = tokenizer.bos_token_id
    digest = hashlib.blake2b(str((ids, masks)).encode(), digest_size=8).digest()
    last = min(len(pair["chosen"]), len(pair["rejected"])) - 1
    return {
        "chosen_ids": ids["chosen"],
        "rejected_ids": ids["rejected"],
        "chosen_mask": masks["chosen"],
        "rejected_mask": masks["rejected"],
        "prefix_only": ids["chosen"] == ids["rejected"] and all(tokens.values()),
        "early": shared_turns(pair["chosen"], pair["rejected"]) < last or len(pair["chosen"]) != len(pair["rejected"]),
        "over_length": long_prompt if rules.prompt_only else any(kept[s] < len(sides[s].ids) for s in SIDES),
        "answer_cut": any(cut.values()),
        "chosen_cut": cut["chosen"],
        "rejected_cut": cut["rejected"],
        "tokens": len(ids["chosen"]) + len(ids["rejected"]),
        "supervised_tokens": sum(tokens.values()) if all(tokens.values()) else 0,
        "chosen_tokens": tokens["chosen"],
        "rejected_tokens": tokens["rejected"],
        "eos_missing": not all(
            ends_with_eos(side.ids, span, tokenizer)
            for name, side in sides.items()
            for span in side.spans
            if span[1] <= kept[name]
        ),
        "double_bos": bos is not None and any(side.ids[:2] == [bos] * 2 for side in sides.values()),
        "key": int.from_bytes(digest, "little", signed=True),
    }


def kept_pairs(tokenized: Dataset, *, over_length: str) -> Dataset:
    """The pairs a run trains on, with all their columns: whole, different, compared on both sides, and within length
    unless cut; order kept.
    """
    flags = tokenized.select_columns(["fault", "supervised_tokens", "over_length", "prefix_only"]).to_pandas()
    keep = (flags["fault"] == "") & (flags["supervised_tokens"] > 0) & ~flags["prefix_only"]
    if over_length in ("drop", "as_released"):
        keep &= ~flags["over_length"]
    return tokenized.select(keep.to_numpy().nonzero()[0])


def trainable_pairs(tokenized: Dataset, *, over_length: str) -> Dataset:
    """`kept_pairs` with what a trainer reads: columns `TRAINED`, and `margin` where rows have one."""
    margin = ["margin"] if tokenized.select_columns("margin").to_pandas()["margin"].notna().any() else []
    return kept_pairs(tokenized, over_length=over_length).select_columns([*TRAINED, *margin])
