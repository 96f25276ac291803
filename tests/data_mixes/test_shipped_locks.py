"""The locks beside the tiny mixes: `--locked` gives their bytes again, so a changed row, filter or rule turns red."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tulu_recipes.data.mixing.build import LocalPasses, build_mix
from tulu_recipes.data.mixing.lock import LOCK, keep_beside, lock_beside, read_lock, tool_versions
from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.data.mixing.use import check_mix
from tulu_recipes.errors import DataError
from tulu_recipes.mix import main
from tulu_recipes.reports.mix_folder import describe_mix

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
STAGES = {"sft": "sft", "preference": "dpo", "rlvr": "rlvr"}
PINNED = re.search(r"^pyarrow==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled rows and mixes in a folder of their own, where a lock may be written."""
    shutil.copytree(ROOT / "data_mixes" / "tiny", tmp_path / "data_mixes" / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build_locked(target: str) -> dict[str, Any]:
    """Held to the rows of the lock alone, as a stage does."""
    path = f"data_mixes/tiny/{target}.yaml"
    passes = LocalPasses(1, Console(quiet=True))
    built = build_mix(
        load_mix(path),
        Path("again"),
        passes=passes,
        describe=describe_mix,
        locked=lock_beside(path),
        byte_for_byte=False,
    )
    assert built.lock is not None
    return built.lock


def libraries(tools: dict[str, str]) -> dict[str, str]:
    return {name: version for name, version in tools.items() if name not in ("python", "tulu-recipes")}


@pytest.mark.parametrize("target", STAGES)
def test_locked_gives_the_bytes_of_the_committed_lock(target: str, copy: Path) -> None:
    path = f"data_mixes/tiny/{target}.yaml"
    assert check_mix(path, STAGES[target])[1] == lock_beside(path), "a stage holds the mix to this lock"
    committed = read_lock(lock_beside(path))
    if libraries(committed["tools"]) != libraries(tool_versions()):  # outside the pinned set: the rows, in other files
        assert build_locked(target)["result"]["content_sha256"] == committed["result"]["content_sha256"]
        return
    assert main([path, "--locked", "--output_dir", "again", "--workers", "1"]) == 0
    assert {**read_lock(Path("again", LOCK)), "tools": None} == {**committed, "tools": None}


@pytest.mark.parametrize("target", STAGES)
def test_a_build_leaves_the_committed_lock_as_it_is(target: str, copy: Path) -> None:
    path = Path(f"data_mixes/tiny/{target}.yaml")
    before = lock_beside(path).read_bytes()
    lock = read_lock(lock_beside(path))
    assert keep_beside(load_mix(path), lock | {"tools": lock["tools"] | {"python": "3.99"}}) == lock_beside(path)
    assert lock_beside(path).read_bytes() == before == (ROOT / lock_beside(path)).read_bytes()


@pytest.mark.parametrize("target", STAGES)
def test_a_committed_lock_is_of_the_pinned_pyarrow(target: str) -> None:
    assert PINNED
    lock = read_lock(ROOT / f"data_mixes/tiny/{target}.lock.json")
    assert lock["tools"]["pyarrow"] == PINNED[1], "build the tiny mixes anew and commit their locks"


@pytest.mark.parametrize("changed", ["a row", "the mix", "the evaluation list"])
def test_a_change_that_is_not_locked_is_refused(changed: str, copy: Path) -> None:
    tiny = copy / "data_mixes" / "tiny"
    if changed == "a row":
        rows = (tiny / "rlvr.jsonl").read_text(encoding="utf-8")
        (tiny / "rlvr.jsonl").write_text(rows.replace("Add ", "Sum ", 1), encoding="utf-8")
    else:
        name, key = ("rlvr.yaml", "seed") if changed == "the mix" else ("evals.yaml", "ngram_size")
        content = yaml.safe_load((tiny / name).read_text(encoding="utf-8"))
        (tiny / name).write_text(yaml.safe_dump(content | {key: 7}), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        build_locked("rlvr")
    assert refused.value.slugs == ["mix-source-moved" if changed == "a row" else "mix-lock-stale"]
