"""The first steps of a tiny recipe, as its own command runs them, and the record they are held to.

make golden        records them anew: only with a reason for CHANGELOG's "Changes numbers"
"""

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from tests.stage import run_here
from tulu_recipes.config.schema import keys_for

FOLDER = Path(__file__).parent
# recipe → the one whose model it starts from
CHAIN: Mapping[str, str | None] = {
    "sft": None,
    "reward": "sft",
    "dpo": "sft",
    "rlvr": "dpo",
    "rlvr-grpo": "dpo",
    "rlvr-rloo": "dpo",
}
STEPS: Mapping[str, int] = {"sft": 20, "reward": 20, "dpo": 20, "rlvr": 8, "rlvr-grpo": 4, "rlvr-rloo": 4}
SHORT = ("--logging_steps", "1", "--save_strategy", "no", "--eval_on_start", "false")
NOTHING = 1e-7  # such as the loss of a first policy step, whose gradient is not 0
SAMPLES = ("--sample_rows", "0")


@dataclass(frozen=True)
class Trajectory:
    """version, fingerprint: of the recipe. steps: what was logged at each, by name; last, the evaluation."""

    version: int
    fingerprint: str
    steps: list[dict[str, float]]


def recipe_of(name: str) -> Path:
    return Path("recipes/tiny") / f"{name}.yaml"


def stage_of(name: str) -> str:
    return name.partition("-")[0]


def run(name: str, folder: Path) -> Trajectory:
    """Train the first steps into `folder`/name; the stages it starts from are there already."""
    recipe, start, stage = recipe_of(name), CHAIN[name], stage_of(name)
    model = folder / start if start else folder / "base"
    paths = ["--output_dir", str(folder / name), "--model_name_or_path", str(model)]
    overrides = [*SHORT, *_length(name), "--eval_strategy", "no", *paths]
    if name == "rlvr":
        overrides += ["--value_model_name_or_path", str(folder / "reward")]
    result = run_here(stage, recipe, *overrides, *(SAMPLES if stage != "reward" else ()))
    if result.returncode:
        raise RuntimeError(result.stderr)
    lines = (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    version = re.search(r"^# Version +(\d+)", recipe.read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    return Trajectory(int(version[1]), fingerprint(name), [_scalars(json.loads(line)) for line in lines])


def _length(name: str) -> tuple[str, str]:
    """Online, the schedule stays that of `total_episodes`."""
    return ("--stop_after_steps" if stage_of(name) == "rlvr" else "--max_steps", str(STEPS[name]))


def _scalars(line: dict[str, float]) -> dict[str, float]:
    """Without what a clock says, in seven digits; what is 0 but for rounding is 0."""
    timed = ("_runtime", "_per_second", "step_time")
    kept = {name: value for name, value in line.items() if not name.endswith(timed)}
    return {name: value if isinstance(value, int) else _rounded(value) for name, value in kept.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.7g}") if abs(value) > NOTHING else 0.0


def fingerprint(name: str) -> str:
    """Of what the file says and the trained weights depend on."""
    keys = keys_for(stage_of(name))
    given = yaml.safe_load(recipe_of(name).read_text(encoding="utf-8"))
    science = {key: value for key, value in given.items() if keys[key].changes_weights}
    return hashlib.sha256(json.dumps(science, sort_keys=True).encode()).hexdigest()


def read(name: str) -> Trajectory:
    return Trajectory(**json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def write(name: str, found: Trajectory) -> None:
    steps = ",\n".join("  " + json.dumps(step) for step in found.steps)
    head = f' "version": {found.version},\n "fingerprint": "{found.fingerprint}",\n'
    (FOLDER / f"{name}.json").write_text("{\n" + head + ' "steps": [\n' + steps + "\n ]\n}\n", encoding="utf-8")


def differences(found: Trajectory, record: Trajectory, tolerance: float) -> list[str]:
    """Where the scalars part, in words: counts at all, numbers by `tolerance` relative to the largest of that name."""
    said = []
    if len(found.steps) != len(record.steps):
        said.append(f"{len(found.steps)} lines, recorded were {len(record.steps)}")
    largest: dict[str, float] = {}
    for step in record.steps:
        for name, value in step.items():
            largest[name] = max(largest.get(name, 0.0), abs(value))
    for here, there in zip(found.steps, record.steps, strict=False):
        if here.keys() != there.keys():
            said.append(f"step {there['step']}: other names: {sorted(here.keys() ^ there.keys())}")
        said += [
            f"step {there['step']}: {name} is {here[name]}, recorded is {there[name]}"
            for name in here.keys() & there.keys()
            if abs(here[name] - there[name]) > (0 if isinstance(there[name], int) else tolerance * largest[name])
        ]
    return said


def main(argv: list[str]) -> int:
    with TemporaryDirectory() as folder:
        for name in CHAIN:
            found: Any = run(name, Path(folder))
            write(name, found)
            print(f"{name}: {len(found.steps)} steps recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
