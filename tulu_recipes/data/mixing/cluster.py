"""The passes of a build under datatrove's executors: the same tasks, on Slurm, on Ray, or in datatrove's local pool.

On Slurm every pass is a job array that waits for the one before, and the last job puts the mix in place; the command
that submitted them has ended long before. Ray and the local pool are waited for. Logs lie in <output_dir>/.logs: the
last job removes .build while its own log is open.

The folders of mix, sources and Hugging Face cache must be on storage that every node sees: docs/mix_cluster.md.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_recipes.data.mixing.convert import convert_part
from tulu_recipes.data.mixing.executor_file import PASSES, ExecutorFile, executor_class, read_executor_file
from tulu_recipes.data.mixing.job import load_job
from tulu_recipes.data.mixing.select import select_rows
from tulu_recipes.data.mixing.workers import IMPORTED_ONCE
from tulu_recipes.data.mixing.write import shard_count, shard_name, write_shard
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.run import read_json, write_json

LOGS = ".logs"
JOBS = "jobs.json"


@dataclass(frozen=True)
class Share:
    """One task's share of a pass, called by datatrove wherever the task runs.

    folder: where the command was given. Relative paths and modules of filters are looked up from there.
    finish: puts the mix in place; of the finish pass alone.
    """

    name: str
    build: Path
    folder: Path
    finish: Callable[[], object] | None = None

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        with chdir(self.folder):
            if self.name == "convert":
                for part in load_job(self.build).parts[rank::world_size]:
                    convert_part(self.build, part)
            elif self.name == "select":
                check_done(self.build, "convert")
                select_rows(self.build)
            elif self.name == "write":
                for number in range(shard_count(self.build))[rank::world_size]:
                    write_shard(self.build, number)
            elif self.finish is not None:
                check_done(self.build, "write")
                self.finish()
                (self.build.parent / LOGS / JOBS).unlink(missing_ok=True)

    def __repr__(self) -> str:
        return f"{self.name} of {self.build}"


def check_done(build: Path, name: str) -> None:
    """Refuse to go on when tasks of the pass before have failed.

    Raises:
        DataError: mix-tasks-failed, with the folder of their logs.
    """
    if name == "convert":
        wanted = [build / "parts" / part.name for part in load_job(build).parts]
    else:
        count = shard_count(build)
        wanted = [build / "shards" / shard_name(number, count) for number in range(count)]
    missing = [path.name for path in wanted if not path.exists()]
    if missing:
        logs = build.parent / LOGS / name
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        what = f"{len(missing)} of {len(wanted)} pieces of the {name} pass were not made ({shown}): a task failed."
        mend = f"see why in {logs}, then run the same command again: finished pieces are kept."
        raise DataError(Problem("mix-tasks-failed", str(build.parent), what, mend))


@dataclass(frozen=True)
class ClusterPasses:
    """The passes as an executor file says."""

    file: ExecutorFile

    def __call__(self, build: Path, finish: Callable[[], object]) -> bool:
        """Run or submit the passes; False when they were only submitted, with `finish` in the last job."""
        # without these a failed task logs the value of every variable on its way
        os.environ.setdefault("LOGURU_DIAGNOSE", "NO")
        os.environ.setdefault("LOGURU_BACKTRACE", "NO")
        if self.file.executor == "slurm":
            self._submit(build.resolve(), finish)
            return False
        self._run(build.resolve())
        return True

    def _run(self, build: Path) -> None:
        """Pass after pass, selection in this process: it is one task, and its refusals are said here."""
        if self.file.executor == "local":
            # datatrove's; its workers need what takes seconds to import
            import multiprocess

            multiprocess.get_context("forkserver").set_forkserver_preload([IMPORTED_ONCE])
        for name in ("convert", "write"):
            arguments = self.file.arguments_of(name) | {"skip_completed": False}
            work = Share(name, build, Path.cwd())
            executor_class(self.file.executor)(
                **arguments, pipeline=[work], logging_dir=str(build.parent / LOGS / name)
            ).run()
            check_done(build, name)  # Ray only logs that a task failed
            if name == "convert":
                select_rows(build)
        shutil.rmtree(build.parent / LOGS)

    def _submit(self, build: Path, finish: Callable[[], object]) -> None:
        from tulu_recipes.data.mixing.slurm import submit

        job = load_job(build)
        submitted: list[str] = []
        for name in PASSES:
            arguments = _slurm_defaults(self.file.arguments_of(name)) | {"job_name": f"{job.mix.name}-{name}"}
            most = {"convert": len(job.parts), "select": 1, "finish": 1}.get(name)
            if most is not None:
                arguments["tasks"] = min(arguments["tasks"], most)
            work = Share(name, build, Path.cwd(), finish if name == "finish" else None)
            submitted.append(submit(self.file.path, arguments, work, build.parent / LOGS / name, submitted))
            write_json(build.parent / LOGS / JOBS, submitted)
        sys.stderr.write(f"Slurm jobs: {', '.join(map(' '.join, zip(PASSES, submitted, strict=True)))}\n")


def _slurm_defaults(arguments: dict[str, Any]) -> dict[str, Any]:
    """With this Python's programs and modules found first, and jobs ended that wait for one that failed."""
    sbatch = {"kill-on-invalid-dep": "yes"} | (arguments.get("sbatch_args") or {})
    if not any(arguments.get(key) for key in ("env_command", "condaenv", "venv_path")):
        programs, folder = shlex.quote(str(Path(sys.executable).parent)), shlex.quote(str(Path.cwd()))
        # `python -m` looks for modules where it is called; the jobs' launcher would not
        arguments = arguments | {"env_command": f'export PATH={programs}:"$PATH" PYTHONPATH={folder}:"$PYTHONPATH"'}
    return arguments | {"sbatch_args": sbatch}


def refuse_queued(output_dir: Path) -> None:
    """Keep a build out of a folder that submitted jobs are still to fill.

    Raises:
        DataError: mix-folder-busy.
    """
    path = output_dir / LOGS / JOBS
    if not path.is_file():
        return
    submitted = set(read_json(path))
    try:
        asked = subprocess.run(["squeue", "--noheader", "--me", "--format=%F"], capture_output=True, text=True)
        said = asked.stderr.strip() if asked.returncode else ""
        queued = submitted & set(asked.stdout.split())
    except FileNotFoundError:
        said, queued = "there is no squeue on this machine", set()
    if said:
        what = f"Slurm jobs were submitted for this folder, and Slurm cannot be asked whether they have ended: {said}."
        mend = f"ask where squeue works; if they have ended, remove {path}."
        raise DataError(Problem("mix-folder-busy", str(output_dir), what, mend))
    if queued:
        ids = " ".join(sorted(queued))
        what = f"Slurm jobs that build a mix in this folder are queued or running: {ids}."
        mend = f"wait for them, stop them (scancel {ids}), or name another  --output_dir."
        raise DataError(Problem("mix-folder-busy", str(output_dir), what, mend))


def read_executor(path: str) -> ClusterPasses:
    """The passes of an executor file.

    Raises:
        DataError: as read_executor_file.
    """
    return ClusterPasses(read_executor_file(path))
