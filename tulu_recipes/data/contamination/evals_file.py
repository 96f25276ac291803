"""evals.yaml: which evaluations the training rows are held against, and what a match leads to. Loads nothing.

ngram_size: 8                  # also match_threshold
tokenization: as_released      # of evaluations that name none; also threshold, below_threshold
evaluations:
  - name: gsm8k
    dataset: openai/gsm8k      # Hub id, file or folder
    config: main               # all_configs: every one there is, as one evaluation
    split: test
    fields: [question]         # nested ones with dots
    action: drop_rows          # drop_rows | drop_source | report
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.config.values import nearest
from tulu_recipes.config.yaml_lines import where_line
from tulu_recipes.errors import DataError, Problem

ALL_CONFIGS = "all_configs"
CHOICES = {
    "action": ("drop_rows", "drop_source", "report"),
    "tokenization": ("as_released", "words"),
    "below_threshold": ("drop_rows", "keep"),
}
FRACTIONS = ("threshold", "match_threshold")
COUNTS = ("ngram_size", "rows_per_config")
DEFAULTS: dict[str, Any] = {"tokenization": "as_released", "threshold": 0.02, "below_threshold": "drop_rows"}
TOP_KEYS = ("ngram_size", "match_threshold", *DEFAULTS, "evaluations")
REQUIRED = ("name", "dataset", "fields", "action")
KEYS = (*REQUIRED, "config", "split", "revision", *DEFAULTS, "rows_per_config")


@dataclass(frozen=True)
class Evaluation:
    """One evaluation. threshold: a source is contaminated above this share of items. below_threshold: see `decide`."""

    name: str
    dataset: str
    fields: tuple[str, ...]
    action: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    tokenization: str = "as_released"
    threshold: float = 0.02
    below_threshold: str = "drop_rows"
    rows_per_config: int | None = None


@dataclass(frozen=True)
class EvalsFile:
    """match_threshold: an item overlaps a row when its score is above it."""

    evaluations: tuple[Evaluation, ...]
    ngram_size: int = 8
    match_threshold: float = 0.5

    @property
    def sha256(self) -> str:
        """Of what the file means: comments, order of keys and defaults written out do not change it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def load_evals(path: str | Path) -> EvalsFile:
    """Read and check an evals file.

    Raises:
        DataError: every problem of the file, with its line.
    """
    where = str(path)
    loader = None
    try:
        loader = yaml.SafeLoader(Path(path).read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
        reader = _Reader(where, loader)
        top = reader.mapping(root, TOP_KEYS, "an evals file")
        evaluations = reader.evaluations(top)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            Problem(
                "evals-unreadable", where, f"{error}".rstrip("."), "write a YAML file with  evaluations:  and a list."
            )
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    if reader.problems:
        raise DataError(reader.problems)
    settings = {key: top[key][0] for key in ("ngram_size", "match_threshold") if key in top}
    return EvalsFile(tuple(Evaluation(**keys) for keys in evaluations), **settings)


Entries = dict[str, tuple[Any, int]]


class _Reader:
    """Turns YAML nodes into checked values; keeps what is wrong."""

    def __init__(self, path: str, loader: yaml.SafeLoader) -> None:
        self.path, self.loader = path, loader
        self.problems: list[Problem] = []

    def refuse(self, line: int, what: str, mend: str) -> None:
        self.problems.append(Problem("evals-value", where_line(self.path, line), what, mend))

    def mapping(self, node: yaml.Node | None, keys: tuple[str, ...], what: str) -> Entries:
        """Values and lines by key. Unknown and repeated keys are refused, values checked."""
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1 if node else 1
            mend = f"write  key: value  lines; the keys are {', '.join(keys)}."
            self.problems.append(
                Problem("evals-unreadable", where_line(self.path, line), f"This is not {what}.", mend)
            )
            return {}
        entries: Entries = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in keys and key not in entries:
                value = value_node if key == "evaluations" else self.loader.construct_object(value_node, deep=True)
                entries[key] = (value, line)
                self._check(key, value, line)
                continue
            near = nearest(key, keys)
            mend = f"did you mean {near}?" if near and key not in keys else f"use each of {', '.join(keys)} once."
            said = "is set twice" if key in keys else f"is no key of {what}"
            self.problems.append(Problem("evals-key", where_line(self.path, line), f"`{key}` {said}.", mend))
        return entries

    def evaluations(self, top: Entries) -> list[dict[str, Any]]:
        node, line = top.get("evaluations", (None, 1))
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            if top or not self.problems:
                self.problems.append(
                    Problem(
                        "evals-unreadable",
                        where_line(self.path, line),
                        "There is no list of `evaluations`.",
                        "write  evaluations:  and below it one  - name: …  for each.",
                    )
                )
            return []
        defaults = DEFAULTS | {key: top[key][0] for key in DEFAULTS if key in top}
        found: list[dict[str, Any]] = []
        lines: dict[str, int] = {}
        for child in node.value:
            entries = self.mapping(child, KEYS, "an evaluation")
            self._check_evaluation(entries, child.start_mark.line + 1, lines)
            keys = defaults | {key: value for key, (value, _) in entries.items()}
            fields = keys.get("fields")
            found.append(keys | {"fields": tuple(fields) if isinstance(fields, list) else fields})
        return found

    def _check_evaluation(self, entries: Entries, line: int, lines: dict[str, int]) -> None:
        missing = [key for key in REQUIRED if key not in entries]
        if missing and entries:
            said = f"The evaluation has no {', '.join(missing)}."
            self.problems.append(
                Problem("evals-key", where_line(self.path, line), said, f"write  {missing[0]}: …  into it.")
            )
        name, at = entries.get("name", (None, line))
        if isinstance(name, str):
            if name in lines:
                self.refuse(
                    at, f"The name {name} is taken by line {lines[name]}.", "give each evaluation its own name."
                )
            lines.setdefault(name, at)
        if "rows_per_config" in entries and "config" not in entries:
            self.refuse(
                entries["rows_per_config"][1],
                "rows_per_config is given without config.",
                f"write  config: {ALL_CONFIGS}",
            )

    def _check(self, key: str, value: Any, line: int) -> None:
        if key == "evaluations":
            return
        if key in CHOICES:
            if value not in CHOICES[key]:
                near = nearest(str(value), CHOICES[key])
                mend = f"write  {key}: {near}" if near else f"write one of {', '.join(CHOICES[key])}."
                self.refuse(line, f"{key} is {value!r}, which is none of {', '.join(CHOICES[key])}.", mend)
        elif key in FRACTIONS:
            if not _is_number(value) or not 0 <= value <= 1:
                self.refuse(line, f"{key} is {value!r}.", "write a fraction from 0 to 1.")
        elif key in COUNTS:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                self.refuse(line, f"{key} is {value!r}.", "write a whole number above 0.")
        elif key == "fields":
            if not isinstance(value, list) or not value or not all(isinstance(f, str) and f for f in value):
                self.refuse(line, f"fields is {value!r}.", "write a list of column names, e.g.  fields: [question]")
        elif not isinstance(value, str) or not value.strip():
            self.refuse(line, f"{key} is {value!r}, not text.", f"write  {key}: …  with a name, in quotes if need be.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def describe(evals: EvalsFile, revisions: Mapping[str, str | None], items: Mapping[str, int]) -> list[dict[str, Any]]:
    """The evaluations as a lock and a report name them: settings, commit, how many items were compared."""
    return [
        {key: value for key, value in asdict(evaluation).items() if value is not None}
        | {"revision": revisions.get(evaluation.name), "items": items[evaluation.name]}
        for evaluation in evals.evaluations
    ]
