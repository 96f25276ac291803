"""The executor file: which of datatrove's executors runs the passes of a build, with which arguments.

executor: slurm        # slurm | ray | local
tasks: 64              # how many tasks share the parts of one pass
time: "2:00:00"        # this and all below goes to datatrove's executor as it is
partition: cpu
select: {mem_per_cpu_gb: 32}      # Slurm: other values for one pass
"""

import difflib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.errors import DataError, Problem

EXECUTORS = ("slurm", "ray", "local")
PASSES = ("convert", "select", "write", "finish")
# set by the build; skip_completed too, since a task skips what lies there, and not what was done once
_OURS = {"self", "pipeline", "logging_dir", "depends", "depends_job_id", "job_name", "skip_completed"}
_MEND = "see docs/mix_cluster.md and recipes/slurm/mix.yaml."


@dataclass(frozen=True)
class ExecutorFile:
    """arguments: of datatrove's executor. passes: other values for one pass, by its name."""

    path: str
    executor: str
    arguments: dict[str, Any]
    passes: dict[str, dict[str, Any]]

    def arguments_of(self, name: str) -> dict[str, Any]:
        return self.arguments | self.passes.get(name, {})


def read_executor_file(path: str) -> ExecutorFile:
    """An executor file.

    Raises:
        DataError: all that is wrong with it, or datatrove or Ray is not installed.
    """
    values, lines = _read(path)
    name = values.pop("executor", None)
    if name not in EXECUTORS:
        what = "executor is missing." if name is None else f"executor: {name} is unknown."
        mend = f"write  executor: {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}."
        raise DataError(Problem("mix-executor", _line(path, lines, "executor"), what, mend))
    _check_installed(path, name)
    passes = {key: values.pop(key) for key in PASSES if key in values and name == "slurm"}
    problems = list(_problems(path, lines, name, values, passes))
    if problems:
        raise DataError(problems)
    return ExecutorFile(path, name, values, passes)


def executor_class(name: str) -> Any:
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

    return {"slurm": SlurmPipelineExecutor, "ray": RayPipelineExecutor, "local": LocalPipelineExecutor}[name]


def _read(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Values and the line of each key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        root, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise DataError(Problem("mix-executor", path, f"The executor file cannot be read: {said}.", _MEND)) from error
    if not isinstance(root, yaml.MappingNode):
        what = "An executor file has  key: value  lines, executor first; this is something else."
        raise DataError(Problem("mix-executor", path, what, _MEND))
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in root.value}
    return {str(key): value for key, value in values.items()}, lines


def _line(path: str, lines: dict[str, int], key: str) -> str:
    return f"{path} line {lines[key]}" if key in lines else path


def _check_installed(path: str, name: str) -> None:
    lacking = [
        package for package in ("datatrove", "ray") if (package != "ray" or name == "ray") and not _has(package)
    ]
    if lacking:
        what = f"executor: {name} needs {' and '.join(lacking)}, not installed here."
        packages = {"datatrove": "'tulu-recipes[cluster]'", "ray": "ray"}
        mend = f"pip install {' '.join(packages[package] for package in lacking)}"
        raise DataError(Problem("mix-executor", path, what, mend))


def _has(package: str) -> bool:
    return find_spec(package) is not None


def _problems(
    path: str, lines: dict[str, int], name: str, values: dict[str, Any], passes: dict[str, Any]
) -> Iterator[Problem]:
    parameters = dict(inspect.signature(executor_class(name).__init__).parameters)
    known = {key: parameter for key, parameter in parameters.items() if key not in _OURS}
    for key, what, mend in _faults(name, known, values):
        yield Problem("mix-executor", _line(path, lines, key), what, mend)
    for part, own in passes.items():
        where = _line(path, lines, part)
        if not isinstance(own, dict):
            what = f"{part} holds the arguments that differ in that pass; {own!r} is none."
            yield Problem("mix-executor", where, what, f"write  {part}: {{mem_per_cpu_gb: 16}}")
            continue
        for _, what, mend in _faults(name, known, {str(key): value for key, value in own.items()}):
            yield Problem("mix-executor", where, f"{part}, {what}", mend)
        if "tasks" in own and part in ("select", "finish"):
            yield Problem("mix-executor", where, f"{part} is one task always.", "leave its `tasks` out.")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in values:
            what = f"{key} is missing; datatrove's {name} executor needs it."
            yield Problem("mix-executor", path, what, f"write  {key}: {_EXAMPLES.get(key, '…')}")


_EXAMPLES = {"tasks": "64", "time": '"2:00:00"', "partition": "cpu"}


def _faults(name: str, known: dict[str, inspect.Parameter], values: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(key, what, mend) of each argument that datatrove would not take, or would take for something else."""
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            reason = "is set by the build" if key in _OURS else f"is no argument of datatrove's {name} executor"
            yield key, f"{key} {reason}.", f"did you mean {near[0]}?" if near else f"remove it; {_MEND}"
        elif key == "time" and name == "slurm" and not isinstance(value, str):
            what = f"time: {value} is a number here; unquoted, YAML reads 2:00:00 as 7200, for Slurm 7200 minutes."
            yield key, what, 'write it in quotes:  time: "2:00:00"'
        elif not _fits(key, value, known[key].default):
            kind, example = _KINDS[type(known[key].default)]
            yield key, f"{key}: {value!r} is not {kind}.", f"write  {key}: {_EXAMPLES.get(key, example)}"


_KINDS: dict[type, tuple[str, str]] = {bool: ("true or false", "true"), int: ("a whole number from 1 on", "1")}
_KINDS |= {float: ("a number", "2"), str: ("text", "…"), type: ("a whole number from 1 on", "1")}


def _fits(key: str, value: Any, default: Any) -> bool:
    """Whether a value is of its argument's kind, as its default tells."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key == "tasks":
        return number and isinstance(value, int) and value >= 1
    if key in ("workers", "max_array_size"):
        return number and isinstance(value, int) and (value >= 1 or value == -1)
    if key == "mem_per_cpu_gb":
        return number and value > 0
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int):
        return number and isinstance(value, int)
    return True
