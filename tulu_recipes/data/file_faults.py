"""What is wrong with a file of rows that cannot be read, by line where it has lines."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SHOWN_LINES = 10
RowFault = Callable[[dict[str, Any]], str | None]


def check_utf8(path: Path) -> None:
    """Arrow reads other encodings without a word, and fails on the first access to the row."""
    with path.open(encoding="utf-8") as file:
        while file.read(1 << 20):
            pass


def faulty_lines(path: Path, row_fault: RowFault) -> Iterator[str]:
    """The first lines of a JSONL file that are no rows, each with what is wrong."""
    shown = 0
    with path.open("rb") as lines:
        if lines.read(64).lstrip().startswith(b"["):  # one list over many lines
            yield from filter(None, [_list_fault(path)])
            return
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            fault = _line_fault(line, row_fault)
            if fault:
                yield f"line {number}: {fault}"
                shown += 1
            if shown == SHOWN_LINES:
                return


def _list_fault(path: Path) -> str | None:
    """What is wrong with a file that is one JSON list."""
    try:
        rows = json.loads(path.read_bytes())
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg} at line {error.lineno} column {error.colno})"
    return None if rows else "an empty list"


def _line_fault(line: bytes, row_fault: RowFault) -> str | None:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg} at column {error.colno})" if line.strip() else "empty line"
    except RecursionError:
        return "nested too deep"
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "half of a character (a lone surrogate such as \\ud83d)"
    return row_fault(row) if isinstance(row, dict) else "not an object"


def column_changes(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    changes = [f"{name} is missing" for name in sorted(before.keys() - after.keys())]
    changes += [f"{name} is new" for name in sorted(after.keys() - before.keys())]
    both = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    return "; ".join([*changes, *(f"{name} is {after[name]}, not {before[name]}" for name in both)])
