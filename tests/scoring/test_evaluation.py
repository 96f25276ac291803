"""The held-out evaluation of a reward model against numbers computed by hand."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from tulu_recipes.reports.reward_report import bucket_name, reward_section
from tulu_recipes.scoring.evaluation import evaluate_scores

LOG3 = math.log(3)  # a difference of scores whose σ is 0.75
EVALUATION = evaluate_scores(
    chosen=[LOG3, LOG3, 0.0, 1.0, 5.0],
    rejected=[0.0, 0.0, LOG3, 1.0, 0.0],
    longer=[-20, 3, 3, 0, 300],
    sources=["a", "a", "b", "b", "b"],
)


def test_accuracy_margin_and_loss_are_means_over_pairs() -> None:
    found = EVALUATION
    assert found["pairs"] == 5
    assert found["accuracy"] == 3 / 5  # a tie is not right
    assert found["ties"] == 1
    assert found["margin"] == pytest.approx((LOG3 + 5) / 5)
    # −log σ: of ln 3: ln 4/3, of −ln 3: ln 4, of 0: ln 2, of 5: 0.006715
    assert found["loss"] == pytest.approx((2 * math.log(4 / 3) + math.log(4) + math.log(2) + 0.0067153) / 5, rel=1e-5)
    assert found["sources"] == {
        "a": {"pairs": 2, "accuracy": 1.0, "margin": pytest.approx(LOG3)},
        "b": {"pairs": 3, "accuracy": 1 / 3, "margin": pytest.approx((5 - LOG3) / 3)},
    }


def test_calibration_compares_what_is_predicted_with_what_is_observed() -> None:
    tie, confident, sure = EVALUATION["calibration"]["bins"]
    assert tie == {"from": 0.5, "to": 0.55, "pairs": 1, "predicted": 0.5, "observed": 0.5}
    assert (confident["from"], confident["pairs"]) == (0.75, 3)
    assert confident["predicted"] == pytest.approx(0.75)
    assert confident["observed"] == pytest.approx(2 / 3)
    assert (sure["to"], sure["pairs"], sure["observed"]) == (1.0, 1, 1.0)
    # 3 pairs are off by 1/12, one by 1 − σ(5)
    expected = (3 * (0.75 - 2 / 3) + 0.0066929) / 5
    assert EVALUATION["calibration"]["expected_calibration_error"] == pytest.approx(expected, rel=1e-4)


def test_length_bias_is_shown_by_sign_bucket_and_rank() -> None:
    length = EVALUATION["length"]
    assert (length["chosen_shorter"]["pairs"], length["chosen_shorter"]["accuracy"]) == (1, 1.0)
    assert (length["chosen_longer"]["pairs"], length["chosen_longer"]["accuracy"]) == (3, 2 / 3)
    assert length["always_longer"] == 0.7  # 3 longer ones and half of the equal one
    named = [(bucket_name(bucket), bucket["pairs"], bucket["accuracy"]) for bucket in length["buckets"]]
    assert named == [("−64 to −17", 1, 1.0), ("0", 1, 0.0), ("1 to 16", 2, 0.5), ("257 and more", 1, 1.0)]
    # ranks of the margins 3.5 3.5 1 2 5, of the lengths 1 3.5 3.5 2 5; less their mean, the products are −1 ¼ −1 1 4
    assert length["spearman"] == pytest.approx(3.25 / 9.5)


def test_scores_that_never_differ_have_no_correlation_with_length() -> None:
    assert evaluate_scores([1.0, 1.0], [0.0, 0.0], [3, 9], ["a", "a"])["length"]["spearman"] is None
    assert evaluate_scores([1.0], [0.0], [3], ["a"])["length"]["chosen_shorter"]["accuracy"] is None


def test_the_report_has_the_tables_and_the_plot(tmp_path: Path) -> None:
    assert reward_section(tmp_path) == []
    (tmp_path / "reward_evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    text = "\n".join(reward_section(tmp_path))
    assert "Accuracy **0.600** on 5 pairs · mean margin 1.220" in text
    assert "| a | 2 | 1.000 | 1.099 |" in text
    assert "| −64 to −17 | 1 | 1.000 | 1.099 |" in text
    assert "accuracy **1.000** (1 pairs) where the chosen answer is the shorter" in text
    assert "would be right in 0.700" in text
    with Image.open(tmp_path / "calibration.png") as image:
        assert image.width > 1000
    one_sided = evaluate_scores([1.0], [0.0], [3], ["a"])
    (tmp_path / "reward_evaluation.json").write_text(json.dumps(one_sided), encoding="utf-8")
    assert "accuracy – where the chosen answer is the shorter" in "\n".join(reward_section(tmp_path))
