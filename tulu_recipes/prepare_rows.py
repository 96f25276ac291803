"""What a stage's rows are and become: loaded, tokenized, audited, held to the limits, cut down to those that train."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.data import audit, pair_audit, prompt_audit
from tulu_recipes.data.audit import Audit, Limits, print_audit
from tulu_recipes.data.conversion import BrokenRow
from tulu_recipes.data.layouts import recognise
from tulu_recipes.data.pair_audit import PairLimits
from tulu_recipes.data.pairs import PairRules, tokenize_pairs, trainable_pairs
from tulu_recipes.data.prompt_audit import PromptLimits
from tulu_recipes.data.prompts import tokenize_prompts, trainable_prompts
from tulu_recipes.data.sources import load_dataset_rows, load_rows
from tulu_recipes.data.supervision import tokenize_rows, trainable_rows
from tulu_recipes.errors import DataError, Problem

Row = Mapping[str, Any]


class RowWork(ABC):
    """The steps of `prepare.prepare_data`, for one layout of rows."""

    @abstractmethod
    def load(self, name: str, **where: Any) -> Dataset:
        """All rows of a dataset. Raises DataError when they are not of this layout."""

    @abstractmethod
    def tokenize(self, recipe: Recipe, rows: Dataset, tokenizer: PreTrainedTokenizerBase, name: str) -> Dataset:
        """One tokenized row of each row, with the audit's columns."""

    @abstractmethod
    def check_columns(self, recipe: Recipe, rows: Dataset, name: str) -> None:
        """Refuse training rows that lack a column which the recipe names. Raises DataError."""

    @abstractmethod
    def audit(self, recipe: Recipe, tokenized: Dataset) -> Audit: ...

    @abstractmethod
    def show(self, found: Audit, console: Console) -> None: ...

    @abstractmethod
    def problems(self, recipe: Recipe, found: Audit, name: str) -> list[Problem]: ...

    @abstractmethod
    def trainable(self, tokenized: Dataset, over_length: str) -> Dataset: ...

    @abstractmethod
    def conversations(self, rows: Dataset) -> Dataset:
        """Rows that a person reads, with the conversation to compare answers with."""


class ChatRows(RowWork):
    """Conversations to imitate."""

    def load(self, name: str, **where: Any) -> Dataset:
        return load_rows(name, **where)

    def tokenize(self, recipe: Recipe, rows: Dataset, tokenizer: PreTrainedTokenizerBase, name: str) -> Dataset:
        return tokenize_rows(
            rows,
            tokenizer,
            max_length=recipe["max_length"],
            num_proc=recipe["dataset_num_proc"],
            default_source=name,
        )

    def check_columns(self, recipe: Recipe, rows: Dataset, name: str) -> None:
        return  # no key names one

    def audit(self, recipe: Recipe, tokenized: Dataset) -> Audit:
        return audit.audit_rows(tokenized, max_length=recipe["max_length"], over_length=recipe["over_length"])

    def show(self, found: Audit, console: Console) -> None:
        print_audit(found, console)

    def problems(self, recipe: Recipe, found: Audit, name: str) -> list[Problem]:
        return audit.check_limits(found, _limits(recipe), name)

    def trainable(self, tokenized: Dataset, over_length: str) -> Dataset:
        return trainable_rows(tokenized, over_length=over_length)

    def conversations(self, rows: Dataset) -> Dataset:
        return rows


class PairRows(RowWork):
    """Preference pairs, in any layout of docs/layouts.md."""

    def load(self, name: str, **where: Any) -> Dataset:
        rows = load_dataset_rows(name, **where)
        recognise(rows.features, "preference", name)
        return rows

    def tokenize(self, recipe: Recipe, rows: Dataset, tokenizer: PreTrainedTokenizerBase, name: str) -> Dataset:
        margin = recipe.values.get("margin_column")
        return tokenize_pairs(
            rows,
            tokenizer,
            pair_rules(recipe),
            # held-out pairs may lack it: their loss is then without
            margin_column=margin if margin in rows.column_names else None,
            num_proc=recipe["dataset_num_proc"],
            default_source=name,
        )

    def check_columns(self, recipe: Recipe, rows: Dataset, name: str) -> None:
        margin = recipe.values.get("margin_column")
        if margin is not None and margin not in rows.column_names:
            what = f"{name} has no column {margin}; it has {', '.join(rows.column_names)}."
            mend = "name a column of numbers, or remove margin_column."
            raise DataError(Problem("columns-unknown", recipe.where("margin_column"), what, mend))

    def audit(self, recipe: Recipe, tokenized: Dataset) -> Audit:
        return pair_audit.audit_pairs(tokenized, max_length=recipe["max_length"], over_length=recipe["over_length"])

    def show(self, found: Audit, console: Console) -> None:
        print_audit(found, console, pair_audit.COLUMNS, title="Length report", always=pair_audit.ALWAYS_SHOWN)

    def problems(self, recipe: Recipe, found: Audit, name: str) -> list[Problem]:
        compares_last = recipe.values.get("masking") == "last_turn"
        limits = PairLimits(
            rows=_limits(recipe),
            identical=recipe["max_identical_fraction"],
            early=recipe["max_early_divergence_fraction"] if compares_last else None,
        )
        return pair_audit.check_limits(found, limits, name)

    def trainable(self, tokenized: Dataset, over_length: str) -> Dataset:
        return trainable_pairs(tokenized, over_length=over_length)

    def conversations(self, rows: Dataset) -> Dataset:
        """The preferred conversation of every pair that can be read."""
        layout = recognise(rows.features, "preference", "evaluation rows")
        found = []
        for row in rows:
            try:
                found.append({"messages": layout.convert(row)["chosen"], "source": str(row.get("source") or "")})
            except BrokenRow:
                continue  # counted by the audit of the tokenized rows
        return Dataset.from_list(found)


class PromptRows(RowWork):
    """Prompts whose answers a verifier grades."""

    def load(self, name: str, **where: Any) -> Dataset:
        rows = load_dataset_rows(name, **where)
        recognise(rows.features, "rlvr", name)
        return rows

    def tokenize(self, recipe: Recipe, rows: Dataset, tokenizer: PreTrainedTokenizerBase, name: str) -> Dataset:
        return tokenize_prompts(
            rows,
            tokenizer,
            max_prompt_length=recipe["max_prompt_length"],
            semantics=recipe["verifier_semantics"],
            num_proc=recipe["dataset_num_proc"],
            default_source=name,
        )

    def check_columns(self, recipe: Recipe, rows: Dataset, name: str) -> None:
        return  # no key names one

    def audit(self, recipe: Recipe, tokenized: Dataset) -> Audit:
        return prompt_audit.audit_prompts(
            tokenized, max_length=recipe["max_prompt_length"], over_length=recipe["over_length"]
        )

    def show(self, found: Audit, console: Console) -> None:
        print_audit(found, console, prompt_audit.COLUMNS, title="Prompts", always=prompt_audit.ALWAYS_SHOWN)

    def problems(self, recipe: Recipe, found: Audit, name: str) -> list[Problem]:
        limits = PromptLimits(
            rows=Limits(1.0, 1.0, recipe["max_broken_fraction"], recipe["max_duplicate_fraction"]),
            unreadable_labels=recipe["max_unreadable_label_fraction"],
            rollout_prompts=recipe["generation_batch_size"] // recipe["num_generations"],
        )
        return prompt_audit.check_limits(found, limits, name)

    def trainable(self, tokenized: Dataset, over_length: str) -> Dataset:
        return trainable_prompts(tokenized)  # a cut prompt would be another question

    def conversations(self, rows: Dataset) -> Dataset:
        """Every prompt that can be read, answered by its ground truth, and the verifier that grades other answers."""
        layout = recognise(rows.features, "rlvr", "evaluation rows")
        found = []
        for row in rows:
            try:
                read = layout.convert(row)
            except BrokenRow:
                continue  # counted by the audit of the tokenized rows
            answer = {"role": "assistant", "content": read["ground_truth"]}
            found.append({"messages": [*read["messages"], answer], "verifier": read["dataset"]})
        return Dataset.from_list(found)


ROWS_OF_STAGE: Mapping[str, RowWork] = {
    "sft": ChatRows(),
    "reward": PairRows(),
    "dpo": PairRows(),
    "rlvr": PromptRows(),
}


def pair_rules(recipe: Recipe) -> PairRules:
    """How the pairs of a dpo or reward recipe become tokens."""
    return PairRules(
        recipe["max_length"],
        prompt_only=recipe["over_length"] == "as_released",
        masking=recipe.values.get("masking", "last_turn"),
        mask_termination_tokens=recipe.values.get("mask_termination_tokens", False),
    )


def _limits(recipe: Recipe) -> Limits:
    return Limits(
        cut_answers=recipe["max_cut_answer_fraction"],
        unsupervised=recipe["max_unsupervised_fraction"],
        broken=recipe["max_broken_fraction"],
        duplicates=recipe["max_duplicate_fraction"],
    )
