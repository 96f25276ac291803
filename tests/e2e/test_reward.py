"""The reward stage and its scoring as they are typed: a run folder, its evaluation, scored datasets, refusals."""

import json
import shutil
import subprocess
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.distributed.launch import environment, kill_all, launch_command
from tests.hub.fixtures import RunningHub
from tests.stage import run_here, slugs, write_pair_recipe
from tests.tiny import conversation, pair, write_rows
from tulu_recipes.config.entry import run_cli
from tulu_recipes.run import read_json, read_metrics

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in `run/`, with held-out pairs of which one is broken."""
    folder = tmp_path_factory.mktemp("reward")
    rows = [{**pair(i, 1 + i % 2), "lead": 0.1 * (i % 3), "score_chosen": f"{i} of 10"} for i in range(40)]
    heldout = [pair(i, 1 + i % 2) for i in range(50, 70)]
    heldout.append({**heldout[0], "rejected": heldout[0]["chosen"]})
    recipe = write_pair_recipe(
        folder,
        rows,
        eval_dataset_name=str(write_rows(folder / "heldout.jsonl", heldout)),
        margin_column="lead",
        adam_epsilon=1.0e-5,
        save_steps=100,
    )
    done = run_here("reward", recipe)
    assert done.returncode == 0, done.stderr
    assert "Scoring 20 held-out pairs" in done.stderr
    return folder


def score(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m tulu_recipes.reward --score …` in this process."""
    from tulu_recipes.reward import main

    argv = ["--score", *map(str, arguments)]
    with redirect_stderr(StringIO()) as errors, redirect_stdout(StringIO()) as output:
        try:
            code = run_cli(lambda: main(argv))
        except SystemExit as stopped:  # argparse
            code = int(str(stopped.code))
    return subprocess.CompletedProcess(argv, code, output.getvalue(), errors.getvalue())


def refused(*arguments: object) -> tuple[set[str], str]:
    done = score(*arguments)
    assert done.returncode == 2, done.stderr
    return slugs(done.stderr), done.stderr


def scores_alone(run: Path, conversations: list[Any]) -> list[float]:
    """One conversation at a time, as the card of any sequence classifier says."""
    tokenizer, model = AutoTokenizer.from_pretrained(run), AutoModelForSequenceClassification.from_pretrained(run)
    found = []
    for messages in conversations:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        with torch.no_grad():
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            found.append(model(input_ids=inputs["input_ids"]).logits.item())
    return found


# ---- the stage


def test_the_evaluation_says_of_the_saved_model_what_training_s_own_says(trained: Path) -> None:
    found = read_json(trained / "run" / "reward_evaluation.json")
    last = [line for line in read_metrics(trained / "run") if "eval_loss" in line][-1]
    assert found["pairs"] == 20
    assert found["accuracy"] == pytest.approx(last["eval_accuracy"])
    assert found["margin"] == pytest.approx(last["eval_margin"], rel=1e-4)
    assert found["loss"] == pytest.approx(last["eval_loss"], rel=1e-4)  # held-out pairs have no margins
    assert sorted(found["sources"]) == ["source-0", "source-1"]
    lengths = [found["length"][key]["pairs"] for key in ("chosen_shorter", "chosen_longer")]
    assert sum(bucket["pairs"] for bucket in found["length"]["buckets"]) == 20 > sum(lengths) > 0
    report = (trained / "run" / "report.md").read_text(encoding="utf-8")
    assert f"Accuracy **{found['accuracy']:.3f}** on 20 pairs" in report
    assert "![calibration](calibration.png)" in report
    assert (trained / "run" / "calibration.png").stat().st_size > 10_000
    assert read_json(trained / "run" / "run.json")["saved_model_difference"] < 1e-5


def test_a_run_that_lost_its_end_makes_it_again_exactly(trained: Path, tmp_path: Path) -> None:
    rows = [pair(i, 1 + i % 2) for i in range(40)]
    keys = {"model_name_or_path": str(trained / "base"), "logging_steps": 2, "max_steps": 5}
    recipe, run = write_pair_recipe(tmp_path, rows, **keys), tmp_path / "run"
    assert run_here("reward", recipe).returncode == 0
    lines, weights = read_metrics(run), load_file(run / "model.safetensors")
    # as if killed at step 5; the checkpoint at 3 lies between two lines of the log
    shutil.rmtree(run / "checkpoint-5")
    (run / "model.safetensors").unlink()
    (run / "run.json").write_text(json.dumps(read_json(run / "run.json") | {"status": "started"}), encoding="utf-8")
    assert run_here("reward", recipe).returncode == 0
    assert read_json(run / "run.json")["resumed_at_steps"] == [3]
    assert read_metrics(run) == lines
    again = load_file(run / "model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


def test_a_margin_that_is_no_number_or_not_there_is_refused(tmp_path: Path, trained: Path) -> None:
    rows = [{**pair(i), "lead": "much" if i == 3 else "1"} for i in range(8)]
    base = str(trained / "base")
    recipe = write_pair_recipe(tmp_path, rows, model_name_or_path=base, margin_column="lead")
    done = run_here("reward", recipe)
    assert slugs(done.stderr) >= {"rows-broken"}
    assert "row 1 (source-0): lead is not a number" in done.stderr
    done = run_here("reward", recipe, "--margin_column", "quality")
    assert slugs(done.stderr) == {"columns-unknown"}
    long = run_here("reward", recipe, "--margin_column", "null", "--max_length", "30", "--over_length", "stop")
    assert "over-length" in slugs(long.stderr)
    assert "has no column quality; it has prompt, chosen, rejected, source, lead." in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_names_scoring_and_scoring_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    from tulu_recipes.reward import main

    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--score DATASET --model MODEL" in capsys.readouterr().out
    done = score("--help")
    assert done.returncode == 0
    assert "chosen_score and rejected_score" in " ".join(done.stdout.split())


# ---- scoring


def test_pairs_get_the_scores_of_each_conversation_alone_and_keep_their_columns(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored"
    done = score(trained / "rows.jsonl", "--model", trained / "run", "--output_dir", out, "--part_rows", 15)
    assert done.returncode == 0, done.stderr
    assert "s left" in done.stderr
    assert f"Scored 40 of 40 rows: {out}." in done.stderr
    rows = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    before = [json.loads(line) for line in (trained / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{name: row[name] for name in before[0]} for row in rows] == before
    for side in ("chosen", "rejected"):
        alone = scores_alone(trained / "run", [row[side] for row in before])
        assert rows[f"{side}_score"][:] == pytest.approx(alone, abs=1e-5)
    record = read_json(out / "scores.json")
    assert (record["status"], record["model"], record["dataset"]) == ("finished", "run", "rows.jsonl")
    assert (
        record["accuracy"]
        == sum(c > r for c, r in zip(rows["chosen_score"], rows["rejected_score"], strict=True)) / 40
    )
    assert str(tmp_path) not in (out / "scores.json").read_text(encoding="utf-8")  # it may be pushed
    assert "# rows.jsonl, scored" in (out / "README.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in (out / "data").iterdir()) == [
        f"part-0000{i}-of-00003.parquet" for i in range(3)
    ]
    # finished: nothing is done again
    times = {path: path.stat().st_mtime_ns for path in (out / "data").iterdir()}
    again = score(trained / "rows.jsonl", "--model", trained / "run", "--output_dir", out, "--part_rows", 15)
    assert again.stderr == f"Scored 40 of 40 rows: {out}.\n"
    assert {path: path.stat().st_mtime_ns for path in (out / "data").iterdir()} == times


def test_rows_that_cannot_be_scored_get_none_and_are_named(trained: Path, tmp_path: Path) -> None:
    rows = [conversation(i, 1 + i % 2, 5) for i in range(5)]
    rows[1] = {"messages": rows[1]["messages"][:-1], "source": "x"}  # type: ignore[index]
    rows[2] = {"messages": [{"role": "user", "content": "cat " * 300}, {"role": "assistant", "content": "."}]}
    rows[3] = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": " "}]}
    data = write_rows(tmp_path / "chats.jsonl", rows)
    done = score(data, "--model", trained / "run", "--output_dir", tmp_path / "out", "--max_length", 200)
    assert done.returncode == 0, done.stderr
    assert "Scored 2 of 5 rows" in done.stderr
    assert "row 2: it does not end with an assistant turn; row 3: longer than 200 tokens" in done.stderr
    scored = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))["score"][:]
    assert [value is None for value in scored] == [False, True, True, True, False]
    alone = scores_alone(trained / "run", [rows[0]["messages"], rows[4]["messages"]])
    assert [scored[0], scored[4]] == pytest.approx(alone, abs=1e-5)
    record = read_json(tmp_path / "out" / "scores.json")
    assert record["unscored"] == 3
    assert record["reasons"]["a message (assistant) is empty"] == 1
    # prompt and completion are a conversation too
    data = write_rows(tmp_path / "texts.jsonl", [{"prompt": "the cat", "completion": "sat"}])
    assert score(data, "--model", trained / "run", "--output_dir", tmp_path / "texts").returncode == 0
    messages = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
    found = read_json(tmp_path / "texts" / "scores.json")["scores"]["score"]["mean"]
    assert found == pytest.approx(scores_alone(trained / "run", [messages])[0], abs=1e-5)


def test_a_scoring_killed_on_two_processes_goes_on_and_ends_as_if_it_had_not_been(
    trained: Path, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", [pair(i % 60) for i in range(200)])
    arguments = [data, "--model", trained / "run", "--part_rows", 2, "--output_dir"]
    script = ["-m", "tulu_recipes.reward", "--score", *map(str, arguments), str(tmp_path / "killed")]
    process = subprocess.Popen(
        launch_command("ddp", *script), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    parts = tmp_path / "killed" / "data"
    deadline = time.monotonic() + 120
    while {int(path.name[5:10]) % 2 for path in parts.glob("part-*")} != {0, 1}:  # of both processes
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kill_all(process)
    process.communicate()
    done_before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*")}
    assert len(done_before) < 100
    assert read_json(tmp_path / "killed" / "scores.json")["status"] == "started"
    cut = sorted(done_before)[0]
    (parts / cut).write_bytes((parts / cut).read_bytes()[:100])  # and a disk that lost the end of a file
    resumed = score(*arguments, tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{2 * (len(done_before) - 1)} rows are scored already." in resumed.stderr
    kept = {name for name, mtime in done_before.items() if (parts / name).stat().st_mtime_ns == mtime}
    assert kept == set(done_before) - {cut}
    assert not list(parts.glob(".*"))
    whole = score(*arguments, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    read = [pq.read_table(tmp_path / name / "data").to_pandas() for name in ("killed", "whole")]
    assert (read[0]["chosen_score"] - read[1]["chosen_score"]).abs().max() < 1e-6
    assert read[0]["prompt"].tolist() == read[1]["prompt"].tolist()
    first, second = (read_json(tmp_path / name / "scores.json") for name in ("killed", "whole"))
    assert (first["accuracy"], first["scored"], first["made_of"]) == (second["accuracy"], 200, second["made_of"])


def test_a_folder_of_something_else_is_refused_with_what_differs(trained: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "chats.jsonl", [conversation(i) for i in range(3)])
    out = tmp_path / "out"
    usual = (data, "--model", trained / "run", "--output_dir", out)
    assert score(*usual).returncode == 0
    other = shutil.copytree(trained / "run", tmp_path / "other", ignore=shutil.ignore_patterns("checkpoint-*"))
    model = AutoModelForSequenceClassification.from_pretrained(other)
    model.score.weight.data += 1
    model.save_pretrained(other)
    found, text = refused(data, "--model", other, "--output_dir", out)
    assert found == {"score-folder"}
    assert "what differs: the model (run then, other now)." in text
    found, text = refused(*usual, "--max_length", 100)
    assert "what differs: max_length (512 then, 100 now)." in text
    write_rows(data, [conversation(i + 1) for i in range(3)])
    assert "what differs: the rows." in refused(*usual)[1]
    (out / "scores.json").write_text('{"status": "fin', encoding="utf-8")
    assert "Its scores.json cannot be read." in refused(*usual)[1]
    (out / "scores.json").unlink()
    assert "It holds .parts, README.md, data and no scores.json" in refused(*usual)[1]
    assert "It is a file." in refused(data, "--model", trained / "run", "--output_dir", data)[1]


def test_what_cannot_be_scored_is_said_before_anything_is_loaded(trained: Path, tmp_path: Path) -> None:
    out = ("--output_dir", tmp_path / "out")
    data = write_rows(tmp_path / "scored.jsonl", [{**conversation(i), "score": 1.0} for i in range(2)])
    found, text = refused("no/such/file.jsonl", "--model", trained / "base", *out)
    assert found == {"no-reward-model", "path-missing"}
    assert "is a LlamaForCausalLM: it has no head that scores" in text
    assert refused(data, "--model", "runs/nowhere/at-all", *out)[0] == {"path-missing"}
    assert refused(data, "--model", tmp_path, *out)[0] == {"model-incomplete"}
    found, text = refused(data, "--model", trained / "run", *out)
    assert found == {"score-columns"}
    assert "The rows have score already" in text
    for name, architectures, more, slug in (
        ("two", ["LlamaForSequenceClassification"], {}, "no-reward-model"),
        ("named", [], {}, "no-reward-model"),
        ("bare", ["LlamaForSequenceClassification"], {"id2label": {"0": "x"}}, "tokenizer-missing"),
    ):
        (tmp_path / name).mkdir()
        config = {"architectures": architectures, **more}
        (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert refused(data, "--model", tmp_path / name, *out)[0] == {slug}, name
    (tmp_path / "two" / "config.json").write_text("{", encoding="utf-8")
    assert refused(data, "--model", tmp_path / "two", *out)[0] == {"model-files-broken"}
    (tmp_path / "two" / "adapter_config.json").write_text('{"task_type": "CAUSAL_LM"}', encoding="utf-8")
    assert "is an adapter for CAUSAL_LM" in refused(data, "--model", tmp_path / "two", *out)[1]
    assert refused(data, "--model", trained / "run", *out, "--max_length", 9999)[0] == {"max-length"}
    assert refused(data, "--model", trained / "run", *out, "--model_revision", "v1")[0] == {"revision-ignored"}
    assert refused(data, "--model", trained / "run", *out, "--split", "test")[0] == {"split-unknown"}
    odd = write_rows(tmp_path / "odd.jsonl", [{"text": "hello"}])
    assert refused(odd, "--model", trained / "run", *out)[0] == {"columns-unknown"}
    plain = shutil.copytree(trained / "run", tmp_path / "plain", ignore=shutil.ignore_patterns("*.jinja"))
    chats = write_rows(tmp_path / "chats.jsonl", [conversation(1)])
    assert refused(chats, "--model", plain, *out)[0] == {"template-missing"}
    assert not (tmp_path / "out").exists()
    assert score(chats, "--model", plain, *out, "--chat_template", "tulu").returncode == 0
    model = ("--model", trained / "run")
    for arguments in ((data,), model, (data, *model, "--private"), (data, *model, "--batch_size", 0)):
        assert score(*arguments).returncode == 2


PUSH = """
    import io, json, os
    from contextlib import redirect_stderr
    import datasets.config
    from tulu_recipes.config.entry import run_cli
    from tulu_recipes.reward import main
    datasets.config.USE_PARQUET_EXPORT = False  # asks another host, whose name resolves nowhere
    result = []
    for argv in json.loads(os.environ["COMMANDS"]):
        with redirect_stderr(io.StringIO()) as said:
            code = run_cli(lambda: main(argv))
        result.append([code, said.getvalue()])
"""


def test_model_and_rows_come_from_the_hub_and_the_scores_go_there(
    trained: Path, tmp_path: Path, hub: RunningHub
) -> None:
    rows = (trained / "rows.jsonl").read_text(encoding="utf-8")
    data = hub.add_repo("dataset", "alice/pairs", {"README.md": "", "data/train.jsonl": rows})
    kept = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    model = hub.add_repo("model", "alice/rm", {name: (trained / "run" / name).read_bytes() for name in kept})
    usual = ["--score", "alice/pairs", "--model", "alice/rm", "--output_dir", str(tmp_path / "out")]
    commands = [
        [*usual, "--push_to_hub", "bob/scored"],
        [*usual, "--push_to_hub", "scored", "--private"],
        ["--score", "alice/none", "--model", "alice/gone"],
    ]
    refused, pushed, gone = hub.run(PUSH, env=hub.env(COMMANDS=json.dumps(commands)))
    assert refused[0] == 2
    assert slugs(refused[1]) == {"hub-namespace"}
    assert "Scored" not in refused[1]
    assert pushed[0] == 0, pushed[1]
    assert "Pushed: " in pushed[1]
    assert gone[1].count("hub-repo-not-found") == 2
    record = read_json(tmp_path / "out" / "scores.json")
    assert (record["model"], record["model_commit"]) == ("alice/rm", model)
    assert (record["dataset"], record["dataset_commit"]) == ("alice/pairs", data)
    repo = hub.repo("alice/scored", kind="dataset")
    assert repo.private
    files = hub.files("alice/scored", kind="dataset")
    assert {"README.md", "scores.json", "data/part-00000-of-00001.parquet"} <= set(files)
    assert not [name for name in files if name.startswith((".parts", "_")) or "/." in name]
