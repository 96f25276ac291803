import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.our_keys import OUR_KEYS
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.schema import keys_for
from tulu_recipes.config.trl_keys import REFUSED, RENAMED, SET_BY_US
from tulu_recipes.errors import Problem, RecipeError

Load = Callable[..., Recipe]
Refused = Callable[..., SimpleNamespace]
One = Callable[..., Problem]

TEN_MISTAKES = """\
model_name_or_path: no/such/model/folder
dataset_name: rows.jsonl
learning_rat: 3e-4
warmup_ratio: 0.03
seed: "12"
seed: 13
max_length: 1
optim: adamw-torch
chat_template: "tulu
deepspeed: ds.json
global_batch_size: 128
loss_reduction: sum
average_tokens_across_devices: false
"""


def test_ten_mistakes_are_reported_at_once_in_the_order_of_their_lines(refused: Refused) -> None:
    refusal = refused(TEN_MISTAKES, base="", environ={"WORLD_SIZE": "24"})
    assert [(problem.slug, problem.where) for problem in refusal.problems] == [
        ("path-missing", "sft.yaml line 1"),
        ("unknown-key", "sft.yaml line 3"),
        ("renamed-key", "sft.yaml line 4"),
        ("wrong-type", "sft.yaml line 5"),
        ("duplicate-key", "sft.yaml line 6"),
        ("out-of-range", "sft.yaml line 7"),
        ("unknown-choice", "sft.yaml line 8"),
        ("yaml-syntax", "sft.yaml line 9"),
        ("refused-key", "sft.yaml line 10"),
        ("batch-not-divisible", "sft.yaml line 11"),
        ("token-average", "sft.yaml line 13"),
    ]
    assert refusal.text.startswith("sft.yaml: 11 problems, nothing was started.\n\npath-missing  sft.yaml line 1\n")


def test_a_broken_file_is_answered_within_two_seconds_and_without_torch(folder: Path) -> None:
    (folder / "bad.yaml").write_text(TEN_MISTAKES)
    script = (
        "import sys\n"
        "from tulu_recipes.config import load_recipe, run_cli\n"
        "code = run_cli(lambda: load_recipe(['bad.yaml'], 'sft') and 0)\n"
        "heavy = {'torch', 'trl', 'transformers', 'datasets', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)\n"
    )
    started = time.monotonic()
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.environ["PATH"], "WORLD_SIZE": "24"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert time.monotonic() - started < 2.0
    assert done.returncode == 2, done.stderr
    assert "11 problems, nothing was started." in done.stderr
    assert sorted(entry.name for entry in folder.iterdir()) == ["bad.yaml", "model", "rows.jsonl"]


def test_values_are_the_given_the_derived_and_the_defaults(load: Load) -> None:
    recipe = load("learning_rate: 5e-6\nglobal_batch_size: 32\n", num_processes=4)
    assert recipe["learning_rate"] == 5e-6
    assert recipe["loss_reduction"] == "token_mean"
    assert recipe["max_grad_norm"] == 1.0
    assert (recipe["per_device_train_batch_size"], recipe["gradient_accumulation_steps"]) == (1, 8)
    assert recipe.batch is not None
    assert recipe.batch.num_processes == 4
    assert set(recipe.values) == set(keys_for("sft"))
    assert recipe.where("learning_rate") == "sft.yaml line 3"
    assert recipe.where("max_grad_norm") == "sft.yaml"
    assert recipe.derived == {
        "output_dir": "runs/sft",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
    }


def test_the_number_of_processes_is_the_argument_else_world_size_else_one(load: Load) -> None:
    text = "global_batch_size: 8\n"
    assert load(text)["gradient_accumulation_steps"] == 8
    assert load(text, environ={"WORLD_SIZE": "2"})["gradient_accumulation_steps"] == 4
    assert load(text, environ={"WORLD_SIZE": "2"}, num_processes=8)["gradient_accumulation_steps"] == 1


def test_a_world_size_that_is_no_number_is_refused(one: One) -> None:
    problem = one(environ={"WORLD_SIZE": "two"})
    assert (problem.slug, problem.where) == ("world-size", "environment")
    assert "'two'" in problem.what


def test_without_a_global_size_the_product_is_derived(load: Load) -> None:
    recipe = load("per_device_train_batch_size: 2\n", num_processes=4)
    assert recipe["global_batch_size"] == 8
    assert recipe.derived["global_batch_size"] == 8


@pytest.mark.parametrize(
    ("path", "output_dir"),
    [
        ("recipes/tiny/sft.yaml", "runs/tiny-sft"),
        ("recipes/tulu3/8b/sft.yaml", "runs/tulu3-8b-sft"),
        ("a/recipes/tiny/sft.yaml", "runs/tiny-sft"),
        ("experiments/lr/high.yaml", "runs/lr-high"),
        ("./mine.yaml", "runs/mine"),
        ("../mine.yaml", "runs/mine"),
    ],
)
def test_the_output_folder_is_named_after_the_recipe(path: str, output_dir: str, folder: Path) -> None:
    (folder / "in").mkdir()
    os.chdir(folder / "in")
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"model_name_or_path: {folder}/model\ndataset_name: {folder}/rows.jsonl\n")
    assert load_recipe([path], "sft", environ={})["output_dir"] == output_dir


def test_every_key_can_be_overridden_and_says_so(load: Load) -> None:
    recipe = load(
        "learning_rate: 5e-6\n",
        *("--learning_rate", "1e-5", "--max-steps=-1", "--packing", "--weight_decay", "0.1"),
        *("--use_peft", "true", "--lora_target_modules", "q_proj", "v_proj", "--report_to", "none"),
        *("--lr_scheduler_kwargs", "{min_lr: 1e-7}", "--pad_token", "<pad>", "--run_name", "a: b", "--bf16=no"),
    )
    assert recipe.overrides == {
        "learning_rate": 1e-5,
        "max_steps": -1,
        "packing": True,
        "weight_decay": 0.1,
        "use_peft": True,
        "lora_target_modules": ["q_proj", "v_proj"],
        "report_to": "none",
        "lr_scheduler_kwargs": {"min_lr": 1e-7},
        "pad_token": "<pad>",
        "run_name": "a: b",
        "bf16": False,
    }
    assert recipe.where("learning_rate") == "command line"
    assert recipe["learning_rate"] == 1e-5


def test_a_flow_list_and_one_word_are_lists(load: Load) -> None:
    assert load("", "--report_to", "[none]")["report_to"] == ["none"]
    assert load("", "--use_peft", "--lora_target_modules", "all-linear")["lora_target_modules"] == ["all-linear"]


def test_the_rank_that_a_launcher_adds_is_ignored(load: Load) -> None:
    assert "local_rank" not in load("", "--local_rank=1").overrides


def test_problems_of_the_command_line_stand_after_those_of_the_file(refused: Refused) -> None:
    refusal = refused("seed: x\n", "--learning_rat", "1", "--epochs=2", "--max_length", "--seed", "1", "--seed", "2")
    assert [(problem.slug, problem.where) for problem in refusal.problems] == [
        ("wrong-type", "sft.yaml line 3"),
        ("unknown-key", "command line"),
        ("renamed-key", "command line"),
        ("bad-argument", "command line"),
        ("bad-argument", "command line"),
    ]
    assert "--max_length has no value" in refusal.text
    assert "--seed is given twice" in refusal.text


def test_a_stray_word_and_a_recipe_that_is_not_first_are_refused(one: One) -> None:
    problem = one("", "more.yaml")
    assert (problem.slug, problem.what) == ("bad-argument", "more.yaml belongs to no key.")
    with pytest.raises(RecipeError) as caught:
        load_recipe(["--config", "sft.yaml"], "sft")
    assert "python -m tulu_recipes.sft sft.yaml" in str(caught.value)


def test_an_unknown_key_names_the_nearest_and_how_to_write_it(one: One) -> None:
    problem = one("chat_templat: tulu\n")
    assert (problem.slug, problem.mend) == ("unknown-key", "write  chat_template: tulu")
    assert one("zzzzqqq: 1\n").mend == "remove it, or see  python -m tulu_recipes.sft --help"


def test_a_misspelt_required_key_is_not_also_called_missing(refused: Refused) -> None:
    assert refused("datasett_name: rows.jsonl\n", base="model_name_or_path: ./model\n").slugs == ["unknown-key"]
    assert refused("dataset_mixer: x\n", base="model_name_or_path: ./model\n").slugs == ["renamed-key"]


def test_a_key_on_a_line_that_is_no_yaml_is_not_also_called_missing(one: One) -> None:
    assert one('dataset_name: "rows.jsonl\n', base="model_name_or_path: ./model\n").slug == "yaml-syntax"


@pytest.mark.parametrize("name", sorted(RENAMED))
def test_every_known_rename_is_answered_with_a_key_that_exists(name: str, refused: Refused) -> None:
    stage = next(stage for stage in OUR_KEYS if RENAMED[name].key in ("", *keys_for(stage)))
    problem = refused(f"{name}: 7\n", stage=stage).problems[0]
    assert problem.slug == "renamed-key"
    assert name in problem.what
    assert "{value}" not in problem.mend
    assert not any(name in keys_for(stage) for stage in OUR_KEYS)


def test_a_key_of_another_stage_is_named_as_such(one: One) -> None:
    problem = one("beta: 5\n")
    assert (problem.slug, problem.what) == ("other-stage-key", "beta is a key of dpo and rlvr, not of sft.")
    assert one("dpo_beta: 5\n").what == "dpo_beta is a key of dpo and rlvr (beta here), not of sft."
    assert one("loss_reduction: sum\n", stage="dpo").what == "loss_reduction is a key of sft, not of dpo."
    assert one("loss_type: nll\n", stage="reward").slug == "other-stage-key"


def test_the_renames_that_users_meet_most_say_what_to_write(one: One) -> None:
    assert one("warmup_ratio: 0.03\n").mend == "write  warmup_steps: 0.03  (below 1 it is a fraction of the steps)"
    assert one("max_seq_length: 4096\n").mend == "write  max_length: 4096"
    assert one("reduce_loss: sum\n").mend.startswith("write  loss_reduction: sum")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refused_key_says_why(name: str, one: One) -> None:
    problem = one(f"{name}: xyzzy\n")
    assert problem.slug == "refused-key"
    assert problem.what.startswith(f"{name} cannot be set. ")
    assert len(problem.mend) > 10


def test_a_hub_token_in_a_recipe_is_refused_without_repeating_it(one: One) -> None:
    assert "sesame" not in one("hub_token: sesame\n").render()


@pytest.mark.parametrize("name", sorted(SET_BY_US))
def test_a_key_that_the_stage_sets_may_repeat_that_value_only(name: str, load: Load, one: One) -> None:
    for value in SET_BY_US[name].accepted:
        text = {None: "null", True: "true", False: "false"}.get(value, value)
        assert load(f"{name}: {text}\n")[name] == value
    other = {"bool": "false" if True in SET_BY_US[name].accepted else "true", "str": "keep_end", "dict": "{a: 1}"}
    kind = next(kind for kind in other if kind in keys_for("sft")[name].kinds)
    text = "SEQ_CLS" if name == "lora_task_type" else other[kind]
    assert one(f"{name}: {text}\n").slug == "refused-key"


def test_help_shows_every_key_ours_first_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_recipe(["sft.yaml", "--help"], "sft", environ={})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in keys_for("sft"))
    assert text.index("--chat_template ") < text.index("--learning_rate ") < text.index("--dtype ")
    assert "sum | token_mean | sequence_mean | microbatch_mean. [token_mean]" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 110


def test_no_arguments_show_the_usage_and_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_recipe([], "sft", environ={})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m tulu_recipes.sft RECIPE.yaml")


def test_only_rank_0_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_recipe(["-h"], "sft", environ={"RANK": "3", "LOCAL_RANK": "3"})
    assert capsys.readouterr().out == ""


def test_no_damage_to_a_recipe_is_answered_with_anything_but_problems(load: Load) -> None:
    """Random cuts, doublings and strange characters: each damaged text loads or is refused, and never crashes."""
    random = Random(0)
    whole = "seed: 1\nreport_to: [none]\nlr_scheduler_kwargs: {a: 1e-7}\nrun_name: 'x y'\nmax_length: 64\n"
    for _ in range(100):
        text = list(whole)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(text))
            text[at] = random.choice(
                ["", "\n", "\t", ":", "[", "}", '"', "'", "&a", "*a", "- ", "!!int ", "\u2028", "|", "\x00"]
            )
        try:
            load("".join(text))
        except RecipeError as error:
            whole_answers = all(problem.where and problem.what and problem.mend for problem in error.problems)
            assert whole_answers  # a text that loads is fine too
