"""Running the tasks of a pass, in this process or in a pool, with a bar of rows per second and time left."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from tulu_recipes.errors import DataError, Problem

T = TypeVar("T")
R = TypeVar("R")
# what every worker needs takes seconds to import: the server does it, and its forks have it
IMPORTED_ONCE = "tulu_recipes.data.mixing.convert"


def default_workers() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    work: Callable[[T], int],
    tasks: Sequence[T],
    *,
    total_rows: int,
    title: str,
    workers: int,
    console: Console,
    done_rows: int = 0,
) -> None:
    """Do every task; `work` returns the rows it did.

    Args:
        done_rows: those of tasks that were done before and are not among `tasks`: they do not count for the speed.
    Raises:
        DataError: as `results`.
    """
    with progress_bar(console) as bar:
        task_id = bar.add_task(title, total=total_rows, completed=done_rows, before=done_rows)
        for _, rows in results(work, tasks, workers):
            bar.advance(task_id, rows)
        bar.update(task_id, completed=total_rows)


def results(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, *, begin: Callable[[], object] | None = None
) -> Iterator[tuple[int, R]]:
    """The number of each task and what `work` returns for it, in the order in which they are done.

    Args:
        begin: called once in each process, before its first task.
    Raises:
        DataError: a worker was killed, by the system for want of memory most likely. What tasks raise is raised.
    """
    if workers <= 1 or len(tasks) <= 1:
        if begin is not None:
            begin()
        yield from enumerate(map(work, tasks))
        return
    # forked processes would inherit the threads of Arrow and the tokenizers in mid-work
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload([IMPORTED_ONCE])
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _begin, (begin,)) as pool:
        numbers = {pool.submit(work, task): number for number, task in enumerate(tasks)}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BrokenProcessPool as error:
            what = (
                "A worker process died: killed by the system because memory ran out, most likely, or unable to start."
            )
            mend = (
                "run the same command again, with fewer  --workers: finished parts of a mix are kept. A script of "
                'your own needs  if __name__ == "__main__":  around the build.'
            )
            raise DataError(Problem("mix-worker-killed", "", what, mend)) from error
        except KeyboardInterrupt:
            for worker in set(multiprocessing.active_children()) - before:
                worker.terminate()  # half a part is no part: there is nothing to wait for
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(begin: Callable[[], object] | None) -> None:
    _end_with_parent()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    """In a worker: end when the command that started it does, by a kill for example; it would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the command sees to it
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_wait_and_exit, args=(parent.sentinel,), daemon=True).start()


def _wait_and_exit(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


class RowsPerSecond(ProgressColumn):
    """Rows done in a second since the start; tasks are too few and too large for a rate of the last while."""

    def render(self, task: Task) -> Text:
        rows = task.completed - task.fields.get("before", 0)
        return Text(f"{rows / task.elapsed:,.0f} rows/s" if rows and task.elapsed else "", style="progress.data.speed")


def progress_bar(console: Console) -> Progress:
    """A bar on the terminal; in a log file one line a finished pass, without control characters."""
    if not console.is_terminal:
        return Progress(
            TextColumn("{task.description}: {task.completed:,.0f} of {task.total:,.0f} rows"),
            RowsPerSecond(),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        RowsPerSecond(),
        TimeRemainingColumn(),
        console=console,
    )
