"""Alarms of preference tuning: chosen answers that collapse, and an accuracy that stays at chance."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tulu_recipes.trainers.alarms import Line

COLLAPSE, CHANCE = "chosen-collapse", "accuracy-at-chance"


@dataclass(frozen=True)
class AlarmRules:
    """window: logged steps. chosen_drop: nats per token. accuracy: share of pairs, 0-1."""

    window: int
    chosen_drop: float
    accuracy: float


class AlarmWindows:
    """Of DPO and SimPO; see `alarms.Windows`."""

    def __init__(self, rules: AlarmRules) -> None:
        self.rules, self.size = rules, rules.window
        self.first: list[Line] = []
        self.last: deque[Line] = deque(maxlen=rules.window)
        self.moved: deque[Line] = deque(maxlen=rules.window)

    def takes(self, line: Mapping[str, Any]) -> bool:
        return "loss" in line and "rewards/accuracies" in line

    def add(self, line: Line, warmup_steps: int) -> None:
        if len(self.first) < self.rules.window:
            self.first.append(line)
        self.last.append(line)
        # Warm-up has hardly moved the model: such an accuracy says nothing
        if line["step"] > warmup_steps:
            self.moved.append(line)

    @property
    def has_reference(self) -> bool:
        return bool(self.last) and "kl/chosen" in self.last[-1]

    def found(self) -> dict[str, float]:
        values, rules = {}, self.rules
        if len(self.last) == rules.window:
            change = self._chosen_change()
            if change < -rules.chosen_drop:
                values[COLLAPSE] = change
        if len(self.moved) == rules.window:
            accuracy = _mean(self.moved, "rewards/accuracies")
            if accuracy < rules.accuracy:
                values[CHANCE] = accuracy
        return values

    def _chosen_change(self) -> float:
        """Nats per token that chosen answers gained: on the reference, or without one (SimPO) on the first window."""
        if self.has_reference:
            return _mean(self.last, "kl/chosen")
        return _mean(self.last, "logps_per_token/chosen") - _mean(self.first, "logps_per_token/chosen")

    def explain(self, name: str, value: float) -> str:
        window = f"Over the last {self.size} logged steps"
        if name == COLLAPSE:
            compared = "under the reference model" if self.has_reference else "at the start"
            return (
                f"{window} chosen answers were {-value:.2f} nats per token less likely than {compared} "
                f"(limit {self.rules.chosen_drop:g}): the model unlearns the answers it should prefer, only more "
                "slowly than the rejected ones. Usual causes: a learning rate that is too high, a beta that is too "
                "small, or pairs that are mislabelled or hardly differ."
            )
        return (
            f"{window} {value:.0%} of the pairs were ranked rightly (limit {self.rules.accuracy:.0%}), about as by a "
            "coin: the model does not learn what is preferred. Usual causes: a learning rate that is too low or lost "
            "in bfloat16 weights, chosen and rejected swapped or nearly identical in many pairs, or a masking that "
            "compares other turns than those that differ."
        )


def _mean(lines: Iterable[Line], name: str) -> float:
    values = [line[name] for line in lines]
    return sum(values) / len(values)
