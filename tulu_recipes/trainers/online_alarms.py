"""Alarms of reinforcement learning: rewards that teach nothing, answers that are cut, and drifts."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tulu_recipes.trainers.alarms import Line

EQUAL, CUT, UNGRADED, LENGTH = "rewards-equal", "completions-cut", "verifier-errors-rise", "length-drift"
ENTROPY_LOW, ENTROPY_HIGH, KL, VALUES = "entropy-low", "entropy-high", "kl-high", "values-explain-little"


@dataclass(frozen=True)
class OnlineRules:
    """None switches an alarm off.

    window: logged steps. truncation, verifier_errors: shares of completions, 0-1. length_drift: factor, above 1.
    entropy_low, entropy_high: nats per token. kl: nats per completion. explained_variance: at most 1.
    """

    window: int
    truncation: float | None
    verifier_errors: float | None
    length_drift: float | None
    entropy_low: float | None
    entropy_high: float | None
    kl: float | None
    explained_variance: float | None


# What each alarm reads of a line.
_READS = {
    CUT: "completions/clipped_ratio",
    UNGRADED: "verifier/error_rate",
    LENGTH: "completions/mean_length",
    ENTROPY_LOW: "entropy",
    ENTROPY_HIGH: "entropy",
    KL: "kl_per_completion",
    VALUES: "values/explained_variance",
}


class OnlineWindows:
    """Of PPO, GRPO and RLOO; see `alarms.Windows`. Steps between rollouts count as the rollout before them."""

    def __init__(self, rules: OnlineRules) -> None:
        self.rules, self.size = rules, rules.window
        self.line: dict[str, float] = {}
        self.first: list[Line] = []
        self.last: deque[Line] = deque(maxlen=rules.window)

    def takes(self, line: Mapping[str, Any]) -> bool:
        return "loss" in line and "entropy" in line

    def add(self, line: Line, warmup_steps: int) -> None:
        self.line = {**self.line, **line}
        if len(self.first) < self.size:
            self.first.append(self.line)
        self.last.append(self.line)

    def found(self) -> dict[str, float]:
        if len(self.last) < self.size:
            return {}
        return dict(self._found())

    def _found(self) -> Iterator[tuple[str, float]]:
        rules = self.rules
        if all(_teaches_nothing(line) for line in self.last):
            yield EQUAL, self.last[-1]["reward"]
        for name, limit, side in (
            (CUT, rules.truncation, 1),
            (UNGRADED, rules.verifier_errors, 1),
            (KL, rules.kl, 1),
            (ENTROPY_HIGH, rules.entropy_high, 1),
            (ENTROPY_LOW, rules.entropy_low, -1),
            (VALUES, rules.explained_variance, -1),
        ):
            value = self._mean(name)
            if limit is not None and side * (value - limit) > 0:
                yield name, value
        drift = self._mean(LENGTH) / max(self._mean(LENGTH, self.first), 1e-9)
        if rules.length_drift is not None and not 1 / rules.length_drift <= drift <= rules.length_drift:
            yield LENGTH, drift

    def _mean(self, name: str, lines: Any = None) -> float:
        """Over a window; NaN, which is above and below nothing, where no line has it."""
        values = [line[_READS[name]] for line in (lines or self.last) if line.get(_READS[name]) is not None]
        return sum(values) / len(values) if values else math.nan

    def explain(self, name: str, value: float) -> str:
        rules = self.rules
        window = f"Over the last {self.size} logged steps"
        return {
            EQUAL: f"{window} all completions that are compared got the same reward (last {value:.2f}): there is "
            "nothing to learn from. Usual causes: prompts far too hard or too easy, labels that no answer can match, "
            "answers that are all cut before they end, a verifier that does not fit the prompts.",
            CUT: f"{window} {value:.0%} of the completions were cut at max_completion_length (limit "
            f"{rules.truncation or 0:.0%}). Usual causes: too short a limit, or a model that has unlearned to stop.",
            UNGRADED: f"{window} {value:.1%} of the completions could not be graded (limit "
            f"{rules.verifier_errors or 0:.1%}): they move nothing. Usual causes: labels that cannot be read, or "
            "completions on which a verifier runs out of time.",
            LENGTH: f"{window} completions were {value:.2f} times as long as at the start (limit "
            f"{rules.length_drift or 0:g} times, or as much shorter). Usual causes: a reward that length games, "
            "or a beta that is too small.",
            ENTROPY_LOW: f"{window} entropy was {value:.3f} nats per token (limit {rules.entropy_low or 0:g}): the "
            "model hardly explores any more. Usual causes: too many steps on few prompts, a high learning rate.",
            ENTROPY_HIGH: f"{window} entropy was {value:.3f} nats per token (limit {rules.entropy_high or 0:g}): the "
            "model falls apart. Usual causes: a high learning rate, a sampler that is not the model trained.",
            KL: f"{window} KL was {value:.2f} nats per completion (limit {rules.kl or 0:g}): the model leaves the one "
            "it started from. Usual causes: a beta that is too small, a high learning rate.",
            VALUES: f"{window} values explained {value:.2f} of the returns' variance (limit "
            f"{rules.explained_variance or 0:g}): advantages are noise. Usual causes: value_learning_rate or "
            "cliprange_value too small for the scale of the rewards, or a value model of another tokenizer.",
        }[name]


def _teaches_nothing(line: Line) -> bool:
    """All rewards of a rollout are equal, or in every group, where a group is the baseline (NaN: none was scored)."""
    spread = line.get("reward_std")
    return line.get("frac_reward_zero_std") == 1.0 or (spread is not None and not spread > 1e-8)
