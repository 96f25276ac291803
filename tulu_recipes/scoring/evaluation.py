"""How far a reward model can be trusted on held-out pairs: how often it is right, how sure it should be, and whether
it prefers what is long.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.stats import spearmanr

from tulu_recipes.data.pairs import SIDES
from tulu_recipes.run import write_json
from tulu_recipes.sampling import outside_zero3
from tulu_recipes.scoring.model import load_reward_model, score_tokens

EVALUATION = "reward_evaluation.json"
CONFIDENCE_EDGES = np.linspace(0.5, 1.0, 11)
# First length difference (tokens) of each bucket but the lowest
LENGTH_EDGES = (-256, -64, -16, 0, 1, 17, 65, 257)


def write_reward_evaluation(folder: Path, pairs: Dataset, *, batch_size: int) -> dict[str, Any]:
    """Score held-out pairs with the model in `folder`, and keep what that says in reward_evaluation.json.

    Args:
        pairs: rows of `data.pairs.tokenize_pairs` that are kept.
    """
    with outside_zero3():
        model = load_reward_model(str(folder))
        scores = {side: score_tokens(model, pairs[f"{side}_ids"][:], batch_size=batch_size) for side in SIDES}
    columns = pairs.select_columns(["source", "chosen_tokens", "rejected_tokens"]).to_pandas()
    evaluation = evaluate_scores(
        scores["chosen"],
        scores["rejected"],
        (columns["chosen_tokens"] - columns["rejected_tokens"]).tolist(),
        columns["source"].tolist(),
    )
    write_json(folder / EVALUATION, evaluation)
    return evaluation


def evaluate_scores(
    chosen: Sequence[float], rejected: Sequence[float], longer: Sequence[int], sources: Sequence[str]
) -> dict[str, Any]:
    """What scores of preference pairs say about the model that gave them; as in reward_evaluation.json.

    Args:
        longer: tokens of the chosen answer less those of the rejected one.
        sources: of each pair.
    """
    frame = pd.DataFrame({"margin": np.subtract(chosen, rejected, dtype=float), "longer": longer, "source": sources})
    frame["right"] = frame["margin"] > 0
    return {
        **_counts(frame),
        "ties": int((frame["margin"] == 0).sum()),
        "loss": float(np.logaddexp(0, -frame["margin"]).mean()),
        "calibration": calibration(frame["margin"].to_numpy()),
        "sources": {str(name): _counts(group) for name, group in frame.groupby("source", sort=True)},
        "length": _length(frame),
    }


def _counts(frame: pd.DataFrame) -> dict[str, Any]:
    """accuracy: share of pairs whose chosen answer has the higher score. margin: mean of chosen − rejected."""
    if frame.empty:
        return {"pairs": 0, "accuracy": None, "margin": None}
    return {"pairs": len(frame), "accuracy": float(frame["right"].mean()), "margin": float(frame["margin"].mean())}


def calibration(margins: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Bins of what the model predicts and what is observed.

    Predicted, σ(|r_c − r_r|): how probable it is, by the model, that people prefer the answer with the higher score.
    Observed: the share of pairs in which they do; a tie counts half. `expected_calibration_error`: mean distance of
    the two, weighted by pairs (arXiv 1706.04599).
    """
    predicted = 1 / (1 + np.exp(-np.abs(margins)))
    observed = (margins > 0) + 0.5 * (margins == 0)
    place = np.clip(np.digitize(predicted, CONFIDENCE_EDGES) - 1, 0, len(CONFIDENCE_EDGES) - 2)
    bins = [
        {
            "from": round(float(low), 2),
            "to": round(float(high), 2),
            "pairs": int((place == number).sum()),
            "predicted": float(predicted[place == number].mean()),
            "observed": float(observed[place == number].mean()),
        }
        for number, (low, high) in enumerate(pairwise(CONFIDENCE_EDGES))
        if (place == number).any()
    ]
    error = sum(one["pairs"] * abs(one["predicted"] - one["observed"]) for one in bins) / len(margins)
    return {"bins": bins, "expected_calibration_error": error}


def _length(frame: pd.DataFrame) -> dict[str, Any]:
    """Whether length sways the scores.

    spearman: rank correlation of the difference of scores with that of lengths, None where either never varies.
    always_longer: the accuracy of preferring the longer answer without reading it; equal lengths count half.
    """
    longer = frame["longer"]
    place = np.digitize(longer, LENGTH_EDGES)
    edges = [None, *LENGTH_EDGES, None]
    constant = frame["margin"].nunique() < 2 or longer.nunique() < 2
    return {
        "chosen_shorter": _counts(frame[longer < 0]),
        "chosen_longer": _counts(frame[longer > 0]),
        "always_longer": float(((longer > 0) + 0.5 * (longer == 0)).mean()),
        "spearman": None if constant else float(spearmanr(frame["margin"], longer).statistic),
        "buckets": [
            {"from": edges[number], "below": edges[number + 1], **_counts(frame[place == number])}
            for number in range(len(LENGTH_EDGES) + 1)
            if (place == number).any()
        ],
    }
