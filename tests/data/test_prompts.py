"""RLVR rows: prompts, verifiers and labels, each fault counted, named by its row, and held to a limit."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tests.tiny import tiny_tokenizer
from tulu_recipes.data.audit import Audit, Limits
from tulu_recipes.data.prompt_audit import PromptLimits, audit_prompts, check_limits
from tulu_recipes.data.prompts import tokenize_prompts, trainable_prompts
from tulu_recipes.errors import Problem

LIMITS = PromptLimits(Limits(1.0, 1.0, 0.0, 1.0), unreadable_labels=0.0, rollout_prompts=1)
TULU_HEADER = "<|assistant|>\n"


def row(text: str = "two and two", truth: Any = "4", dataset: str = "gsm8k", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "ground_truth": truth, "dataset": dataset} | more


def tokenized(rows: list[dict[str, Any]], length: int | None = 64, **options: Any) -> Dataset:
    return tokenize_prompts(
        Dataset.from_list(rows), tiny_tokenizer(), max_prompt_length=length, default_source="rows", **options
    )


def audited(rows: list[dict[str, Any]], length: int | None = 64, over_length: str = "drop") -> Audit:
    return audit_prompts(tokenized(rows, length), max_length=length, over_length=over_length)


def problems(rows: list[dict[str, Any]], limits: PromptLimits = LIMITS, **options: Any) -> dict[str, Problem]:
    return {problem.slug: problem for problem in check_limits(audited(rows, **options), limits, "rows.jsonl")}


def test_a_prompt_is_counted_with_template_and_generation_prompt() -> None:
    found = tokenized([row()])[0]
    tokenizer = tiny_tokenizer()
    text = tokenizer.bos_token or ""
    shown = tokenizer.apply_chat_template(row()["messages"], tokenize=False, add_generation_prompt=True)
    assert shown.endswith(TULU_HEADER)
    assert found["tokens"] == len(tokenizer(shown, add_special_tokens=False)["input_ids"])
    assert text == "<s>"
    assert found["source"] == "rows · gsm8k"


def test_what_trains_has_trl_s_columns_and_the_order_of_the_rows() -> None:
    rows = [row(f"sum {i}", str(i)) for i in range(5)]
    trained = trainable_prompts(tokenized(rows))
    assert trained.column_names == ["prompt", "ground_truth", "dataset"]
    assert trained["ground_truth"][:] == ["0", "1", "2", "3", "4"]
    assert trained[3]["prompt"] == [{"role": "user", "content": "sum 3"}]


def test_constraints_stay_with_rows_that_have_them() -> None:
    rows = [row(constraint_type="Case", constraint="all small"), row(constraint_type=None, constraint=None)]
    trained = trainable_prompts(tokenized(rows))
    assert trained["constraint"][:] == ["all small", None]


@pytest.mark.parametrize(
    ("truth", "dataset", "fault"),
    [
        ("twelve", "gsm8k", "label is no number"),
        ("{not json", "ifeval", "label is not JSON"),
        ('{"func_name": "no_such"}', "IFEval", "label names an unknown function"),
        ('["validate_no_commas"]', "ifeval", "label is not an object"),
    ],
)
def test_a_label_that_its_verifier_cannot_read_is_named(truth: str, dataset: str, fault: str) -> None:
    rows = [row(), row(truth=truth, dataset=dataset)]
    found = tokenized(rows)
    assert found["label_fault"][:] == ["", fault]
    assert len(trainable_prompts(found)) == 1
    problem = problems(rows)["labels-unreadable"]
    assert f"In 1 of 2 rows the verifier cannot read the ground truth: row 2 (rows · {dataset.lower()}): {fault}" in (
        problem.what
    )


@pytest.mark.parametrize("truth", [None, "", "   "])
def test_a_missing_ground_truth_is_a_broken_row(truth: str | None) -> None:
    problem = problems([row(), row(truth=truth)])["rows-broken"]
    assert "1 of 2 rows are broken: row 2 (rows)" in problem.what
    assert "ground_truth" in problem.what


def test_a_number_is_a_ground_truth() -> None:
    assert tokenized([row(truth=7)])["label_fault"][:] == [""]


def test_an_unknown_verifier_far_down_is_named_by_its_row() -> None:
    rows = [row(f"sum {i % 7}", "1") for i in range(3000)]
    rows[2999] = row(dataset="gsmk8")
    problem = problems(rows)["verifier-unknown"]
    assert "1 of 3,000 rows" in problem.what
    assert "row 3,000 (rows · gsmk8): gsmk8" in problem.what


def test_the_name_of_a_verifier_may_be_in_any_case() -> None:
    assert problems([row(dataset="GSM8K"), row(dataset="Gsm8k")]) == {}


def test_a_verifier_without_the_released_semantics_is_unknown_under_them() -> None:
    found = tokenized([row("pick", "A", "multiple_choice")], semantics="as_released")
    assert found["label_fault"][:] == ["no such verifier"]
    assert tokenized([row("pick", "A", "multiple_choice")])["label_fault"][:] == [""]


def test_equal_labels_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tulu_recipes.data import prompts

    asked: list[Any] = []

    class Pool:
        def label_faults(self, labels: list[tuple[str, str]]) -> list[str | None]:
            asked.extend(labels)
            return [None] * len(labels)

    monkeypatch.setattr(prompts, "default_pool", Pool)
    batch = {"dataset": ["gsm8k"] * 4, "ground_truth": ["1", "2", "1", "x"], "fault": ["", "", "", "broken"]}
    assert prompts.check_labels(batch, {"gsm8k": 1}) == {"label_fault": ["", "", "", ""]}
    assert asked == [("gsm8k", "1"), ("gsm8k", "2")]


def test_long_prompts_are_dropped_or_stop_the_run() -> None:
    rows = [row(), row("the cat sat on a mat " * 20)]
    audit = audited(rows)
    assert (audit.total.over_length_dropped, audit.total.trained_rows) == (1, 1)
    assert trainable_prompts(tokenized(rows))["prompt"][:] == [rows[0]["messages"]]
    assert problems(rows) == {}
    problem = problems(rows, over_length="stop")["over-length"]
    assert "1 of 2 prompts are longer than max_prompt_length: 64 tokens: row 2" in problem.what


def test_a_rollout_needs_as_many_prompts() -> None:
    limits = PromptLimits(LIMITS.rows, 0.0, rollout_prompts=8)
    assert "takes 8 prompts, and there are 3" in problems([row()] * 3, limits)["rollout-too-large"].what
    assert problems([row()] * 8, limits) == {}


def test_all_reasons_come_at_once() -> None:
    rows = [row(truth=""), row(truth="x"), row(dataset="nosuch"), {**row(), "messages": []}]
    assert set(problems(rows)) == {"no-rows", "rows-broken", "verifier-unknown", "labels-unreadable"}


def test_counts_are_by_source_and_verifier() -> None:
    rows = [row(source="a"), row(source="a"), row(truth="{", dataset="ifeval", source="a"), row(source="b")]
    audit = audited(rows)
    assert {name: (counts.rows, counts.trained_rows) for name, counts in audit.sources.items()} == {
        "a · gsm8k": (2, 2),
        "a · ifeval": (1, 0),
        "b · gsm8k": (1, 1),
    }
    assert (audit.total.unreadable_labels, audit.total.duplicates) == (1, 2)


def test_the_bundled_mix_is_ready_to_train_on() -> None:
    rows = Dataset.from_json(str(Path(__file__).parents[2] / "data_mixes" / "tiny" / "rlvr.jsonl"))
    found = tokenize_prompts(rows, tiny_tokenizer(), max_prompt_length=128)
    assert len(trainable_prompts(found)) == len(rows) > 200
