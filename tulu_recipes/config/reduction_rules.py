"""What may not be combined with a loss reduction; asked of recipes and of `trainers.SFTConfig` alike."""

from collections.abc import Callable, Iterator
from typing import Any

from tulu_recipes.errors import Problem

Value = Callable[[str], Any]  # key -> its value
Where = Callable[[str], str]  # key -> where it was written
Rule = Callable[[Value, Where], Iterator[Problem]]


def token_average(value: Value, where: Where) -> Iterator[Problem]:
    if value("average_tokens_across_devices"):
        return
    yield Problem(
        "token-average",
        where("average_tokens_across_devices"),
        f"average_tokens_across_devices: false with loss_reduction: {value('loss_reduction')}: each process would "
        "divide by its own tokens, and the gradient would depend on the number of processes.",
        "remove average_tokens_across_devices.",
    )


def label_smoothing(value: Value, where: Where) -> Iterator[Problem]:
    reduction, smoothing = value("loss_reduction"), value("label_smoothing_factor")
    if smoothing > 0 and reduction != "token_mean":
        yield Problem(
            "loss-label-smoothing",
            where("label_smoothing_factor"),
            f"label_smoothing_factor: {smoothing} with loss_reduction: {reduction}: the smoothed loss of "
            "transformers is a token mean, so the reduction would be ignored.",
            "remove label_smoothing_factor, or write  loss_reduction: token_mean",
        )


def loss_type(value: Value, where: Where) -> Iterator[Problem]:
    reduction = value("loss_reduction")
    if value("loss_type") == "dft" and reduction in ("sequence_mean", "microbatch_mean"):
        yield Problem(
            "loss-type",
            where("loss_type"),
            f"loss_type: dft with loss_reduction: {reduction}: dft weighs each token by its probability already.",
            "write  loss_type: nll,  or  loss_reduction: token_mean",
        )


REDUCTION_RULES: tuple[Rule, ...] = (token_average, label_smoothing, loss_type)
