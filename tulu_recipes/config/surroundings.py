"""What the checks may ask of the machine, injectable so that a test needs no full disk and no Hub."""

import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class ReadText(Protocol):
    """A small file of a Hub repository as text, or None when the repository has no such file."""

    def __call__(self, repo_id: str, filename: str, *, revision: str | None = None) -> str | None: ...


def has_module(name: str) -> bool:
    """Whether a top-level package is installed, without importing it."""
    return importlib.util.find_spec(name) is not None


def free_bytes(path: str) -> int:
    """Free bytes where `path` will be written: on the disk of its nearest existing parent."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@dataclass(frozen=True)
class Surroundings:
    """environ: of the process; read_text: None when the Hub may not be asked."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    read_text: ReadText | None = None
    has_module: Callable[[str], bool] = has_module
    free_bytes: Callable[[str], int] = free_bytes

    def switched_on(self, variable: str) -> bool:
        return self.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


_FILE_SUFFIXES = (
    ".json",
    ".jsonl",
    ".json.gz",
    ".jsonl.gz",
    ".jsonl.zst",
    ".parquet",
    ".arrow",
    ".csv",
    ".yaml",
    ".yml",
    ".jinja",
    ".j2",
    ".txt",
)


def is_local(name: str) -> bool:
    """Whether a name means a path of this machine rather than a Hub id.

    Hub ids are `name` or `owner/name`: what exists on disk or would stand in a folder that does, starts with . / ~,
    has two slashes or ends like a data file is local.
    """
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith(_FILE_SUFFIXES)
    return looks_local or Path(name).exists() or ("/" in name and Path(name).parent.is_dir())


def local_path(name: str) -> Path:
    return Path(name).expanduser()


def recipe_that_writes(folder: str, beside: str) -> Path | None:
    """The recipe in the folder of `beside` whose output_dir is this folder, as long as it does not exist."""
    if local_path(folder).exists():
        return None
    for path in sorted(Path(beside).parent.glob("*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        named = re.search(r"^output_dir:[ \t]*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
        if named and Path(named[1]) == Path(folder) and path.name != Path(beside).name:
            return path
    return None


def name_of_file(path: str, below: str) -> str:
    """A name for what is made from a YAML file: its path below the folder `below`, elsewhere its folder and its stem.

    recipes/tulu3/8b/sft.yaml below recipes -> tulu3-8b-sft; experiments/lr/high.yaml -> lr-high.
    """
    parts = list(Path(path).with_suffix("").parts)
    if below in parts[:-1]:
        parts = parts[len(parts) - parts[::-1].index(below) :]
    else:
        parts = [part for part in parts[-2:] if part not in ("/", ".", "..")]
    return "-".join(parts)
