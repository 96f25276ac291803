"""The bundled rows of the tiny mixes beside sft.jsonl: preference pairs, prompts with a known answer, an evaluation.

All of them are made from the bundled chat rows, so the later stages practise what the first one taught:
preference.jsonl sets the right answer against a wrong one, rlvr.jsonl keeps questions whose answer is a number, and
heldout_questions.jsonl is the held-out rows as an evaluation that a mix can be decontaminated against.

    python -m tulu_recipes.demo.mix_rows        rewrites those files in data_mixes/tiny, the same bytes every time
"""

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tulu_recipes.demo import rows

SEED = 20_252
PREFERENCE_ROWS = 400
RLVR_ROWS = 240
PREFERENCE_FILE = "preference.jsonl"
RLVR_FILE = "rlvr.jsonl"
EVALUATION_FILE = "heldout_questions.jsonl"


def build_preference_rows(chat: Sequence[rows.Row], seed: int = SEED) -> list[dict[str, Any]]:
    """Pairs in the published Tülu 3 layout: `prompt` is the last user turn, both answers are whole conversations.

    The rejected answer is right for another question of the same source, and ends as the system turn demands: what
    tells the two apart is the answer alone.
    """
    rng = random.Random(seed)
    answers: dict[str, list[str]] = {}
    for row in chat:
        answers.setdefault(row["source"], []).append(_answer(row))
    pool = {source: sorted(set(found)) for source, found in answers.items()}
    pairs = []
    for number, row in enumerate(rng.sample(list(chat), PREFERENCE_ROWS)):
        right = row["messages"][-1]["content"]
        wrong = rng.choice([answer for answer in pool[row["source"]] if answer != _answer(row)])
        ending = right.removeprefix(_answer(row))
        rejected = [*row["messages"][:-1], {"role": "assistant", "content": wrong + ending}]
        pair = {"prompt": row["messages"][-2]["content"], "chosen": row["messages"], "rejected": rejected}
        pairs.append({"id": f"tiny-preference-{number:04d}", **pair, "source": row["source"]})
    return pairs


def build_rlvr_rows(chat: Sequence[rows.Row], seed: int = SEED) -> list[dict[str, Any]]:
    """Sums in the published RLVR layout; `dataset` is gsm8k, as their verifier compares the last number."""
    sums = {row["messages"][-2]["content"]: _answer(row) for row in chat if row["source"] == "tiny-sums"}
    drawn = random.Random(seed).sample(sorted(sums), RLVR_ROWS)
    return [
        {"messages": [{"role": "user", "content": question}], "ground_truth": sums[question], "dataset": "gsm8k"}
        for question in drawn
    ]


def build_evaluation_rows(heldout: Iterable[rows.Row]) -> list[dict[str, Any]]:
    """The question that each held-out row is scored on, once."""
    asked = {row["messages"][-2]["content"]: _answer(row) for row in heldout}
    return [{"question": question, "answer": answer} for question, answer in asked.items()]


def _answer(row: rows.Row) -> str:
    """The last answer without the final character that a system turn asked for."""
    answer = row["messages"][-1]["content"]
    first = row["messages"][0]
    return answer[:-1] if first["role"] == "system" else answer


def write(folder: str | Path) -> None:
    """Write the three files into `folder`, which is made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = rows.build_rows()
    files = {
        PREFERENCE_FILE: build_preference_rows(train),
        RLVR_FILE: build_rlvr_rows(train),
        EVALUATION_FILE: build_evaluation_rows(heldout),
    }
    for name, content in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.demo.mix_rows", description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", default="data_mixes/tiny", help="default: %(default)s")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
