"""Verdicts as rewards: a reward function as TRL's online trainers call it, over the columns of RLVR rows."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tulu_recipes.errors import Problem, TrainingError
from tulu_recipes.verifiers.judging import Question
from tulu_recipes.verifiers.pool import VerifierPool
from tulu_recipes.verifiers.registry import SEMANTICS
from tulu_recipes.verifiers.verdict import Verdict

KEPT = 20  # completions that are shown or kept of those that could not be graded
WINDOW = 1000  # completions over which errors are counted
FEW = 10  # fewer errors stop no run, whatever their share

Completion = str | list[dict[str, Any]]


class VerifiableReward:
    """`reward` for what its verifier calls correct, a share of it where the score is one, 0 for what is wrong.

    A verdict of error is no 0: the completion is not scored (None), which moves no policy. With
    semantics="as_released" it is 0, as in the release. Completions that do not end are the trainer's
    (`non_stop_reward`).

    Args:
        semantics: fixed | as_released, see `verifiers.verify`.
        reward: of a correct completion; Tülu 10.
        max_error_fraction: of the last `WINDOW` completions; more stop the run.
        pool: of killable processes; None: one of its own.
        samples_path: JSONL that takes the completions that could not be graded.
    Source: [OIr] ppo_vllm_thread_ray_gtrl.py, verify_reward=10.
    """

    __name__ = "verifiable"

    def __init__(
        self,
        semantics: str = "fixed",
        reward: float = 10.0,
        max_error_fraction: float = 0.05,
        pool: VerifierPool | None = None,
        samples_path: Path | None = None,
    ) -> None:
        if semantics not in SEMANTICS:
            raise ValueError(f"semantics is {semantics!r}, not one of {', '.join(SEMANTICS)}")
        self.semantics, self.reward, self.max_error_fraction = semantics, reward, max_error_fraction
        self.samples_path = samples_path
        self.pool = pool or VerifierPool()
        self._recent: list[bool] = []  # whether each of the last completions was an error

    def __call__(
        self,
        completions: Sequence[Completion],
        ground_truth: Sequence[Any],
        dataset: Sequence[str],
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward a completion. TRL gives `completions` as text or as messages, and every column of the rows.

        Raises:
            TrainingError: too many completions cannot be graded.
        """
        texts = [text_of(completion) for completion in completions]
        questions = [Question(*asked) for asked in zip(dataset, texts, ground_truth, strict=True)]
        verdicts = self.pool.verify_all(questions, self.semantics)
        if log_metric is not None:
            _log(verdicts, questions, log_metric)
        if log_extra is not None:
            log_extra("verdict", [verdict.outcome for verdict in verdicts])
        self._watch_errors(verdicts, questions)
        return [self._reward_of(verdict) for verdict in verdicts]

    def _reward_of(self, verdict: Verdict) -> float | None:
        if verdict.outcome == "error" and self.semantics == "fixed":
            return None
        return self.reward * verdict.score

    def _watch_errors(self, verdicts: Sequence[Verdict], questions: Sequence[Question]) -> None:
        failed = [(verdict, asked) for verdict, asked in zip(verdicts, questions, strict=True) if _is_error(verdict)]
        if failed and self.samples_path is not None:
            self._keep(failed[:KEPT])
        self._recent = [*self._recent, *map(_is_error, verdicts)][-WINDOW:]
        errors = sum(self._recent)
        if errors < FEW or errors <= self.max_error_fraction * len(self._recent):
            return
        reasons = Counter(f"{asked.name}: {verdict.reason}" for verdict, asked in failed)
        shown = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        kept = f" See {self.samples_path}." if self.samples_path else ""
        raise TrainingError(
            Problem(
                "verifier-errors",
                "reward verifiable",
                f"{errors} of the last {len(self._recent):,} completions could not be graded: {shown}.{kept}",
                "mend the labels or the verifier, or raise max_verifier_error_fraction "
                f"(now {self.max_error_fraction:g}).",
            )
        )

    def _keep(self, failed: Sequence[tuple[Verdict, Question]]) -> None:
        assert self.samples_path is not None
        self.samples_path.parent.mkdir(parents=True, exist_ok=True)
        with self.samples_path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            for verdict, asked in failed:
                file.write(json.dumps({"reason": verdict.reason, **asked._asdict()}, ensure_ascii=False) + "\n")


def text_of(completion: Completion) -> str:
    """What the model wrote, of TRL's text or messages."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


def _is_error(verdict: Verdict) -> bool:
    return verdict.outcome == "error"


def _log(verdicts: Sequence[Verdict], questions: Sequence[Question], log_metric: Callable[[str, float], None]) -> None:
    """Row by row, so that TRL's averages are over rows; errors count as not correct."""
    for verdict, asked in zip(verdicts, questions, strict=True):
        correct = float(verdict.outcome == "correct")
        log_metric("verifier/accuracy", correct)
        log_metric(f"verifier/accuracy/{str(asked.name).lower()}", correct)
        log_metric("verifier/error_rate", float(_is_error(verdict)))
