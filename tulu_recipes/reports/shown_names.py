"""Names as they may be shown in public: no folder of the machine that built the mix."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

HUB_PREFIX = "hf://"
# Keys of a mix whose values name a file, a folder or a repo.
NAMING_KEYS = {"name", "base", "against", "tokenizer", "dataset", "path"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
# A whole path, not a pattern such as "/think": two parts or more, nothing that only regular expressions use.
PATH = re.compile(
    r"(~|\.{1,2})?/[^\s*?|^$(){}\[\]]*/[^\s*?|^$(){}\[\]]*|([A-Za-z]:)?\\\\?[^\s*?|^$(){}\[\]]*\\[^*?|]*"
)


def is_local(source: Mapping[str, Any]) -> bool:
    """Whether a source of a lock is a file or folder: only what is on the Hub has a commit."""
    return source["revision"] is None and not source["name"].startswith(HUB_PREFIX)


def file_name(path: str) -> str:
    """The last part of a path of either kind of system."""
    parts = PureWindowsPath(path) if "\\" in path else PurePosixPath(path)
    return parts.name or "(folder)"


def shown_name(name: str, local_names: frozenset[str] = frozenset()) -> str:
    """A name without folders where it is a local one; Hub ids and plain words as they are."""
    return file_name(name) if name in local_names or PATH.fullmatch(name) else name


def shown_label(label: str, local: frozenset[str] = frozenset()) -> str:
    """A value of the `source` column, which by default is the source's name: without folders where it is a path."""
    is_path = label in local or re.match(r"[~.]{0,2}/|[A-Za-z]:\\|\\\\", label)
    return file_name(label) if is_path else label


def local_names(lock: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(source["name"] for source in lock["sources"] if is_local(source))


def without_folders(value: Any, local: frozenset[str], key: str = "") -> Any:
    """A part of a mix with every local path cut down to its file name; regular expressions stay as they are."""
    if isinstance(value, Mapping):
        return {name: without_folders(item, local, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item, local, key) for item in value]
    if not isinstance(value, str) or value.startswith(HUB_PREFIX):
        return value
    if key == "label":
        return shown_label(value, local)
    names_a_file = key in NAMING_KEYS and not HUB_ID.fullmatch(value)
    return file_name(value) if names_a_file else shown_name(value, local)


def hub_repo(source: Mapping[str, Any]) -> str | None:
    """The Hub id of a source of a lock; None for a local one."""
    if is_local(source):
        return None
    name: str = source["name"]
    if name.startswith(HUB_PREFIX):
        parts = name.removeprefix(HUB_PREFIX).removeprefix("datasets/").split("/")
        return "/".join(parts[:2]).partition("@")[0]
    return name
