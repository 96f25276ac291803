"""Reference log-probs on disk: computed once, continued where they stopped, refused for anything else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from tests import pair_oracle
from tests.pair_layouts import pair_config, pair_rows, pair_trainer, save_models
from tests.tiny import tiny_tokenizer
from tulu_recipes.config.model_files import describe_weights
from tulu_recipes.errors import DataError, RecipeError
from tulu_recipes.trainers import ref_cache
from tulu_recipes.trainers.dpo import DPOTrainer

pytestmark = pytest.mark.integration

ROWS = 8  # in parts of 3, 3 and 2


class Killed(BaseException):
    """What ends a computation between two rows."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each part that is computed, in parts of three."""
    monkeypatch.setattr(ref_cache, "PART_ROWS", 3)
    found: list[int] = []
    original = DPOTrainer._ref_logps_of

    def count(self: DPOTrainer, model: Any, dataset: Dataset, batch_size: int) -> Any:
        values = original(self, model, dataset, batch_size)
        found.append(len(dataset))
        return values

    monkeypatch.setattr(DPOTrainer, "_ref_logps_of", count)
    return found


Build = Callable[..., dict[str, list[float]]]


@pytest.fixture
def build(tmp_path: Path, models: Path, computed: list[int]) -> Build:
    """Make the trainer of a run, which computes or reads the cache; returns the columns it trains on."""

    def run(name: str = "run", base: str = "base", dtype: str = "float32", **keys: Any) -> dict[str, list[float]]:
        rows, tokenizer = keys.pop("rows", pair_rows(ROWS)), keys.pop("tokenizer", None)
        settings = {"loss_type": ["sigmoid_norm"], "precompute_ref_log_probs": True}
        settings |= {"ref_log_probs_cache": str(tmp_path / "cache")}
        args = pair_config("dpo", tmp_path / name, **settings | keys)
        model = AutoModelForCausalLM.from_pretrained(models / base, dtype=dtype)
        trainer: Any = pair_trainer("dpo", model, args, rows, tokenizer=tokenizer)
        return {side: trainer.train_dataset[f"ref_{side}_logps"] for side in ("chosen", "rejected")}

    return run


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "train").iterdir())


def test_the_cache_holds_what_the_reference_says_one_conversation_at_a_time(
    tmp_path: Path, models: Path, build: Build, computed: list[int]
) -> None:
    found = build()
    reference = AutoModelForCausalLM.from_pretrained(models / "base", dtype="float32")
    with torch.no_grad():
        for side, values in found.items():
            want = [
                float(pair_oracle.token_logps(reference, row[f"{side}_ids"], row[f"{side}_mask"]).sum())
                for row in pair_rows(ROWS).to_list()
            ]
            assert values == pytest.approx(want, rel=1e-6)
    assert computed == [3, 3, 2]
    parts = ["rows-00000000-00000003", "rows-00000003-00000006", "rows-00000006-00000008"]
    assert files(tmp_path) == ["reference.json", *(f"{part}.safetensors" for part in parts)]


def test_a_second_run_shares_the_folder_and_computes_nothing(build: Build, computed: list[int]) -> None:
    first = build("first")
    assert build("second") == first
    assert computed == [3, 3, 2]


def test_a_computation_that_was_killed_goes_on_with_its_next_part(
    tmp_path: Path, build: Build, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(ref_log_probs_cache=str(tmp_path / "elsewhere"))
    computed.clear()
    forward = DPOTrainer.compute_ref_log_probs
    batches = iter(range(100))

    def die_in_the_second_part(self: DPOTrainer, *args: Any) -> Any:
        if next(batches) == 1:
            raise Killed
        return forward(self, *args)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", die_in_the_second_part)
    with pytest.raises(Killed):
        build()
    assert computed == [3]
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", forward)
    assert build() == whole
    assert computed == [3, 3, 2]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-3] + b"\0\0\0"])
def test_a_part_that_is_cut_or_changed_is_computed_again_and_said(
    tmp_path: Path,
    build: Build,
    computed: list[int],
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes], bytes],
) -> None:
    whole = build()
    computed.clear()
    part = tmp_path / "cache" / "train" / "rows-00000006-00000008.safetensors"
    part.write_bytes(damage(part.read_bytes()))
    capsys.readouterr()
    assert build() == whole
    assert computed == [2]
    assert "1 damaged file(s) of reference log-probs are computed again" in capsys.readouterr().err


def other_template() -> dict[str, Any]:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{# another #}" + str(tokenizer.chat_template)
    return {"tokenizer": tokenizer}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"masking": "last_turn"}, "masking (all_assistant_turns → last_turn)."),
        ({"mask_termination_tokens": True}, "mask_termination_tokens (False → True)."),
        ({"base": "reference"}, "the model's weights or revision."),
        ({"dtype": "bfloat16"}, "the dtype."),
        ({"rows": "other"}, "the rows or their tokens."),
        ({"tokenizer": "other"}, "the chat template."),
    ],
    ids=["masking", "eos", "model", "dtype", "rows", "template"],
)
def test_a_cache_of_something_else_is_refused_and_says_of_what(
    build: Build, computed: list[int], other: dict[str, Any], named: str
) -> None:
    build()
    other = {"rows": {"rows": pair_rows(7)}, "tokenizer": other_template()}.get(next(iter(other)), other)
    with pytest.raises(DataError) as caught:
        build("other", **other)
    [problem] = caught.value.problems
    assert problem.slug == "ref-cache-other"
    assert problem.what.endswith(f"were computed for something else: {named}")
    assert computed == [3, 3, 2]


@pytest.mark.parametrize("text", ['{"rows": "a', "[1, 2]", "", None], ids=["cut", "a list", "empty", "gone"])
def test_a_cache_without_a_readable_mark_is_refused_in_words(tmp_path: Path, build: Build, text: str | None) -> None:
    build()
    mark = tmp_path / "cache" / "train" / "reference.json"
    if text is None:
        mark.unlink()
    else:
        mark.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        build("other")
    [problem] = caught.value.problems
    assert problem.slug == "ref-cache-other"
    assert problem.what.startswith("reference.json is ")
    assert "remove this folder" in problem.mend


def test_weights_that_no_file_holds_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights in another format")
    assert describe_weights(str(tmp_path), None) is None
    assert describe_weights("org/name", "0123abc") == "0123abc"


def test_a_cache_by_an_adapters_base_is_refused_under_fsdp(tmp_path: Path, models: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models / "base", dtype="float32")
    trainer: Any = pair_trainer(
        "dpo", model, pair_config("dpo", tmp_path), pair_rows(ROWS), peft_config=LoraConfig(task_type="CAUSAL_LM")
    )
    assert trainer.ref_model is None
    assert trainer._precompute_model() is trainer.model
    trainer.is_fsdp_enabled = True  # by a launch of two processes: rank 1 has no weights yet, and no error comes
    with pytest.raises(RecipeError) as caught:
        trainer._precompute_model()
    assert [problem.slug for problem in caught.value.problems] == ["ref-cache-fsdp-adapter"]
