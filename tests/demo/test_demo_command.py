"""What `python -m tulu_recipes.demo` does with run folders and figures; the whole demo is an e2e test."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tulu_recipes.demo import __main__ as demo
from tulu_recipes.errors import TrainingError

ROOT = Path(__file__).parents[2]


def make_run(folder: Path, status: str = "finished", before: float = 0.0, after: float = 0.8) -> Path:
    folder.mkdir(parents=True)
    samples = {"exact_match_before": before, "exact_match_after": after}
    (folder / "run.json").write_text(json.dumps({"status": status, "samples": samples}))
    return folder


def make_stage(folder: Path, **expected: Any) -> demo.Stage:
    """A stage of a recipe that writes into `folder`; the recipe lies beside it."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(f"output_dir: {folder}\n")
    return demo.Stage("tulu_recipes.dpo", recipe, **expected)


def test_a_run_is_set_aside_under_the_next_free_number(tmp_path: Path) -> None:
    assert demo.set_aside(make_run(tmp_path / "tiny-sft")) == tmp_path / "tiny-sft.1"
    assert demo.set_aside(make_run(tmp_path / "tiny-sft")) == tmp_path / "tiny-sft.2"
    assert demo.set_aside(tmp_path / "tiny-sft") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-sft.1", "tiny-sft.2"]


def test_a_demo_begins_anew_once_all_its_stages_are_finished_or_when_it_is_asked_to(tmp_path: Path) -> None:
    first, second = make_stage(tmp_path / "sft"), make_stage(tmp_path / "dpo")
    mixing = demo.Mixing(Path("data_mixes/tiny/sft.yaml"))
    make_run(tmp_path / "sft")
    assert not demo.begins_anew([mixing, first, second], fresh=False), "the second one has not begun"
    make_run(tmp_path / "dpo", status="running")
    assert not demo.begins_anew([mixing, first, second], fresh=False), "the second one is to be resumed"
    assert demo.begins_anew([mixing, first, second], fresh=True)
    shutil.rmtree(tmp_path / "dpo")
    make_run(tmp_path / "dpo")
    assert demo.begins_anew([mixing, first, second], fresh=False)


def test_learning_is_told_with_both_figures(tmp_path: Path) -> None:
    stage = demo.Stage("tulu_recipes.sft", Path("x.yaml"), min_exact_match=0.5)
    assert demo.check_learned(stage, make_run(tmp_path / "run")) == "held-out exact match 0.00 -> 0.80"


def test_exact_match_below_the_stated_threshold_is_a_failure(tmp_path: Path) -> None:
    stage = demo.Stage("tulu_recipes.sft", Path("x.yaml"), min_exact_match=0.5)
    with pytest.raises(TrainingError) as caught:
        demo.check_learned(stage, make_run(tmp_path / "run", after=0.49))
    assert caught.value.slugs == ["demo-did-not-learn"]
    assert "0.00 -> 0.49, where at least 0.50 is expected" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "key"),
    [("tulu_recipes.reward", "eval_accuracy"), ("tulu_recipes.dpo", "eval_rewards/accuracies")],
)
def test_pairs_must_be_ranked_rightly(tmp_path: Path, module: str, key: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"final_metrics": {key: 0.9375, "eval_loss": 0.1}}))
    sentence = demo.check_learned(demo.Stage(module, Path("x.yaml"), min_pair_accuracy=0.9), tmp_path)
    assert sentence == "held-out pairs ranked rightly 0.94 (chance 0.50)"
    with pytest.raises(TrainingError) as caught:
        demo.check_learned(demo.Stage(module, Path("x.yaml"), min_pair_accuracy=0.95), tmp_path)
    assert "0.94 (chance 0.50), where at least 0.95 is expected" in str(caught.value)


def test_of_several_figures_the_one_that_misses_is_named(tmp_path: Path) -> None:
    run = {"samples": {"exact_match_before": 0.2, "exact_match_after": 0.9}, "final_metrics": {"eval_accuracy": 0.6}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    stage = demo.Stage("tulu_recipes.reward", Path("x.yaml"), min_exact_match=0.7, min_pair_accuracy=0.8)
    with pytest.raises(TrainingError) as caught:
        demo.check_learned(stage, tmp_path)
    assert "held-out pairs ranked rightly 0.60" in str(caught.value)
    assert "exact match" not in str(caught.value)


def test_answers_verified_must_rise_by_the_stated_share(tmp_path: Path) -> None:
    run = {"samples": {"verified_before": 0.4, "verified_after": 0.625}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    sentence = demo.check_learned(demo.Stage("m", Path("x.yaml"), min_verified_gain=0.2), tmp_path)
    assert sentence == "held-out answers verified 0.40 -> 0.62"
    with pytest.raises(TrainingError) as caught:
        demo.check_learned(demo.Stage("m", Path("x.yaml"), min_verified_gain=0.3), tmp_path)
    assert "a rise of at least 0.30 is expected" in str(caught.value)


def test_held_out_loss_must_fall_by_the_stated_amount(tmp_path: Path) -> None:
    rows = [{"step": 0, "eval_loss": 3.0}, {"step": 1, "loss": 9.0}, {"step": 2, "eval_loss": 2.75}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sentence = demo.check_learned(demo.Stage("m", Path("x.yaml"), min_loss_drop=0.2), tmp_path)
    assert sentence == "held-out loss 3.000 -> 2.750 nats per supervised token"
    with pytest.raises(TrainingError) as caught:
        demo.check_learned(demo.Stage("m", Path("x.yaml"), min_loss_drop=0.3), tmp_path)
    assert "a fall of at least 0.3 is expected" in str(caught.value)


def test_a_stage_that_fails_ends_the_demo_with_its_command_and_exit_code(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(f"output_dir: {tmp_path / 'run'}\n")
    with pytest.raises(TrainingError) as caught:
        demo.run_stage(demo.Stage("json.tool", recipe, min_exact_match=0.5))
    assert caught.value.slugs == ["demo-stage-failed"]
    assert "json.tool" in str(caught.value)
    assert "exit code 1" in str(caught.value)


def test_the_tiny_demo_trains_each_stage_on_the_mix_and_from_the_model_before_it() -> None:
    built: set[str] = set()
    trained: list[str] = []
    started: list[str] = []
    for step in demo.TINY:
        if isinstance(step, demo.Mixing):
            assert step.command[1:] == ["-m", "tulu_recipes.mix", str(step.file)]
            built.add(str(step.file))
            continue
        recipe = yaml.safe_load((ROOT / step.file).read_text(encoding="utf-8"))
        assert recipe["dataset_mix"] in built
        started.append(recipe["model_name_or_path"])
        trained.append(recipe["output_dir"])
    assert trained == ["runs/tiny-sft", "runs/tiny-reward", "runs/tiny-dpo", "runs/tiny-rlvr"]
    assert started == ["runs/tiny-base", "runs/tiny-sft", "runs/tiny-sft", "runs/tiny-dpo"]
    assert recipe["value_model_name_or_path"] == "runs/tiny-reward"


def test_a_mix_is_told_with_its_rows_card_and_histogram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "data_mixes" / "tiny", tmp_path / "data_mixes" / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = demo.run_mixing(demo.Mixing(Path("data_mixes/tiny/rlvr.yaml")))
    folder = "    runs/mixes/tiny-rlvr/"
    assert told.splitlines() == [
        "data_mixes/tiny/rlvr.yaml: 404 rows from 1 source",
        *(folder + name for name in ("README.md", "length_histogram.png", "contamination.md", "mix.lock.json")),
    ]
    printed = capfd.readouterr()
    assert printed.out.startswith("$ python -m tulu_recipes.mix data_mixes/tiny/rlvr.yaml\n")
    assert "card: runs/mixes/tiny-rlvr/README.md" in printed.err
    assert "404" in printed.err.partition("Sources")[2].partition("Built:")[0]  # the table


def test_a_mix_that_is_refused_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sft.yaml").write_text("sources: []\n")
    with pytest.raises(TrainingError) as caught:
        demo.run_mixing(demo.Mixing(tmp_path / "sft.yaml"))
    assert caught.value.slugs == ["demo-stage-failed"]
    assert "mix-empty" in capfd.readouterr().err


def test_outside_a_checkout_the_demo_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.main([]) == 1
    message = capsys.readouterr().err
    assert "demo-not-in-checkout" in message
    assert "root of the repository" in message
