"""What `python -m tulu_recipes.demo` does with run folders and figures; the whole demo is an e2e test."""

import json
import shutil
from pathlib import Path

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


def test_a_finished_run_is_set_aside_under_the_next_free_number(tmp_path: Path) -> None:
    assert demo.set_aside(make_run(tmp_path / "tiny-sft"), fresh=False) == tmp_path / "tiny-sft.1"
    assert demo.set_aside(make_run(tmp_path / "tiny-sft"), fresh=False) == tmp_path / "tiny-sft.2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-sft.1", "tiny-sft.2"]


def test_an_unfinished_run_is_left_to_resume_unless_a_fresh_one_is_asked_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "tiny-sft", status="running")
    assert demo.set_aside(folder, fresh=False) is None
    assert demo.set_aside(folder, fresh=True) == tmp_path / "tiny-sft.1"
    assert demo.set_aside(folder, fresh=True) is None


def test_learning_is_told_with_both_figures(tmp_path: Path) -> None:
    stage = demo.Stage("tulu_recipes.sft", Path("x.yaml"), min_exact_match=0.5)
    assert demo.check_learned(stage, make_run(tmp_path / "run")) == "held-out exact match 0.00 -> 0.80"


def test_exact_match_below_the_stated_threshold_is_a_failure(tmp_path: Path) -> None:
    stage = demo.Stage("tulu_recipes.sft", Path("x.yaml"), min_exact_match=0.5)
    with pytest.raises(TrainingError) as caught:
        demo.check_learned(stage, make_run(tmp_path / "run", after=0.49))
    assert caught.value.slugs == ["demo-did-not-learn"]
    assert "0.00 -> 0.49, where at least 0.50 is expected" in str(caught.value)


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
        demo.run_stage(demo.Stage("json.tool", recipe, min_exact_match=0.5), fresh=False)
    assert caught.value.slugs == ["demo-stage-failed"]
    assert "json.tool" in str(caught.value)
    assert "exit code 1" in str(caught.value)


def test_the_tiny_demo_trains_on_the_mix_that_it_builds_first() -> None:
    mixing, stage = demo.TINY
    assert isinstance(mixing, demo.Mixing)
    assert mixing.command[1:] == ["-m", "tulu_recipes.mix", "data_mixes/tiny/sft.yaml"]
    assert yaml.safe_load((ROOT / stage.file).read_text(encoding="utf-8"))["dataset_mix"] == str(mixing.file)


def test_a_mix_is_told_with_its_rows_card_and_histogram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "data_mixes" / "tiny", tmp_path / "data_mixes" / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = demo.run_mixing(demo.Mixing(Path("data_mixes/tiny/rlvr.yaml")))
    folder = "    runs/mixes/tiny-rlvr/"
    assert told.splitlines() == [
        "data_mixes/tiny/rlvr.yaml: 240 rows from 1 source",
        *(folder + name for name in ("README.md", "length_histogram.png", "contamination.md", "mix.lock.json")),
    ]
    printed = capfd.readouterr()
    assert printed.out.startswith("$ python -m tulu_recipes.mix data_mixes/tiny/rlvr.yaml\n")
    assert "card: runs/mixes/tiny-rlvr/README.md" in printed.err
    assert "240" in printed.err.partition("Sources")[2].partition("Built:")[0]  # the table


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
