"""datatrove's Slurm executor as a mix needs it. Imported only where datatrove is installed, and by the jobs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from datatrove.executor import SlurmPipelineExecutor

from tulu_recipes.errors import DataError, Problem, TuluError


class MixJobs(SlurmPipelineExecutor):  # type: ignore[misc]  # datatrove has no types
    """One pass as a job array."""

    def run(self) -> None:
        """Called in the job; what the user can mend ends its log as a message, not as a second traceback."""
        try:
            super().run()
        except TuluError as error:
            sys.exit(f"\n{error}")

    def launch_merge_stats(self) -> None:
        """Submits nothing: the passes have no statistics to merge, and the job would wait in the queue for it."""


def submit(executor_file: str, arguments: dict[str, Any], work: object, logs: Path, after: list[str]) -> str:
    """Hand one pass to Slurm, to start when the last job of `after` has succeeded; returns the job's id.

    Raises:
        DataError: there is no sbatch here, or it refused the job.
    """
    jobs = MixJobs(
        **arguments,
        pipeline=[work],
        logging_dir=str(logs),
        depends_job_id=after[-1] if after else None,
        # a task looks itself whether its output is there: that may have been deleted since it was done
        skip_completed=False,
    )
    try:
        jobs.launch_job()
    except (OSError, subprocess.CalledProcessError) as error:
        name = arguments["job_name"]
        what = f"sbatch did not take {name}: {error}; what it said stands above."
        if isinstance(error, FileNotFoundError):
            what = f"{name} cannot be submitted: there is no sbatch on this machine."
        mend = "submit where sbatch works, with a partition, qos, time and memory that the cluster has."
        if after:
            mend += f" Before that stop the jobs that it did take:  scancel {' '.join(after)}"
        raise DataError(Problem("mix-executor", executor_file, what, mend)) from error
    return str(jobs.job_id)
