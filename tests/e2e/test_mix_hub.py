"""`python -m tulu_recipes.mix` against a Hub: sources that are refused or move, pushes, outages, locks, no network."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data.mixing.mixes import chat, chats, rows_of, shard_bytes, write_mix
from tests.hub.fixtures import RunningHub
from tests.stage import slugs
from tests.tiny import write_rows
from tulu_recipes.data.mixing.lock import LOCK
from tulu_recipes.run import read_json

pytestmark = pytest.mark.e2e

COMMANDS = """
    import io, json, os
    from contextlib import redirect_stderr, redirect_stdout
    import datasets.config
    from tulu_recipes import hub
    from tulu_recipes.config.entry import run_cli
    from tulu_recipes.mix import main
    datasets.config.USE_PARQUET_EXPORT = False  # asks datasets-server.<endpoint>, whose name resolves nowhere
    hub.time.sleep = lambda seconds: None  # between the attempts of a push
    os.chdir(os.environ["MIX_FOLDER"])
    result = []
    for argv in json.loads(os.environ["MIX_COMMANDS"]):
        if argv[0].startswith("HF_TOKEN="):
            os.environ["HF_TOKEN"] = argv.pop(0).removeprefix("HF_TOKEN=")
        with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
            code = run_cli(lambda: main(argv))
        result.append([code, said.getvalue()])
"""


def commands(hub: RunningHub, folder: Path, *lines: str, env: dict[str, str] | None = None) -> list[tuple[int, str]]:
    """Exit code and stderr of each command line, all in one process that works in `folder`.

    A line may begin with HF_TOKEN=…, from where on it is the token.
    """
    settings = {"MIX_FOLDER": str(folder), "MIX_COMMANDS": json.dumps([shlex.split(line) for line in lines])}
    return [(code, said) for code, said in hub.run(COMMANDS, env=(env or hub.env()) | settings)]


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def dataset(hub: RunningHub, name: str, rows: list[dict[str, Any]], **options: Any) -> str:
    card = "---\nlicense: odc-by\n---\n"
    return hub.add_repo("dataset", name, {"README.md": card, "data/train.jsonl": jsonl(rows)}, **options)


def replace_rows(hub: RunningHub, name: str, rows: list[dict[str, Any]]) -> str:
    """A new commit on main."""
    repo = hub.repo(name, kind="dataset")
    files = repo.metadata().files | {"data/train.jsonl": hub.store.add_blob(jsonl(rows).encode(), lfs=False)}
    return hub.store.commit(repo, "refs/heads/main", files, "moved", "", repo.namespace).sha


def mix_of(folder: Path, *sources: str, name: str = "mix.yaml") -> None:
    lines = "".join(f"  - {{{source}}}\n" for source in sources)
    (folder / name).write_text(f"sources:\n{lines}", encoding="utf-8")


def test_a_mix_is_pushed_and_a_stranger_loads_its_rows(hub: RunningHub, tmp_path: Path) -> None:
    dataset(hub, "org/a", chats(30, "a"))
    dataset(hub, "alice/secret", chats(3, "s"), private=True)
    hub.add_repo("dataset", "alice/public", {})
    mix_of(tmp_path, "name: org/a, rows: 20", "name: alice/secret")
    write_rows(
        tmp_path / "items.jsonl", [{"question": "which of these is the question that nobody asks in training?"}]
    )
    evaluation = "{name: items, dataset: items.jsonl, fields: [question], action: report}"
    (tmp_path / "evals.yaml").write_text(f"evaluations:\n  - {evaluation}\n", encoding="utf-8")
    with (tmp_path / "mix.yaml").open("a", encoding="utf-8") as file:
        file.write("decontaminate: {against: evals.yaml}\n")
    (tmp_path / "empty").mkdir()
    build = "mix.yaml --output_dir out --workers 1"
    env = hub.env()
    first, again, folder, branch, public, broken = commands(
        hub,
        tmp_path,
        f"{build} --push_to_hub mixed --private",
        f"{build} --push_to_hub mixed --private",
        "out --push_to_hub alice/mixed --private",
        "out --push_to_hub mixed --revision dev",
        "mix.yaml --output_dir public --push_to_hub alice/public --private",
        "empty --push_to_hub mixed",
        env=env,
    )
    assert first[0] == 0, first[1]
    assert "\nPushed: http" in first[1]
    for done in (again, folder):
        assert done[0] == 0, done[1]
        assert "Pushed already, nothing has changed: http" in done[1]
    assert "Built already, nothing has changed" in again[1]
    assert branch[0] == 0, branch[1]
    assert hub.count("POST .*/commit/") == 1
    assert (public[0], slugs(public[1])) == (2, {"hub-repo-public"})
    assert not (tmp_path / "public").exists()
    assert (broken[0], slugs(broken[1])) == (2, {"mix-unfinished"})

    repo = hub.repo("alice/mixed", kind="dataset")
    assert repo.private
    files = hub.files("alice/mixed", kind="dataset")
    # the contamination report quotes evaluation items, and stays at home
    assert {"contamination.json", "contamination.md"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert set(files) == {"README.md", "data/train-00000-of-00001.parquet", "length_histogram.png", LOCK}
    assert repo.at("dev").files == repo.metadata().files
    card = files["README.md"].decode()
    assert 'load_dataset("alice/mixed", split="train")' in card
    assert yaml.safe_load(card.split("---")[1])["dataset_info"]["splits"][0]["num_examples"] == 23
    loaded = hub.run(
        """
        import datasets
        datasets.config.USE_PARQUET_EXPORT = False
        result = datasets.load_dataset("alice/mixed", split="train").to_list()
        """
    )
    assert loaded == rows_of(tmp_path / "out")


def test_a_push_that_would_be_refused_is_before_any_work(hub: RunningHub, tmp_path: Path) -> None:
    write_mix(tmp_path, {"a.jsonl": chats(3)})
    cases = [
        ("read", "alice/new", "hub-token-read-only"),
        ("expired", "alice/new", "hub-token-refused"),
        ("wrong", "alice/new", "hub-token-refused"),
        (None, "alice/new", "hub-token-missing"),
        ("write", "bob/new", "hub-namespace"),
    ]
    line = "mix.yaml --output_dir out --workers 1 --push_to_hub"
    lines = [f"HF_TOKEN={hub.tokens.get(token or '', '')} {line} {repo}" for token, repo, _ in cases]
    for (code, said), (token, repo, slug) in zip(commands(hub, tmp_path, *lines), cases, strict=True):
        assert (code, slugs(said)) == (2, {slug})
        assert not hub.has_repo(repo, kind="dataset")
        assert hub.tokens.get(token or "", "-no token-") not in said
    assert not (tmp_path / "out").exists()


def test_an_outage_in_the_push_is_waited_out_or_leaves_one_command_to_run(hub: RunningHub, tmp_path: Path) -> None:
    write_mix(tmp_path, {"a.jsonl": chats(3)})
    build = "mix.yaml --output_dir 'the mix' --workers 1 --push_to_hub mixed --private --revision dev"
    hub.fail_next("/commit/", times=2, status=520)
    ((code, said),) = commands(hub, tmp_path, build)
    assert code == 0, said
    assert "Pushed: http" in said

    (tmp_path / "mix.yaml").write_text("seed: 1\n" + (tmp_path / "mix.yaml").read_text())
    hub.fail_next("/commit/", times=None, status=520)
    ((code, said),) = commands(hub, tmp_path, build)
    assert (code, slugs(said)) == (1, {"hub-push-failed", "hub-answer"})
    again = "python -m tulu_recipes.mix 'the mix' --push_to_hub alice/mixed --revision dev --private"
    assert f"run  {again};" in said
    assert (tmp_path / "the mix" / LOCK).is_file()
    hub.heal()
    ((code, said),) = commands(hub, tmp_path, again.removeprefix("python -m tulu_recipes.mix "))
    assert code == 0, said
    pushed = hub.files("alice/mixed", kind="dataset", revision="dev")
    assert json.loads(pushed[LOCK])["seed"] == 1


def test_every_source_that_cannot_be_had_is_named_at_once_before_a_download(hub: RunningHub, tmp_path: Path) -> None:
    dataset(hub, "org/a", chats(5))
    dataset(hub, "org/gated", chats(5), gated=True)
    dataset(hub, "bob/private", chats(5), private=True)
    metadata = {"configs": [{"config_name": name, "data_files": f"{name}.jsonl"} for name in ("one", "two")]}
    card = f"---\n{yaml.safe_dump(metadata)}---\n"
    hub.add_repo("dataset", "org/two", {"README.md": card, "one.jsonl": jsonl(chats(2)), "two.jsonl": jsonl(chats(2))})
    mix_of(
        tmp_path,
        "name: org/a",
        "name: org/gated",
        "name: org/missing",
        "name: org/a, revision: vanished",
        "name: bob/private",
        "name: org/a, split: test",
        "name: org/two, config: three",
        "name: org/two",
        "name: 'hf://datasets/org/a@vanished/data/train.jsonl'",
        "name: 'hf://datasets/org/a/data/none.jsonl'",
    )
    ((code, said),) = commands(hub, tmp_path, "mix.yaml --output_dir out")
    assert code == 2
    found = [line.split("  ")[0] for line in said.splitlines() if "mix.yaml line" in line]
    assert found == [
        "hub-gated",
        "hub-repo-not-found",
        "hub-revision-not-found",
        "hub-repo-not-found",
        "split-unknown",
        "dataset-unreadable",
        "dataset-unreadable",
        "hub-revision-not-found",
        "dataset-not-found",
    ]
    assert "Available: ['one', 'two']" in said
    assert hub.count(r"GET .*/resolve/.*\.jsonl") == 0
    assert "Traceback" not in said


def test_rows_of_the_hub_that_cannot_be_read_are_named(hub: RunningHub, tmp_path: Path) -> None:
    latin = json.dumps(chat("é"), ensure_ascii=False).encode("latin-1") + b"\n"
    hub.add_repo("dataset", "org/latin", {"train.jsonl": jsonl(chats(2)).encode() + latin})
    columns: dict[str, bytes | str] = {
        "train-0.jsonl": jsonl([chat("a", id=1)]),
        "train-1.jsonl": jsonl([chat("b", extra=1)]),
    }
    hub.add_repo("dataset", "org/columns", columns)
    mix_of(tmp_path, "name: org/latin", name="latin.yaml")
    mix_of(tmp_path, "name: org/columns", name="columns.yaml")
    (latin_code, latin_said), (columns_code, columns_said) = commands(
        hub, tmp_path, "latin.yaml --output_dir a --workers 1", "columns.yaml --output_dir b --workers 1"
    )
    assert (latin_code, slugs(latin_said)) == (2, {"file-unreadable"})
    assert "Row 3 of org/latin is not UTF-8" in latin_said
    assert (columns_code, slugs(columns_said)) == (2, {"dataset-unreadable"})
    assert "its files have different columns" in columns_said


def test_locked_takes_the_commit_of_the_lock_or_says_what_is_gone(hub: RunningHub, tmp_path: Path) -> None:
    old = dataset(hub, "org/a", chats(9, "a"))
    dataset(hub, "org/b", chats(4, "b"))
    mix_of(tmp_path, "name: org/a", f"name: 'hf://datasets/org/a@{old}/data/train.jsonl', label: x", "name: org/b")
    built, *_ = commands(hub, tmp_path, "mix.yaml --output_dir out --workers 1")
    assert built[0] == 0, built[1]
    new = replace_rows(hub, "org/a", chats(11, "new"))
    same, moved = commands(
        hub,
        tmp_path,
        "mix.yaml --output_dir same --workers 1 --locked",
        "mix.yaml --output_dir moved --workers 1",
    )
    assert same[0] == 0, same[1]
    assert shard_bytes(tmp_path / "same") == shard_bytes(tmp_path / "out")
    assert read_json(tmp_path / "same" / LOCK) == read_json(tmp_path / "out" / LOCK)
    assert moved[0] == 0, moved[1]
    assert read_json(tmp_path / "moved" / LOCK)["sources"][0]["revision"] == new

    del hub.repo("org/a", kind="dataset").commits[old]  # its history was rewritten
    del hub.store.repos["datasets", "org/b"]
    mix_of(tmp_path, "name: org/a", "name: org/b", name="two.yaml")
    ((code, said),) = commands(hub, tmp_path, "mix.yaml --output_dir gone --locked out")
    assert (code, slugs(said)) == (2, {"mix-source-moved"})
    assert f"org/a is locked at commit {old}, which is gone" in said
    assert "org/b is locked at commit" in said
    assert not (tmp_path / "gone" / "data").exists()


def test_without_a_network_a_mix_is_built_from_the_cache(hub: RunningHub, tmp_path: Path) -> None:
    sha = dataset(hub, "org/a", chats(9, "a"))
    mix_of(tmp_path, "name: org/a, revision: main")
    mix_of(tmp_path, f"name: 'hf://datasets/org/a@{sha}/data/train.jsonl'", name="path.yaml")
    mix_of(tmp_path, "name: org/never", name="never.yaml")
    env = hub.env()
    ((code, said),) = commands(hub, tmp_path, "mix.yaml --output_dir out --workers 1", env=env)
    assert code == 0, said
    lock = (tmp_path / "mix.lock.json").read_bytes()
    requests = len(hub.requests)
    again, other, locked, path, never, push = commands(
        hub,
        tmp_path,
        "mix.yaml --output_dir out --workers 1",
        "mix.yaml --output_dir other --workers 1",
        "mix.yaml --output_dir locked --workers 1 --locked",
        "path.yaml --output_dir path",
        "never.yaml --output_dir never",
        "mix.yaml --output_dir out --push_to_hub mixed",
        env=env | {"HF_HUB_OFFLINE": "1"},
    )
    assert "Built already" in again[1]
    for done, name in ((other, "other"), (locked, "locked")):
        assert done[0] == 0, done[1]
        assert shard_bytes(tmp_path / name) == shard_bytes(tmp_path / "out")
    assert (tmp_path / "mix.lock.json").read_bytes() == lock  # with the hashes that only the Hub knows
    assert (path[0], slugs(path[1])) == (2, {"hub-offline"})
    assert (never[0], slugs(never[1])) == (2, {"hub-offline"})
    assert (push[0], slugs(push[1])) == (2, {"hub-offline-push"})
    assert len(hub.requests) == requests
