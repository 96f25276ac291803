import importlib.util
import json
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tulu_recipes.config.check import check_recipe
from tulu_recipes.config.check_machine import count_parameters, optimizer_bytes_per_parameter
from tulu_recipes.config.check_training import BF16_LOST_UPDATE
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.surroundings import is_local
from tulu_recipes.errors import HubError, Problem

Load = Callable[..., Recipe]
Refused = Callable[..., SimpleNamespace]
One = Callable[..., Problem]

EVAL = "eval_dataset_name: rows.jsonl\n"
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}
FSDP = {"ACCELERATE_USE_FSDP": "true"}

# text after the base recipe's two lines -> slug, line of the responsible key, words of message and mend
CONTRADICTIONS = [
    ("average_tokens_across_devices: false\nloss_reduction: sum\n", "token-average", 3, "remove average_tokens"),
    ("loss_reduction: sum\nlabel_smoothing_factor: 0.1\n", "loss-label-smoothing", 4, "loss_reduction: token_mean"),
    ("loss_reduction: sequence_mean\nloss_type: dft\n", "loss-type", 4, "loss_type: nll"),
    ("loss_reduction: microbatch_mean\n", "microbatch-mean", 3, "allow: [microbatch-mean]"),
    ("loss_reduction: sum\noptim: sgd\n", "sum-optimizer", 4, "allow: [sum-optimizer]"),
    ("dtype: bfloat16\nlearning_rate: 5e-6\n", "bf16-weights", 3, "allow: [bf16-weights]"),
    ("dtype: float16\nbf16: false\n", "fp16-weights", 3, "dtype: float32"),
    ("bf16: true\nfp16: true\n", "precision-twice", 4, "remove fp16"),
    ("packing: true\npacking_strategy: wrapped\n", "packing-not-isolated", 4, "packing_strategy: bfd"),
    ("packing: true\npacking_strategy: bfd_split\n", "packing-not-isolated", 4, "without its question"),
    ("packing: true\nattn_implementation: sage\n", "packing-not-isolated", 4, "attn_implementation: sdpa"),
    ("padding_free: true\nmax_length: null\nattn_implementation: sage\n", "packing-not-isolated", 5, "remove packing"),
    ("padding_free: true\n", "padding-free-length", 3, "packing: true"),
    ("packing: true\nmax_length: null\n", "packing-max-length", 4, "max_length: 4096"),
    ("eos_token: <x>\npad_token: <x>\n", "pad-is-eos", 4, 'pad_token: "<pad>"'),
    ("allow: [bf16-weight]\n", "unknown-consent", 3, "write  bf16-weights"),
    ("use_peft: true\nload_in_4bit: true\nload_in_8bit: true\n", "quantised-twice", 5, "keep one"),
    ("load_in_4bit: true\n", "quantised-full", 3, "use_peft: true"),
    ("load_in_8bit: true\n", "quantised-full", 3, "remove load_in_8bit"),
    ("lora_r: 8\nlora_target_modules: all-linear\n", "lora-without-peft", 3, "lora_r, lora_target_modules"),
    ("model_init_kwargs: {torch_dtype: bfloat16}\n", "model-init-kwargs", 3, "write  dtype: bfloat16"),
    ("model_init_kwargs: words\n", "model-init-kwargs", 3, "{key: value}"),
    ("save_steps: 2.5\n", "steps-not-whole", 3, "save_steps: 2"),
    ("load_best_model_at_end: true\n", "best-model", 3, "eval_strategy: steps"),
    ("save_strategy: best\n", "best-model", 3, "without evaluation"),
    ("lr_scheduler_type: reduce_lr_on_plateau\n", "scheduler-needs-eval", 3, "eval_strategy: steps"),
    ("dataset_mix: mix.yaml\n", "dataset-twice", 3, "keep one"),
    ("dataset_revision: v1\n", "revision-ignored", 3, "local path rows.jsonl"),
    ("model_revision: v1\n", "revision-ignored", 3, "local path ./model"),
    ("eval_strategy: steps\n", "eval-data-missing", 3, "eval_dataset_name"),
    ("sample_rows: 4\n", "eval-data-missing", 3, "eval_dataset_name"),
    ("eval_dataset_name: eval.jsonl\n", "path-missing", 3, "eval.jsonl does not exist"),
    ("chat_template: templates/mine.jinja\n", "path-missing", 3, "Neither does the folder templates"),
    ("resume_from_checkpoint: runs/x/checkpoint-5\n", "path-missing", 3, "checkpoint-5"),
    ("model_builder: tulu_recipes\n", "model-builder", 3, "package.module:function"),
    ("model_builder: no_such_package.tiny:build\n", "model-builder", 3, "no_such_package"),
    ("report_to: wandbb\n", "unknown-choice", 3, "report_to: wandb"),
    ("push_to_hub: true\n", "hub-offline", 3, "unset HF_HUB_OFFLINE"),
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Optional packages as importable folders: what is installed here must not decide these tests."""
    for name in ("bitsandbytes", "peft"):
        (folder / "packages" / name).mkdir(parents=True)
        (folder / "packages" / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(folder / "packages"))
    (folder / "mix.yaml").write_text("{}\n")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("text", "slug", "line", "said"), CONTRADICTIONS)
def test_a_contradiction_is_refused_where_it_was_written(text: str, slug: str, line: int, said: str, one: One) -> None:
    problem = one(text, environ={"HF_HUB_OFFLINE": "1"})
    assert (problem.slug, problem.where) == (slug, f"sft.yaml line {line}")
    assert said in problem.render()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "text",
    [
        "loss_reduction: sum\n",
        "loss_reduction: sequence_mean\n",
        "loss_reduction: microbatch_mean\nallow: [microbatch-mean]\n",
        "loss_reduction: sum\noptim: sgd\nallow: [sum-optimizer]\n",
        "label_smoothing_factor: 0.1\n",
        "dtype: bfloat16\nlearning_rate: 5e-6\nallow: [bf16-weights]\n",
        "dtype: bfloat16\nlearning_rate: 1e-4\n",
        "dtype: bfloat16\nlearning_rate: 5e-6\nuse_peft: true\n",
        "packing: true\n",
        "packing: true\nattn_implementation: kernels-community/flash-attn2\n",
        "packing: true\nattn_implementation: flash_attention_3\n",
        "packing_strategy: wrapped\n",
        "padding_free: true\nmax_length: null\n",
        "use_peft: true\nload_in_4bit: true\n",
        "use_peft: false\nlora_r: 8\n",
        "eval_strategy: steps\nload_best_model_at_end: on\neval_steps: 3\nsave_steps: 9\n" + EVAL,
        "load_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: best\neval_dataset_name: rows.jsonl\n",
        "eval_strategy: steps\neval_dataset_name: rows.jsonl\n",
        "save_steps: 0.5\n",
        "report_to: [none]\n",
        "resume_from_checkpoint: true\n",
        "model_init_kwargs: {use_kernels: true}\n",
    ],
)
def test_what_belongs_together_is_accepted(text: str, load: Load) -> None:
    assert load(text).broken == frozenset()


@pytest.mark.parametrize("environ", [DEEPSPEED, FSDP])
def test_launchers_that_keep_fp32_masters_may_load_bf16_weights(environ: dict[str, str], load: Load, one: One) -> None:
    text = "dtype: bfloat16\nlearning_rate: 5e-6\n"
    assert load(text, environ=environ)["dtype"] == "bfloat16"
    # without mixed precision nobody upcasts
    assert one(text + "bf16: false\n", environ=environ).slug == "bf16-weights"


@pytest.mark.integration
def test_the_bound_for_bf16_weights_is_where_bf16_loses_an_update() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.tensor(0.02, dtype=torch.bfloat16)
    assert weight + torch.tensor(BF16_LOST_UPDATE * 0.99, dtype=torch.bfloat16) == weight
    assert weight + torch.tensor(BF16_LOST_UPDATE * 1.01, dtype=torch.bfloat16) > weight


def test_several_problems_with_loading_the_best_model_follow_transformers(refused: Refused) -> None:
    base = "load_best_model_at_end: true\neval_strategy: steps\neval_dataset_name: rows.jsonl\n"
    for steps in (
        "eval_steps: 5\nsave_steps: 7\n",
        "eval_steps: 0.1\nsave_steps: 5\n",
        "eval_steps: 0.1\nsave_steps: 0.25\n",
    ):
        problem = refused(base + steps).first
        assert (problem.slug, problem.where) == ("best-model", "sft.yaml line 7")
    assert (
        "save_steps: 10  or a multiple" in refused(base + "save_steps: 7\n").text
    )  # eval_steps falls to logging_steps


def test_nothing_named_is_said_for_model_and_data(refused: Refused) -> None:
    assert refused("seed: 1\n", base="").slugs == ["model-missing", "dataset-missing"]
    assert "write  dataset_name:" in refused("seed: 1\n", base="").text


def test_a_missing_path_names_its_nearest_sibling(one: One) -> None:
    problem = one("dataset_name: ./row.jsonl\n", base="model_name_or_path: ./model\n")
    assert (problem.where, problem.mend) == ("sft.yaml line 2", "write  dataset_name: rows.jsonl")


def test_a_model_that_is_built_may_be_missing(load: Load) -> None:
    recipe = load(
        "model_builder: tulu_recipes.data.tiny:build\n", base="model_name_or_path: ./tiny\ndataset_name: rows.jsonl\n"
    )
    assert recipe["model_name_or_path"] == "./tiny"


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("allenai/tulu-3-sft-mixture", False),
        ("HuggingFaceTB/SmolLM2-1.7B", False),
        ("gpt2", False),
        ("./gpt2", True),
        ("/models/gpt2", True),
        ("~/gpt2", True),
        ("runs/tiny/checkpoint-5", True),
        ("data/rows.jsonl", True),
        ("rows.parquet", True),
        ("model", True),  # exists in the working directory
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_name_is_a_path_or_a_hub_id(name: str, local: bool) -> None:
    assert is_local(name) is local


def test_a_tracker_or_library_that_is_not_installed_is_refused(load: Load) -> None:
    recipe = load("use_peft: true\nreport_to: [none]\n")
    problems = check_recipe(recipe, has_module=lambda name: name != "peft")
    assert [(problem.slug, problem.where) for problem in problems] == [("library-missing", "sft.yaml line 3")]
    assert problems[0].mend == "pip install peft, or remove use_peft."


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("report_to: wandb\n", "wandb"),
        ("report_to: [none, tensorboard]\n", "tensorboard"),
        ("use_liger_kernel: true\n", "liger_kernel"),
        ("attn_implementation: flash_attention_2\n", "flash_attn"),
        ("optim: adamw_bnb_8bit\n", "bitsandbytes"),
        ("optim: schedule_free_adamw\n", "schedulefree"),
        ("optim: adamw_torch_8bit\n", "torchao"),
    ],
)
def test_each_library_is_named_with_the_key_that_needs_it(
    text: str, module: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    problem = refused(text).first
    assert problem.slug == "library-missing"
    assert f"the package {module}," in problem.what


def write_safetensors(path: Path, *shapes: list[int]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    header |= {
        f"t{index}": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for index, shape in enumerate(shapes)
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def test_parameters_are_counted_from_the_headers_of_all_files(folder: Path) -> None:
    write_safetensors(folder / "model" / "model-1.safetensors", [10, 20], [5])
    write_safetensors(folder / "model" / "model-2.safetensors", [3, 3, 3])
    (folder / "model" / "broken.safetensors").write_bytes(b"\x01")
    assert count_parameters(folder / "model") == 200 + 5 + 27


def test_too_little_disk_is_refused_with_the_sum(load: Load, folder: Path) -> None:
    write_safetensors(folder / "model" / "model.safetensors", [1000, 1000])
    # 1 M parameters: 4 MB weights, 8 MB AdamW moments; limit 2 keeps 3 for a moment: 3 x 12 + 4 = 40 MB
    recipe = load("save_total_limit: 2\noutput_dir: deep/run\n")
    assert check_recipe(recipe, free_bytes=lambda path: 40_000_000) == []
    (problem,) = check_recipe(recipe, free_bytes=lambda path: 39_999_999)
    assert (problem.slug, problem.where) == ("no-disk", "sft.yaml line 4")
    assert "the run writes 40.0 MB: 3 checkpoints of 4.0 MB weights and 8.0 MB optimizer state" in problem.what


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("", 28_000_000),  # 2 x 12 + 4
        ("save_strategy: no\n", 4_000_000),
        ("save_only_model: true\nsave_total_limit: 1\n", 12_000_000),  # 2 x 4 + 4
        ("optim: sgd\nsave_total_limit: 1\n", 12_000_000),
    ],
)
def test_the_room_needed_follows_what_is_saved(text: str, needed: int, load: Load, folder: Path) -> None:
    write_safetensors(folder / "model" / "model.safetensors", [1000, 1000])
    recipe = load(text)
    assert check_recipe(recipe, free_bytes=lambda path: needed) == []
    assert [problem.slug for problem in check_recipe(recipe, free_bytes=lambda path: needed - 1)] == ["no-disk"]


def test_optimizer_state_is_two_fp32_moments_for_adamw() -> None:
    assert optimizer_bytes_per_parameter("adamw_torch_fused") == 8
    assert optimizer_bytes_per_parameter("adamw_bnb_8bit") == 2
    assert optimizer_bytes_per_parameter("lion_32bit") == 4


def test_problems_of_the_hub_are_collected_with_the_others(load: Load) -> None:
    recipe = load()
    found = Problem("no-write-right", "sft.yaml", "what", "mend")
    assert check_recipe(recipe, hub_checks=lambda asked: [found] if asked is recipe else []) == [found]


def test_a_hub_that_refuses_to_be_read_is_one_more_problem(folder: Path, load: Load) -> None:
    recipe = load(base="model_name_or_path: some/model\ndataset_name: rows.jsonl\n")
    refusal = Problem("hub-gated", "", "what", "mend")

    def read_text(repo_id: str, filename: str, *, revision: str | None = None) -> str | None:
        raise HubError(refusal)

    assert refusal in check_recipe(recipe, read_text=read_text)
