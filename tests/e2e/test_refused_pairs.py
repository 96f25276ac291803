"""Pairs that cannot be compared: the stages say which, why, and what to do, and leave nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stage import run_here, slugs, write_pair_recipe
from tests.tiny import pair, save_base, tiny_tokenizer

pytestmark = pytest.mark.integration
ASSISTANT = {"role": "assistant", "content": "two"}


def question(text: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


BAD: dict[str, dict[str, Any]] = {
    "chosen and rejected are the same": {"chosen": question("hello", "two"), "rejected": question("hello", "two")},
    "a message (assistant) is empty": {"chosen": question("hello", ""), "rejected": question("hello", "two")},
    "chosen and rejected have different prompts": {
        "chosen": question("hello", "two"),
        "rejected": question("red", "one"),
    },
    "chosen does not end with an assistant turn": {
        "chosen": [*question("hello", "two"), {"role": "system", "content": "be brief"}],
        "rejected": question("hello", "one"),
    },
}
EARLY = {
    "chosen": [*question("hello", "two"), *question("how many", "three")],
    "rejected": [*question("hello", "one"), *question("how many", "four")],
}
LONG_PROMPT = {"chosen": question("cat " * 300, "two"), "rejected": question("cat " * 300, "one")}


def rows(*bad: dict[str, Any]) -> list[dict[str, Any]]:
    """Good pairs with scores that are text, and the bad ones after them."""
    good = [pair(number, 1) for number in range(20)]
    full = [{"prompt": row["chosen"][0]["content"], "source": "bad"} | row for row in bad]
    return [row | {"score_chosen": "good", "margin": "high"} for row in [*good, *full]]


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_every_kind_of_bad_pair_at_once_is_named_with_its_row(stage: str, tmp_path: Path) -> None:
    recipe = write_pair_recipe(tmp_path, rows(*BAD.values(), EARLY, LONG_PROMPT), over_length="truncate")
    result = run_here(stage, recipe)
    assert result.returncode == 2
    expected = {"rows-broken", "pairs-identical", "rows-unsupervised"}
    assert slugs(result.stderr) == expected | ({"pairs-part-early"} if stage == "dpo" else set())
    for number, reason in enumerate(list(BAD)[1:], start=22):
        assert f"row {number} (bad): {reason}" in result.stderr
    assert "row 21 (bad)" in result.stderr
    assert not (tmp_path / "run").exists()


def test_pairs_that_part_early_train_all_turns_and_raised_limits_drop_the_rest(
    tmp_path: Path,
) -> None:
    limits = dict.fromkeys(("max_broken_fraction", "max_identical_fraction", "max_unsupervised_fraction"), 0.2)
    recipe = write_pair_recipe(
        tmp_path,
        rows(*BAD.values(), EARLY, LONG_PROMPT),
        masking="all_assistant_turns",
        max_cut_answer_fraction=0.2,
        max_steps=1,
        **limits,
    )
    result = run_here("dpo", recipe)
    assert result.returncode == 0, result.stderr
    total = json.loads((tmp_path / "run" / "audit.json").read_text())["total"]
    assert (total["rows"], total["trained_rows"], total["broken"], total["identical"]) == (26, 21, 3, 1)


def test_text_where_the_reward_model_wants_a_margin_is_named_by_row(tmp_path: Path) -> None:
    result = run_here("reward", write_pair_recipe(tmp_path, rows(), margin_column="margin"))
    assert result.returncode == 2
    assert "row 1 (source-0): margin is not a number" in result.stderr


@pytest.mark.parametrize("stage", ["dpo", "reward"])
def test_chat_rows_are_answered_with_what_a_pair_looks_like(stage: str, tmp_path: Path) -> None:
    recipe = write_pair_recipe(tmp_path, [{"messages": question("hello", "two")}])
    result = run_here(stage, recipe)
    assert (result.returncode, slugs(result.stderr)) == (2, {"columns-unknown"})
    assert "preference (chosen, rejected)" in result.stderr


def test_models_that_cannot_be_tuned_are_refused_before_anything_else(tmp_path: Path) -> None:
    save_base(tmp_path / "bare", tiny_tokenizer())
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    bare = write_pair_recipe(tmp_path / "a", model_name_or_path=str(tmp_path / "bare"), chat_template=None)
    assert slugs(run_here("dpo", bare).stderr) == {"template-missing"}
    config = json.loads((tmp_path / "bare" / "config.json").read_text())
    scorer = config | {"architectures": ["LlamaForSequenceClassification"]}
    (tmp_path / "bare" / "config.json").write_text(json.dumps(scorer))
    reward = write_pair_recipe(tmp_path / "b", model_name_or_path=str(tmp_path / "bare"), beta=0)
    assert slugs(run_here("dpo", reward).stderr) == {"wrong-architecture", "out-of-range"}


def test_a_cache_of_other_pairs_is_refused_before_a_model_is_loaded_or_a_folder_made(tmp_path: Path) -> None:
    cached = {"precompute_ref_log_probs": True, "ref_log_probs_cache": str(tmp_path / "cache"), "max_steps": 1}
    first = run_here("dpo", write_pair_recipe(tmp_path / "a", **cached))
    assert first.returncode == 0, first.stderr
    other = run_here("dpo", write_pair_recipe(tmp_path / "b", masking="all_assistant_turns", **cached))
    assert (other.returncode, slugs(other.stderr)) == (2, {"ref-cache-other"})
    assert "masking (last_turn → all_assistant_turns)" in other.stderr
    assert not (tmp_path / "b" / "run").exists()
    (tmp_path / "file").write_text("no folder")
    file = run_here(
        "dpo", write_pair_recipe(tmp_path / "c", **cached | {"ref_log_probs_cache": str(tmp_path / "file")})
    )
    assert (file.returncode, slugs(file.stderr)) == (2, {"ref-cache-other"})


def test_a_model_without_weights_and_an_output_that_is_a_file_are_refused_in_words(tmp_path: Path) -> None:
    recipe = write_pair_recipe(tmp_path)
    (tmp_path / "run").write_text("a file")
    taken = run_here("dpo", recipe)
    assert (taken.returncode, slugs(taken.stderr)) == (2, {"run-folder-foreign"})
    assert (tmp_path / "run").read_text() == "a file"
    (tmp_path / "base" / "model.safetensors").unlink()
    empty = run_here("dpo", recipe)
    assert (empty.returncode, slugs(empty.stderr)) == (2, {"model-incomplete"})


def test_a_whole_epoch_that_drops_its_last_step_ends_well(tmp_path: Path) -> None:
    recipe = write_pair_recipe(tmp_path, dataloader_drop_last=True, global_batch_size=16, num_train_epochs=1)
    result = run_here("dpo", recipe)
    assert result.returncode == 0, result.stderr
