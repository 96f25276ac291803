"""Tasks in processes: all are done, what one raises is raised, and a killed worker is said in words."""

import io
import os
import re
import signal
import time

import pytest
from rich.console import Console

from tests.data.mixing.mixes import QUIET
from tulu_recipes.data.mixing.workers import run_tasks
from tulu_recipes.errors import DataError

pytestmark = pytest.mark.integration


def one_in_three_is_killed(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def one_in_three_fails(number: int) -> int:
    if number == 1:
        raise KeyError("the row")
    return number


def test_a_killed_worker_is_named_and_a_failing_task_raises_what_it_raised() -> None:
    with pytest.raises(DataError) as refused:
        run_tasks(one_in_three_is_killed, range(3), total_rows=3, title="Testing", workers=2, console=QUIET)
    assert refused.value.slugs == ["mix-worker-killed"]
    assert "fewer  --workers" in str(refused.value)
    with pytest.raises(KeyError, match="the row"):
        run_tasks(one_in_three_fails, range(3), total_rows=3, title="Testing", workers=2, console=QUIET)


def one_row(number: int) -> int:
    time.sleep(0.02)
    return 1


def test_rows_that_were_done_before_do_not_count_for_the_speed() -> None:
    log = Console(file=io.StringIO(), width=100)
    run_tasks(one_row, range(3), total_rows=10**9 + 3, done_rows=10**9, title="Testing", workers=1, console=log)
    said = re.search(r"Testing: ([\d,]+) of ([\d,]+) rows ([\d,]+) rows/s", log.file.getvalue())  # type: ignore[attr-defined]
    assert said is not None
    done, total, speed = (int(number.replace(",", "")) for number in said.groups())
    assert done == total == 10**9 + 3
    assert 0 < speed < 100
