"""The bundled chat rows: small tasks with one right answer, for the demo and the tests.

Four kinds of question that a model of under a million parameters learns in two minutes on two CPU cores.
A question is held out as a whole: no training row asks it in the same words, but its phrasing and its
arguments each occur in other questions, so the right answer needs the combination of both.

    python -m tulu_recipes.demo.rows            rewrites data_mixes/tiny/*.jsonl, the same bytes every time
"""

import argparse
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

SEED = 20_251
TRAIN_ROWS = 3600
HELDOUT_ROWS = 96
TRAIN_FILE = "sft.jsonl"
HELDOUT_FILE = "sft_heldout.jsonl"

# A system turn that changes every answer of its conversation by one final character.
STYLES = {
    "End every answer with a full stop.": ".",
    "End every answer with an exclamation mark.": "!",
}

CAPITALS = {
    "Austria": "Vienna", "Chile": "Santiago", "Cuba": "Havana", "Denmark": "Copenhagen", "Egypt": "Cairo",
    "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin", "Greece": "Athens", "Hungary": "Budapest",
    "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi", "Norway": "Oslo",
    "Peru": "Lima", "Poland": "Warsaw", "Portugal": "Lisbon", "Spain": "Madrid", "Sweden": "Stockholm",
}  # fmt: skip
OPPOSITES = {
    "big": "small", "cold": "hot", "dark": "light", "dry": "wet", "early": "late", "empty": "full",
    "far": "near", "fast": "slow", "hard": "soft", "high": "low", "long": "short", "loud": "quiet",
    "new": "old", "open": "closed", "rich": "poor", "right": "wrong", "sad": "happy", "thick": "thin",
    "weak": "strong", "young": "old",
}  # fmt: skip
WORDS = [
    "ant", "apple", "bag", "ball", "bell", "bird", "boat", "book", "bread", "cat", "chair", "clock", "cloud",
    "coat", "cow", "cup", "desk", "dog", "door", "drum", "egg", "fish", "flag", "fox", "frog", "goat", "hat",
    "hen", "horse", "house", "jam", "key", "kite", "lamp", "leaf", "lion", "map", "moon", "mouse", "nail", "nest",
    "owl", "pan", "pear", "pen", "pig", "plate", "rain", "ring", "road", "rose", "salt", "ship", "shoe", "snow",
    "sock", "star", "sun", "tent", "tree", "wolf",
]  # fmt: skip
SPELLED = [word for word in WORDS if len(word) <= 4]

CAPITAL_PHRASINGS = (
    "What is the capital of {0}?",
    "Name the capital of {0}.",
    "Which city is the capital of {0}?",
    "The capital of {0}, please.",
    "Tell me the capital city of {0}.",
)
OPPOSITE_PHRASINGS = (
    "What is the opposite of {0}?",
    "Name the opposite of {0}.",
    "Which word means the opposite of {0}?",
    "The opposite of {0}, please.",
    "Tell me a word that is not {0} but the opposite.",
)
SUM_PHRASINGS = (
    "What is {0} + {1}?",
    "Add {0} and {1}.",
    "Tell me what {0} plus {1} is.",
    "Compute {0} + {1}.",
    "How much is {0} plus {1}?",
)
SPELL_PHRASINGS = (
    "Spell {0}.",
    "How do you spell {0}?",
    "Give the letters of {0}.",
    "Write {0} letter by letter.",
)
COUNT_PHRASINGS = (
    "Count from {0} to {1}.",
    "Write the numbers from {0} to {1}.",
    "Start at {0} and count until {1}.",
    "Which numbers lead from {0} to {1}?",
)
LARGEST_COUNT = 20


class Message(TypedDict):
    role: str
    content: str


class Row(TypedDict):
    """One conversation in the layout of the Tülu 3 SFT mixture."""

    id: str
    messages: list[Message]
    source: str


@dataclass(frozen=True)
class Question:
    source: str
    text: str
    answer: str


def build_questions() -> list[Question]:
    """Every question of the demo once, grouped by source."""
    tables = ((CAPITALS, CAPITAL_PHRASINGS), (OPPOSITES, OPPOSITE_PHRASINGS))
    facts = [
        Question("tiny-facts", phrasing.format(key), answer)
        for table, phrasings in tables
        for key, answer in table.items()
        for phrasing in phrasings
    ]
    sums = [
        Question("tiny-sums", phrasing.format(a, b), str(a + b))
        for a in range(10)
        for b in range(10)
        for phrasing in SUM_PHRASINGS
    ]
    spelling = [
        Question("tiny-spelling", phrasing.format(word), " ".join(word))
        for word in SPELLED
        for phrasing in SPELL_PHRASINGS
    ]
    counting = [
        Question("tiny-counting", phrasing.format(start, end), " ".join(map(str, _numbers_between(start, end))))
        for start in range(LARGEST_COUNT + 1)
        for end in range(LARGEST_COUNT + 1)
        if 2 <= abs(end - start) <= 5
        for phrasing in COUNT_PHRASINGS
    ]
    return [*facts, *sums, *spelling, *counting]


def _numbers_between(start: int, end: int) -> range:
    """Upwards or downwards, both ends included."""
    step = 1 if end >= start else -1
    return range(start, end + step, step)


def build_row(row_id: str, questions: list[Question], style: str | None) -> Row:
    """One conversation; its source is that of its last question, the one a held-out row is scored on."""
    messages: list[Message] = []
    if style is not None:
        messages.append({"role": "system", "content": style})
    ending = STYLES[style] if style is not None else ""
    for question in questions:
        messages.append({"role": "user", "content": question.text})
        messages.append({"role": "assistant", "content": question.answer + ending})
    return {"id": row_id, "messages": messages, "source": questions[-1].source}


def build_rows(seed: int = SEED) -> tuple[list[Row], list[Row]]:
    """The training rows and the held-out rows, the same for the same seed on every machine.

    Each source has the same share of both sets. A quarter of the rows have a system turn, and a quarter have two or
    three question turns. No question of a held-out row, in any turn, is a question of a training row.
    """
    rng = random.Random(seed)
    train_pool: dict[str, list[Question]] = {}
    heldout_pool: dict[str, list[Question]] = {}
    by_source: dict[str, list[Question]] = {}
    for question in build_questions():
        by_source.setdefault(question.source, []).append(question)
    for source, questions in by_source.items():
        rng.shuffle(questions)
        cut = len(questions) // 5
        heldout_pool[source], train_pool[source] = questions[:cut], questions[cut:]
    train = _draw_rows(rng, train_pool, TRAIN_ROWS, "tiny-train")
    heldout = _draw_rows(rng, heldout_pool, HELDOUT_ROWS, "tiny-heldout")
    return train, heldout


def _draw_rows(rng: random.Random, pool: dict[str, list[Question]], num_rows: int, prefix: str) -> list[Row]:
    rows: list[Row] = []
    sources = sorted(pool)
    seen: set[str] = set()
    while len(rows) < num_rows:
        last = rng.choice(pool[sources[len(rows) % len(sources)]])
        earlier = [rng.choice(pool[rng.choice(sources)]) for _ in range(rng.choice((0, 0, 1)))]
        style = rng.choice((None, None, None, *STYLES)) if rng.random() < 0.6 else None
        row = build_row(f"{prefix}-{len(rows):04d}", [*earlier, last], style)
        key = json.dumps(row["messages"])
        if key not in seen:
            seen.add(key)
            rows.append(row)
    rng.shuffle(rows)
    return rows


def render_jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(folder: str | Path) -> None:
    """Write both files into `folder`, which is made if needed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train, heldout = build_rows()
    for name, rows in ((TRAIN_FILE, train), (HELDOUT_FILE, heldout)):
        (folder / name).write_text(render_jsonl(rows), encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.demo.rows", description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", default="data_mixes/tiny", help="default: %(default)s")
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
