from collections.abc import Callable
from pathlib import Path

import pytest

from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.our_keys import OUR_KEYS
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.schema import NOT_SCIENCE, keys_for

Load = Callable[..., Recipe]

RICH = """\
chat_template: tulu
pad_token: "<pad>"
global_batch_size: 32
learning_rate: 5e-6
warmup_steps: 0.03
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr: 5e-7, words: ["no", "5e-6", null]}
eval_strategy: no
report_to: none
run_name: "tülu: # 1"
bf16: off
use_peft: true
lora_target_modules: [q_proj, "no"]
assistant_only_loss: true
allow: [bf16-weights]
num_train_epochs: 2
"""


def reload(recipe: Recipe, folder: Path, **options: object) -> Recipe:
    (folder / "recipe.resolved.yaml").write_text(recipe.to_yaml())
    return load_recipe(["recipe.resolved.yaml"], "sft", **({"environ": {}} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", RICH, "per_device_train_batch_size: 4\n", "global_batch_size: 8\nsave_steps: 5\n"]
)
def test_the_resolved_recipe_loads_to_the_same_values(load: Load, folder: Path, text: str) -> None:
    recipe = load(text, "--seed", "7", "--max_length", "256", num_processes=2)
    again = reload(recipe, folder, num_processes=2)
    assert again.values == recipe.values
    assert again.fingerprint() == recipe.fingerprint()
    assert reload(again, folder, num_processes=2).values == recipe.values


def test_the_resolved_recipe_runs_on_another_number_of_processes(load: Load, folder: Path) -> None:
    recipe = load("global_batch_size: 32\n", num_processes=2)
    again = reload(recipe, folder, num_processes=8)
    assert again["gradient_accumulation_steps"] == 4
    assert again.fingerprint() == recipe.fingerprint()


def test_the_resolved_recipe_says_where_each_value_came_from(load: Load) -> None:
    text = load("learning_rate: 5e-6\nglobal_batch_size: 16\n", "--seed", "7", num_processes=2).to_yaml()
    assert "learning_rate: 5.0e-6  # given, sft.yaml line 3\n" in text
    assert "seed: 7  # overridden on the command line\n" in text
    assert "output_dir: runs/sft  # derived\n" in text
    assert "weight_decay: 0.0  # default\n" in text
    assert "assistant_only_loss: true  # set by the stage\n" in text
    assert "# gradient_accumulation_steps: 8  for 2 processes; solved from global_batch_size\n" in text
    assert "hub_token" not in text
    assert "logging_steps" not in text


def test_the_resolved_recipe_holds_every_key_that_can_change_the_weights(load: Load) -> None:
    lines = load().to_yaml().splitlines()
    for key in keys_for("sft").values():
        if key.changes_weights:
            assert any(line.startswith(f"{key.name}:") for line in lines), key.name


def test_the_fingerprint_ignores_where_a_run_writes_and_how_it_reports(load: Load) -> None:
    plain = load("global_batch_size: 8\n").fingerprint()
    other = "output_dir: elsewhere\nlogging_steps: 1\nrun_name: x\nreport_to: none\nsave_steps: 7\n"
    assert load("global_batch_size: 8\n" + other).fingerprint() == plain
    assert load("global_batch_size: 8\nper_device_train_batch_size: 4\n").fingerprint() == plain
    assert load("global_batch_size: 8\nlearning_rate: 2e-5\n").fingerprint() == plain  # TRL's default, written out


def test_the_fingerprint_tells_recipes_of_other_weights_apart(load: Load) -> None:
    changes = ("", "seed: 1\n", "learning_rate: 1e-5\n", "loss_reduction: sum\n", "max_length: 64\n", "bf16: false\n")
    assert len({load("global_batch_size: 8\n" + change).fingerprint() for change in changes}) == len(changes)
    assert load("global_batch_size: 16\n").fingerprint() != load("global_batch_size: 8\n").fingerprint()


def test_the_division_of_the_batch_is_science_for_the_reduction_that_depends_on_it(load: Load) -> None:
    text = "global_batch_size: 8\nloss_reduction: microbatch_mean\nallow: [microbatch-mean]\n"
    split = text + "per_device_train_batch_size: 4\n"
    assert load(text).fingerprint() != load(split).fingerprint()


def test_evaluation_is_science_when_it_picks_the_checkpoint(load: Load) -> None:
    text = "load_best_model_at_end: true\neval_strategy: steps\nsave_strategy: steps\neval_dataset_name: rows.jsonl\n"
    one = load(text + "eval_steps: 5\nsave_steps: 5\n").fingerprint()
    assert load(text + "eval_steps: 10\nsave_steps: 10\n").fingerprint() != one


def test_trl_values_hold_what_was_given_derived_or_set_by_the_stage(load: Load) -> None:
    recipe = load("learning_rate: 5e-6\nmax_length: 64\ndtype: float32\npad_token: '<p>'\nglobal_batch_size: 4\n")
    values = recipe.trl_values(("SFTConfig", "TrainingArguments"))
    assert values["learning_rate"] == 5e-6
    assert values["max_length"] == 64
    assert values["gradient_accumulation_steps"] == 4
    assert values["output_dir"] == "runs/sft"
    assert values["assistant_only_loss"] is True
    assert "weight_decay" not in values
    assert "pad_token" not in values
    assert "global_batch_size" not in values
    assert recipe.trl_values("ModelConfig") == {
        "model_name_or_path": "./model",
        "dtype": "float32",
        "lora_task_type": "CAUSAL_LM",
    }
    assert recipe.trl_values("ScriptArguments") == {"dataset_name": "rows.jsonl"}


def test_the_names_of_keys_that_are_not_science_exist() -> None:
    assert {name for stage in OUR_KEYS for name in keys_for(stage)} >= NOT_SCIENCE


def test_where_names_the_line_for_given_keys_and_the_file_for_defaults(load: Load) -> None:
    recipe = load("seed: 3\n")
    assert (recipe.where("seed"), recipe.where("data_seed")) == ("sft.yaml line 3", "sft.yaml")


def test_a_recipe_is_immutable(load: Load) -> None:
    with pytest.raises(AttributeError):
        load().path = "other"  # type: ignore[misc]
