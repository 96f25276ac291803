"""`make demo`: the whole pipeline by its own command, and what each stage must have learned."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stage import QUIET

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_learns(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    shutil.copytree(ROOT / "data_mixes", tmp_path / "data_mixes")
    environ = os.environ | QUIET | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tulu_recipes.demo"], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    before, after = re.findall(r"held-out exact match ([\d.]+) -> ([\d.]+)", done.stdout)[0]
    assert float(before) < 0.05
    assert float(after) > 0.5
    ranked = re.findall(r"held-out pairs ranked rightly ([\d.]+)", done.stdout)
    assert [float(share) > 0.8 for share in ranked] == [True, True], "reward model and DPO"
    right, ending, asked = [
        tuple(map(float, line.split()[-2:])) for line in done.stdout.partition("SFT    DPO\n")[2].splitlines()[:3]
    ]
    assert right[1] >= 0.9 * right[0]
    assert (ending[0], ending[1] > 0.8, asked[1] > 0.8) == (0.0, True, True)
    verified = re.findall(r"held-out answers verified ([\d.]+) -> ([\d.]+)", done.stdout)[0]
    assert float(verified[1]) > float(verified[0]) + 0.1
    shares = done.stdout.partition("DPO     RLVR\n")[2].splitlines()[0].split()[-3:]
    assert shares[1:] == list(verified), "DPO and RLVR of the table"
    reports = re.findall(r"\S*report\.md|\S*behaviour\.png", done.stdout.partition("Done.")[2])
    assert len(reports) == 5
    assert [(tmp_path / report).is_file() for report in reports] == [True] * 5
