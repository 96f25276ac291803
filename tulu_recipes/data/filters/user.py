"""A filter of the user's own: `module:function`, called with one canonical row.

The function returns True or None to keep the row, False or a reason in words to drop it.
"""

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu_recipes.data.filters.kinds import RowFilter
from tulu_recipes.errors import DataError, Problem

LONGEST_REASON = 80  # characters: reasons are counted, so they must not hold the row


def name_problems(name: str) -> list[str]:
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        return []
    return [f"{name!r} is no module:function. Write it as in my_package.my_filters:polite."]


def source_sha256(name: str) -> str:
    """Hash of the file that holds the function, so that a change of it is noticed.

    Raises:
        DataError: there is no such module, or it has no file.
    """
    module_name = name.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        what = f"There is no file of the module {module_name}."
        raise _fault(name, what, "check the spelling, and that it can be imported where the mix runs (PYTHONPATH).")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def load(name: str, params: Mapping[str, Any]) -> RowFilter:
    """The function as a filter; params are passed to it by name after the row.

    Raises:
        DataError: there is no such module or function; while filtering: it raised, or returned something else.
    """
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise _fault(
            name,
            f"It cannot be loaded: {error}.",
            "check the spelling, and that the module can be imported where the mix runs (PYTHONPATH).",
        ) from error
    if not callable(function):
        raise _fault(name, "It is not a function.", "name a function that takes one row.")

    def ask(row: dict[str, Any]) -> str | None:
        try:
            answer = function(row, **params)
        except Exception as error:
            raise _fault(
                name,
                f"It raised {type(error).__name__}: {error}",
                "mend the function; a row it cannot judge should be dropped with a reason.",
            ) from error
        if answer is None or answer is True:
            return None
        if answer is False:
            return "dropped"
        if isinstance(answer, str) and answer.strip():
            return answer[:LONGEST_REASON]
        raise _fault(
            name,
            f"It returned {type(answer).__name__}.",
            "return True or None to keep a row, False or a reason in words to drop it.",
        )

    return ask


def _fault(name: str, what: str, mend: str) -> DataError:
    return DataError(Problem("filter-function", f"filter {name}", what, mend))
