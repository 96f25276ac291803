"""A vLLM server that dies in the midst of a run: waited for and given the weights anew, or the run stops in order."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import save_base
from tests.trainers.vllm_stand_in import NEEDS_TRL_CLIENT, StandIn, checksum, trainer
from tulu_recipes.errors import RecipeError, TrainingError

pytestmark = [pytest.mark.integration, NEEDS_TRL_CLIENT]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def server(base: Path) -> Iterator[StandIn]:
    stand_in = StandIn(base)
    yield stand_in
    stand_in.die()


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Weights after the same run over a server that lives."""
    stand_in = StandIn(base)
    run = trainer(base, stand_in, tmp_path_factory.mktemp("whole"), rollout_lag=0)
    run.train()
    stand_in.die()
    return checksum(run.model)


def test_a_server_that_comes_back_gets_the_weights_and_is_asked_again(
    base: Path, server: StandIn, whole: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.dies_at, server.comes_back_after = 2, 0.6
    with caplog.at_level(logging.WARNING, "tulu_recipes.trainers.vllm_server"):
        run = trainer(base, server, tmp_path, rollout_lag=0, vllm_server_timeout=30.0)
        run.train()
    assert server.starts == 2
    # it started with the weights of the base again; had they not been sent, the rollout would be another
    assert checksum(run.model) == whole
    lost, restarted = [one.getMessage() for one in caplog.records if one.name == "tulu_recipes.trainers.vllm_server"]
    assert f"{server.url} is lost" in lost
    assert "up to 30 s" in lost
    assert "restarted; it gets the weights anew" in restarted


def test_a_rollout_under_way_that_is_lost_is_asked_for_again(base: Path, server: StandIn, tmp_path: Path) -> None:
    server.dies_at, server.comes_back_after = 2, 0.6
    run = trainer(base, server, tmp_path, vllm_server_timeout=30.0)
    run.train()
    asked = [event for event in server.events if event[0] == "rollout"]
    sent = [event[1] for event in server.events if event[0] == "weights"]
    assert run.state.global_step == 8
    assert len(asked) == 4
    # asked again with the weights of the moment; the one after it is one behind as before
    assert [event[2] for event in asked] == [sent[0], sent[0], sent[2], sent[2]]


def test_a_server_that_stays_away_stops_the_run_which_goes_on_from_its_checkpoint(
    base: Path, server: StandIn, whole: int, tmp_path: Path
) -> None:
    server.dies_at = 2
    with pytest.raises(TrainingError) as stopped:
        trainer(base, server, tmp_path, rollout_lag=0, vllm_server_timeout=1.0).train()
    assert stopped.value.slugs == ["vllm-server-lost"]
    assert "vllm_server_timeout" in str(stopped.value)
    assert str(tmp_path / "checkpoint-4") in str(stopped.value)
    server.start()
    resumed = trainer(base, server, tmp_path, rollout_lag=0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert checksum(resumed.model) == whole


def test_a_lag_without_a_server_is_refused(tmp_path: Path) -> None:
    from tulu_recipes.trainers.ppo import PPOConfig

    for keys in ({}, {"use_vllm": True, "vllm_mode": "colocate"}):
        with pytest.raises(RecipeError, match="vllm_mode: server") as refused:
            PPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, rollout_lag=1, **keys)
        assert refused.value.slugs == ["rollout-lag"]
    with pytest.raises(RecipeError, match="use 0 or 1") as refused:
        PPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, rollout_lag=2)
    assert refused.value.slugs == ["out-of-range"]
