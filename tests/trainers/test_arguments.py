"""From a recipe to training arguments, on a machine without a GPU."""

from pathlib import Path

import pytest
import torch

from tests.stage import write_recipe
from tulu_recipes.config.load import load_recipe
from tulu_recipes.errors import RecipeError
from tulu_recipes.trainers.arguments import sft_arguments

pytestmark = pytest.mark.integration


@pytest.mark.skipif(torch.accelerator.is_available(), reason="Liger runs where there is a GPU")
def test_liger_on_the_cpu_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel")  # else the recipe is refused already, for the missing package
    recipe = load_recipe([str(write_recipe(tmp_path, use_liger_kernel=True))], stage="sft")
    with pytest.raises(RecipeError) as caught:
        sft_arguments(recipe)
    [problem] = caught.value.problems
    assert problem.slug == "liger-without-gpu"
    assert problem.where.endswith("recipe.yaml line 15")
    assert "this run is on the CPU" in problem.what
    assert "use_liger_kernel: false" in problem.mend
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a machine with a GPU trains on it")
def test_without_a_gpu_training_is_told_to_use_the_cpu_as_several_ranks_and_bf16_need_it(tmp_path: Path) -> None:
    recipe = load_recipe([str(write_recipe(tmp_path)), "--bf16", "true"], stage="sft")
    assert sft_arguments(recipe).use_cpu
