"""Scores from what was found where: covered tokens per unit, the mean per item."""

import numpy as np
import numpy.typing as npt

from tulu_recipes.data.contamination.tokens import Ints

Floats = npt.NDArray[np.float64]


def expand(counts: Ints) -> tuple[Ints, Ints]:
    """(group, place): the numbers 0 … count - 1 of each group, one group after the other."""
    group = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    place = np.arange(len(group)) - (ends - counts)[group]
    return group, place


def item_scores(unit: Ints, start: Ints, length: Ints, unit_length: Ints, unit_item: Ints, num_items: int) -> Floats:
    """Mean over an item's units of the fraction of tokens that lie in some found run.

    Args:
        unit, start, length: of the runs that were found, by unit and then by start; tokens under two runs count once.
        unit_length, unit_item: of all units, by item.
    Returns: (num_items,)
    """
    reach = length.copy()
    follows = unit[1:] == unit[:-1]
    reach[:-1][follows] = np.minimum(length[:-1], start[1:] - start[:-1])[follows]
    covered = np.bincount(unit, weights=reach, minlength=len(unit_length))
    total = np.bincount(unit_item, weights=covered / unit_length, minlength=num_items)
    scores: Floats = total / np.maximum(np.bincount(unit_item, minlength=num_items), 1)
    return scores


def exceeds(score: Floats, threshold: float) -> npt.NDArray[np.bool_]:
    """Strictly above; a sum of fractions that is equal but for rounding is not."""
    above: npt.NDArray[np.bool_] = score > threshold + 1e-12
    return above
