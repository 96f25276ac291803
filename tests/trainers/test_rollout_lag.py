"""rollout_lag: the next rollout is generated while this one is trained on, exactly one behind, and resumes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import save_base
from tests.trainers.vllm_stand_in import NEEDS_TRL_CLIENT, StandIn, checksum, even_tokens, logged, trainer

pytestmark = [pytest.mark.integration, NEEDS_TRL_CLIENT]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def server(base: Path) -> Iterator[StandIn]:
    stand_in = StandIn(base)
    yield stand_in
    stand_in.die()


def test_each_rollout_is_sampled_with_the_weights_of_one_rollout_before(
    base: Path, server: StandIn, tmp_path: Path
) -> None:
    server.delay = 0.2  # it samples after it: weights sent meanwhile would show
    run = trainer(base, server, tmp_path)
    seen: list[tuple[list[list[int]], int, dict[str, torch.Tensor]]] = []
    collect = run._generate_and_score_completions

    def collected(inputs: Any) -> Any:
        rollout = collect(inputs)
        prompts = [
            ids[mask.bool()].tolist() for ids, mask in zip(rollout["prompt_ids"], rollout["prompt_mask"], strict=True)
        ]
        seen.append((prompts, checksum(run.model), rollout))
        return rollout

    run._generate_and_score_completions = collected
    run.train()
    assert len(seen) == 4
    weights = [at_collection for _, at_collection, _ in seen]
    assert len(set(weights)) == 4  # the policy moved with every rollout
    asked = [event for event in server.events if event[0] == "rollout"]
    assert [event[1] for event in asked] == [prompts for prompts, _, _ in seen]  # none dropped, none too much
    assert [event[2] for event in asked] == [weights[0], weights[0], weights[1], weights[2]]
    # the sampler's own log-probs are corrected towards those of the policy that learns, token by token, truncated
    first, *later = [rollout for _, _, rollout in seen]
    gaps = [gap(rollout) for rollout in (first, *later)]
    assert gaps[0].abs().max() < 1e-5
    assert all(one.abs().max() > 1e-3 for one in gaps[1:])
    for rollout, one in zip(later, gaps[1:], strict=True):
        kept = rollout["completion_mask"].bool()
        expected = [min(torch.e**difference, 1.05) for difference in one[kept].tolist()]
        assert rollout["importance_sampling_ratio"][kept].tolist() == pytest.approx(expected, rel=1e-5)
    assert max(float(rollout["importance_sampling_ratio"].max()) for rollout in later) == pytest.approx(1.05)


def gap(rollout: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-prob of each token by the policy that learns, less that by the sampler."""
    return (rollout["old_per_token_logps"] - rollout["sampling_per_token_logps"]) * rollout["completion_mask"]


def test_generation_is_hidden_behind_training(base: Path, server: StandIn, tmp_path: Path) -> None:
    server.delay = 0.25

    def slow(**columns: Any) -> list[float]:
        time.sleep(0.5)
        return even_tokens(**columns)

    lagged = trainer(base, server, tmp_path / "lagged", slow, max_steps=6)
    lagged.train()
    waits, times = logged(lagged, "rollout/wait_seconds"), logged(lagged, "rollout/generate_seconds")
    assert min(times) > 0.25
    assert waits[0] > 0.25  # nothing can hide the first
    assert max(waits[1:]) < 0.1
    assert logged(lagged, "rollout/overlap")[0] == 0.0
    assert min(logged(lagged, "rollout/overlap")[1:]) > 0.8
    plain = trainer(base, server, tmp_path / "plain", slow, max_steps=4, rollout_lag=0)
    plain.train()
    assert min(logged(plain, "rollout/wait_seconds")) > 0.25
    assert logged(plain, "rollout/overlap") == [0.0, 0.0]


@pytest.mark.parametrize("at", [3, 4])  # in the midst of a rollout, and where the next is about to be collected
def test_a_resumed_run_uses_the_rollout_that_was_under_way(
    base: Path, server: StandIn, tmp_path: Path, at: int
) -> None:
    whole = trainer(base, server, tmp_path, save_strategy="steps", save_steps=at, save_total_limit=None)
    whole.train()
    server.events.clear()
    resumed = trainer(base, server, tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
    assert checksum(resumed.model) == checksum(whole.model)
    assert checksum(resumed.critic.model) == checksum(whole.critic.model)
    assert logged(resumed, "loss") == logged(whole, "loss")
    rollouts = sum(event[0] == "rollout" for event in server.events)
    assert rollouts == 1  # of the four, two were there before the checkpoint and one came with it


def test_evaluation_between_leaves_the_rollout_under_way_alone(base: Path, server: StandIn, tmp_path: Path) -> None:
    plain = trainer(base, server, tmp_path / "plain")
    plain.train()
    evaluated = trainer(base, server, tmp_path / "evaluated", per_device_eval_batch_size=4)
    evaluated.eval_dataset = evaluated.train_dataset.select(range(4))
    evaluated.args.eval_strategy, evaluated.args.eval_steps = "steps", 3
    from transformers import TrainerCallback

    class Evaluate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate = state.global_step == 3

    evaluated.add_callback(Evaluate())
    evaluated.train()
    assert len(logged(evaluated, "eval_reward")) == 1
    assert checksum(evaluated.model) == checksum(plain.model)
