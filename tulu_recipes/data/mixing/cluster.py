"""The passes of a build under datatrove's executors: the same tasks, on Slurm, on Ray, or in datatrove's local pool.

The executor file names one of them and its arguments, which go to datatrove as they are:

    executor: slurm        # slurm | ray | local
    tasks: 64              # how many jobs share the parts of one pass
    time: "2:00:00"
    partition: cpu

The folders of mix, sources and Hugging Face cache must be on storage that every node sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.data.mixing.convert import convert_part
from tulu_recipes.data.mixing.job import load_job
from tulu_recipes.data.mixing.select import select_rows
from tulu_recipes.data.mixing.write import shard_count, write_shard
from tulu_recipes.errors import DataError, Problem

EXECUTORS = ("slurm", "ray", "local")


def convert_share(data: Any, rank: int, world_size: int, *, build: Path) -> None:
    """The parts of one datatrove task."""
    for part in load_job(build).parts[rank::world_size]:
        convert_part(build, part)


def select_share(data: Any, rank: int, world_size: int, *, build: Path) -> None:
    select_rows(build)


def write_share(data: Any, rank: int, world_size: int, *, build: Path) -> None:
    for number in range(shard_count(build))[rank::world_size]:
        write_shard(build, number)


def finish_share(data: Any, rank: int, world_size: int, *, finish: Callable[[], object]) -> None:
    finish()


@dataclass(frozen=True)
class ClusterPasses:
    """executor: of EXECUTORS. arguments: of datatrove's executor class, `tasks` among them."""

    executor: str
    arguments: dict[str, Any]

    def __call__(self, build: Path, finish: Callable[[], object]) -> bool:
        """Run or submit the passes; False when they were only submitted, with `finish` as the last job."""
        build = build.resolve()
        tasks = int(self.arguments.get("tasks", 1))
        steps: list[tuple[str, Any, int]] = [
            ("convert", partial(convert_share, build=build), tasks),
            ("select", partial(select_share, build=build), 1),
            ("write", partial(write_share, build=build), tasks),
        ]
        waits = self.executor != "slurm"
        if not waits:
            steps.append(("finish", partial(finish_share, finish=finish), 1))
        previous = None
        for name, work, count in steps:
            more = {"job_name": f"mix-{name}"} if self.executor == "slurm" else {}
            previous = _executor_class(self.executor)(
                **(self.arguments | {"tasks": count} | more),
                pipeline=[work],
                logging_dir=str(build / "logs" / name),
                depends=previous,
            )
        assert previous is not None
        previous.run()  # launches what it depends on first
        return waits


def _executor_class(name: str) -> Any:
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

    return {"slurm": SlurmPipelineExecutor, "ray": RayPipelineExecutor, "local": LocalPipelineExecutor}[name]


def read_executor(path: str) -> ClusterPasses:
    """An executor file.

    Raises:
        DataError: it is no such file, or datatrove (or Ray) is not installed.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        name = values.pop("executor")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError) as error:
        raise DataError(_refused(path, f"It is no executor file ({type(error).__name__}: {error}).")) from error
    if name not in EXECUTORS:
        raise DataError(_refused(path, f"executor: {name} is not one of {', '.join(EXECUTORS)}."))
    if not isinstance(values.get("tasks", 1), int) or values.get("tasks", 1) < 1:
        raise DataError(_refused(path, f"tasks: {values['tasks']} is no number of tasks."))
    lacking = _lacking_package(name)
    if lacking:
        what, mend = f"executor: {name} needs {lacking}, which is not installed.", f"pip install {lacking}"
        raise DataError(Problem("mix-executor", path, what, mend))
    _check_arguments(path, name, values)
    return ClusterPasses(name, values)


def _lacking_package(name: str) -> str | None:
    from importlib.util import find_spec

    if find_spec("datatrove") is None:
        return "'tulu-recipes[cluster]'"
    return "ray" if name == "ray" and find_spec("ray") is None else None


def _check_arguments(path: str, name: str, values: dict[str, Any]) -> None:
    import inspect

    parameters = inspect.signature(_executor_class(name).__init__).parameters
    ours = {"self", "pipeline", "logging_dir", "depends", "job_name"}
    unknown = sorted(values.keys() - (parameters.keys() - ours))
    needed = {key for key, value in parameters.items() if value.default is inspect.Parameter.empty}
    missing = sorted(needed - ours - values.keys())
    if unknown or missing:
        faults = [f"{word} is no argument of it" for word in unknown] + [f"{word} is missing" for word in missing]
        raise DataError(_refused(path, f"For datatrove's {name} executor: {'; '.join(faults)}."))


def _refused(path: str, what: str) -> Problem:
    return Problem("mix-executor", path, what, "see recipes/slurm/mix.yaml and docs/mix.md.")
