"""SFTConfig, used from Python without any recipe, refuses what would train something else."""

from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.errors import RecipeError
from tulu_recipes.trainers.sft import SFTConfig

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("values", "slug", "words"),
    [
        ({"loss_reduction": "mean"}, "unknown-choice", "'mean' is no reduction"),
        (
            {"loss_reduction": "sum", "average_tokens_across_devices": False},
            "token-average",
            "the gradient would depend on the number of processes",
        ),
        (
            {"loss_reduction": "sum", "label_smoothing_factor": 0.1},
            "loss-label-smoothing",
            "remove label_smoothing_factor",
        ),
        (
            {"loss_reduction": "sequence_mean", "loss_type": "dft"},
            "loss-type",
            "dft weighs each token by its probability already",
        ),
    ],
)
def test_a_reduction_that_trl_would_not_follow_is_refused(
    tmp_path: Path, values: dict[str, Any], slug: str, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        SFTConfig(str(tmp_path), report_to=[], bf16=False, **values)
    assert caught.value.slugs == [slug]
    assert words in str(caught.value)


def test_trl_s_own_reduction_keeps_trl_s_freedom(tmp_path: Path) -> None:
    args = SFTConfig(str(tmp_path), report_to=[], bf16=False, label_smoothing_factor=0.1)
    assert args.loss_reduction == "token_mean"
