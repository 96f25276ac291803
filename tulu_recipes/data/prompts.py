"""From RLVR rows to the prompts a run samples answers to, keeping the books of labels and verifiers.

`tokenize_prompts` makes one row of every row it is given, faulty ones included, so that the audit
(`data/prompt_audit.py`) counts all of them; `trainable_prompts` then keeps those a run trains on.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, Features, Value
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tulu_recipes.data.conversion import BrokenRow
from tulu_recipes.data.layouts import Layout, recognise
from tulu_recipes.data.template import encode_chat
from tulu_recipes.errors import DataError
from tulu_recipes.verifiers import default_pool, find_verifier

Row = Mapping[str, Any]

# What a trainer and its reward functions read; the constraints only where a row has one
TRAINED = ("prompt", "ground_truth", "dataset")
CONSTRAINTS = ("constraint_type", "constraint")
UNKNOWN = "no such verifier"
FEATURES = Features(
    {
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "ground_truth": Value("string"),
        "dataset": Value("string"),  # the verifier's name, as the row has it
        "constraint_type": Value("string"),
        "constraint": Value("string"),
        "source": Value("string"),  # and the verifier
        "row": Value("int64"),
        "fault": Value("string"),  # why the row is no prompt with a label; empty when it is one
        "label_fault": Value("string"),  # why its verifier cannot use the ground truth; empty when it can
        "over_length": Value("bool"),  # the prompt is longer than max_prompt_length
        "answer_cut": Value("bool"),  # nothing is ever cut
        "tokens": Value("int64"),  # of the prompt, with template and generation prompt
        "supervised_tokens": Value("int64"),  # the same: every prompt is answered
        "eos_missing": Value("bool"),
        "double_bos": Value("bool"),
        "odd_order": Value("bool"),
        "key": Value("int64"),  # equal for rows with equal tokens, label and verifier
    }
)
_EMPTY = {"string": "", "int64": 0, "bool": False}


def tokenize_prompts(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_length: int | None,
    semantics: str = "fixed",
    num_proc: int | None = None,
    default_source: str = "",
) -> Dataset:
    """Prompts, ground truths and the audit columns of every row (`FEATURES`), in the order of `dataset`.

    Args:
        max_prompt_length: tokens, chat template and generation prompt included; None: no limit.
        semantics: of the verifiers, which must have it.
        default_source: name of rows without a `source` column.
    Raises:
        DataError: the columns are of no layout of RLVR rows, or the library of a verifier is not installed.
    """
    tokenized = dataset.map(
        tokenize_prompt,
        with_indices=True,
        fn_kwargs={
            "layout": recognise(dataset.features, "rlvr", default_source or "train_dataset"),
            "tokenizer": tokenizer,
            "max_prompt_length": max_prompt_length,
            "default_source": default_source,
        },
        remove_columns=dataset.column_names,
        features=FEATURES,
        num_proc=num_proc,
        desc="Tokenizing prompts",
    )
    # a step of its own, over all rows at once: equal labels are read once, and the verifiers' processes started once
    return tokenized.map(
        check_labels,
        batched=True,
        batch_size=None,
        fn_kwargs={"versions": verifier_versions(tokenized, semantics)},
        features=FEATURES,
        desc="Reading labels",
    )


def tokenize_prompt(
    row: Row,
    index: int,
    layout: Layout,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_length: int | None,
    default_source: str = "",
) -> dict[str, Any]:
    """One row of `tokenize_prompts`, its label not yet read."""
    source = str(row.get("source") or default_source)
    out: dict[str, Any] = {"prompt": [], "constraint_type": None, "constraint": None}
    out |= {name: _EMPTY[feature.dtype] for name, feature in FEATURES.items() if name not in out}
    out |= {"row": index, "source": source}
    try:
        found = layout.convert(row)
        ids, _ = encode_chat(tokenizer, found["messages"], add_generation_prompt=True)
    except BrokenRow as broken:
        return out | {"fault": str(broken)}
    except TemplateError as error:
        return out | {"fault": f"the chat template refuses it: {error}"}
    bos = tokenizer.bos_token_id
    key = str((ids, found["ground_truth"], found["dataset"].lower())).encode()
    return out | {
        "prompt": found["messages"],
        "ground_truth": found["ground_truth"],
        "dataset": found["dataset"],
        "constraint_type": found["constraint_type"],
        "constraint": found["constraint"],
        "source": f"{source} · {found['dataset'].lower()}",
        "over_length": max_prompt_length is not None and len(ids) > max_prompt_length,
        "tokens": len(ids),
        "supervised_tokens": len(ids),
        "double_bos": bos is not None and ids[:2] == [bos] * 2,
        "key": int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little", signed=True),
    }


def check_labels(batch: dict[str, list[Any]], versions: Mapping[str, int | None]) -> dict[str, list[str]]:
    """The column `label_fault`. versions: verifier → its version, None where there is none."""
    pairs = list(zip(batch["dataset"], batch["ground_truth"], strict=True))
    whole = [fault == "" for fault in batch["fault"]]
    wanted = {pair for pair, readable in zip(pairs, whole, strict=True) if readable}
    known = sorted(pair for pair in wanted if versions[pair[0]] is not None)
    faults = dict.fromkeys(wanted, UNKNOWN) | dict(zip(known, default_pool().label_faults(known), strict=True))
    return {"label_fault": [(faults[pair] or "") if ok else "" for pair, ok in zip(pairs, whole, strict=True)]}


def verifier_versions(rows: Dataset, semantics: str) -> dict[str, int | None]:
    """The version of each verifier that the rows name; None where there is none."""
    return {name: _version(name, semantics) for name in sorted(set(rows["dataset"]))}


def _version(name: str, semantics: str) -> int | None:
    """None when there is no such verifier, or not with these semantics."""
    try:
        return find_verifier(name, semantics).version
    except DataError as error:
        if set(error.slugs) == {"verifier-unknown"}:
            return None
        raise


def trainable_prompts(tokenized: Dataset) -> Dataset:
    """The rows a run trains on: whole, with a readable label, and not too long.

    Returns: columns `TRAINED`, and `CONSTRAINTS` where a row has one; order kept.
    """
    flags = tokenized.select_columns(["fault", "label_fault", "over_length"]).to_pandas()
    keep = (flags["fault"] == "") & (flags["label_fault"] == "") & ~flags["over_length"]
    rows = tokenized.select(keep.to_numpy().nonzero()[0])
    constrained = any(value is not None for name in CONSTRAINTS for value in tokenized[name])
    return rows.select_columns([*TRAINED, *(CONSTRAINTS if constrained else ())])
