"""Recipes of the preference stages: what is refused, in which words, before torch is there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.errors import Problem

Load = Callable[..., Recipe]
One = Callable[..., Problem]
Refused = Callable[..., SimpleNamespace]


def test_tulu_s_loss_and_llama_3_s_are_keys(load: Load) -> None:
    tulu = load("loss_type: sigmoid_norm\nbeta: 5\nmasking: all_assistant_turns\n", stage="dpo")
    assert (tulu["loss_type"], tulu["beta"], tulu.loss_types()) == ("sigmoid_norm", 5.0, ["sigmoid_norm"])
    text = "loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.2]\nmask_termination_tokens: true\n"
    llama = load(text, stage="dpo")
    assert (llama.loss_types(), llama["loss_weights"]) == (["sigmoid", "sft"], [1.0, 0.2])
    assert llama["mask_termination_tokens"] is True


def test_lists_can_be_given_on_the_command_line(load: Load) -> None:
    recipe = load("", "--loss_type", "sigmoid", "sft", "--loss_weights", "1", "0.2", stage="dpo")
    assert (recipe.loss_types(), recipe["loss_weights"]) == (["sigmoid", "sft"], [1.0, 0.2])


@pytest.mark.parametrize("beta", ["0", "-0.1", "0.0"])
def test_beta_must_be_above_zero(beta: str, one: One) -> None:
    problem = one(f"beta: {beta}\n", stage="dpo")
    assert (problem.slug, problem.where) == ("out-of-range", "dpo.yaml line 3")
    assert "must be above 0" in problem.what


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        ("loss_type: dpo_norm\n", "unknown-choice", "loss_type is dpo_norm"),
        ("loss_type: [sigmoid, sigmod_norm]\n", "unknown-choice", "sigmod_norm"),
        ("loss_type: [sigmoid, sigmoid]\n", "loss-combination", "names a loss twice"),
        ("loss_type: []\n", "loss-combination", "empty list"),
        ("loss_type: [simpo, sft]\n", "loss-combination", "simpo is a loss of another trainer"),
        ("loss_type: [sigmoid, sft]\nloss_weights: [1.0]\n", "loss-combination", "1 numbers for 2 losses"),
        ("loss_type: [sigmoid, sft]\nloss_weights: [1.0, much]\n", "wrong-type", "loss_weights"),
        ("loss_type: [sigmoid, sft]\nloss_weights: [1.0, -1.0]\n", "loss-combination", "turned round"),
        ("loss_type: [sigmoid, sft]\nloss_weights: [0, 0]\n", "loss-combination", "nothing trains"),
        ("loss_type: simpo\nloss_weights: [3.0]\n", "key-ignored", "TRL's SimPO"),
        ("loss_type: sft\nbeta: 3\n", "key-ignored", "sft alone"),
        ("loss_type: aot\n", "loss-per-microbatch", "sorts the pairs of one micro-batch"),
        ("loss_type: exo_pair\n", "loss-label-smoothing", "above 0"),
        ("loss_type: robust\nlabel_smoothing: 0.5\n", "loss-label-smoothing", "below 0.5"),
        ("loss_type: robust\n", "loss-label-smoothing", "is sigmoid"),
        ("label_smoothing: 0.1\n", "key-ignored", "label_smoothing: 0.1 would be ignored"),
        ("simpo_gamma: 1.0\n", "key-ignored", "loss_type is not simpo"),
        ("loss_type: simpo\nprecompute_ref_log_probs: true\n", "key-ignored", "SimPO has no reference"),
        ("loss_type: simpo\nconcatenated_forward: false\n", "key-ignored", "TRL's SimPO"),
        ("discopop_tau: 0.1\n", "key-ignored", "loss_type is not discopop"),
        ("ref_log_probs_cache: cache\n", "key-ignored", "precompute_ref_log_probs is not true"),
        ("masking: all_assistant_turns\nmax_early_divergence_fraction: 0.5\n", "key-ignored", "wherever they part"),
        ("f_divergence_type: kl\n", "unknown-choice", "f_divergence_type is kl"),
        ("f_divergence_type: forward_kl\nloss_type: nca_pair\n", "loss-combination", "not defined for nca_pair"),
        ("use_weighting: true\nloss_type: [sigmoid, sft]\n", "loss-combination", "weighs pairs one by one"),
        ("sync_ref_model: true\n", "moving-reference", "a checkpoint does not hold the reference"),
        ("sync_ref_model: true\nsave_strategy: 'no'\nuse_peft: true\n", "moving-reference", "no second model"),
        ("label_smoothing_factor: 0.1\n", "refused-key", "do not read it"),
        ("padding_free: true\n", "refused-key", "TRL's DPOTrainer has switched it off"),
        ("packing: true\n", "other-stage-key", "packing is a key of sft"),
        ("truncation_mode: keep_end\n", "refused-key", "keep the answer"),
        ("masking: last\n", "unknown-choice", "masking is last"),
        ("over_length: as_released\n", "unknown-choice", "over_length is as_released"),
        ("on_alarm: explode\n", "unknown-choice", "on_alarm"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, slug: str, words: str, one: One) -> None:
    problem = one(text, stage="dpo")
    assert problem.slug == slug
    assert words in problem.what
    assert problem.mend


def test_sorting_losses_need_consent_and_then_depend_on_the_division(load: Load) -> None:
    text = "loss_type: aot\nallow: [loss-per-microbatch]\nglobal_batch_size: 8\n"
    one, two = (load(text + f"per_device_train_batch_size: {size}\n", stage="dpo") for size in (4, 8))
    assert one.fingerprint() != two.fingerprint()
    plain = [load(f"global_batch_size: 8\nper_device_train_batch_size: {size}\n", stage="dpo") for size in (4, 8)]
    assert plain[0].fingerprint() == plain[1].fingerprint()


def test_where_the_reference_comes_from_is_not_science(load: Load) -> None:
    texts = ("", "precompute_ref_log_probs: true\nref_log_probs_cache: cache\n", "concatenated_forward: false\n")
    assert len({load(text, stage="dpo").fingerprint() for text in texts}) == 1


def test_a_reward_model_cannot_be_tuned_to_talk_and_can_be_trained_on(
    one: One, load: Load, folder: Path, new_model: Callable[..., Path]
) -> None:
    new_model(folder / "model", config={"architectures": ["LlamaForSequenceClassification"]})
    problem = one("", stage="dpo")
    assert problem.slug == "wrong-architecture"
    assert "a reward model" in problem.what
    assert load("", stage="reward").stage == "reward"


def test_a_base_model_without_a_template_is_refused(one: One, folder: Path, new_model: Callable[..., Path]) -> None:
    (folder / "model" / "chat_template.jinja").unlink()
    assert one("", stage="dpo").slug == "template-missing"
    assert one("", stage="reward").slug == "template-missing"


def test_a_reward_model_is_evaluated_on_pairs_that_are_named(one: One, load: Load) -> None:
    assert load("over_length: as_released\n", stage="reward")["over_length"] == "as_released"
    assert load("", stage="reward")["over_length"] == "drop"
    assert one("eval_strategy: steps\n", stage="reward").slug == "eval-data-missing"
    assert one("sample_rows: 3\n", stage="reward").slug == "other-stage-key"


def test_a_model_that_an_earlier_stage_has_not_trained_yet_names_the_command(one: One, folder: Path) -> None:
    (folder / "sft.yaml").write_text("output_dir: runs/first  # where it goes\n")
    for name in ("runs/first", "./runs/first"):
        problem = one("", base=f"model_name_or_path: {name}\ndataset_name: rows.jsonl\n", stage="dpo", ask_hub=True)
        assert problem.slug == "path-missing"
        assert problem.mend == "run  python -m tulu_recipes.sft sft.yaml  first."
