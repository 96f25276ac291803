"""Reading a mix YAML: every problem at once, each with its line; nothing is loaded or asked."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.config.keys import Key
from tulu_recipes.config.surroundings import is_local, local_path, name_of_file
from tulu_recipes.config.values import nearest, plain_value, read_value, show_node
from tulu_recipes.config.yaml_lines import read_flat_yaml, where_line
from tulu_recipes.data.filters import GLOBAL_FILTERS, filter_problems
from tulu_recipes.data.mixing.mix_keys import AMOUNTS, DECONTAMINATE_KEYS, MIX_KEYS, NO_WEIGHT, SOURCE_KEYS
from tulu_recipes.errors import DataError, Problem

Node = tuple[yaml.Node, str]  # a value and where it stands


@dataclass(frozen=True)
class FilterCall:
    """A filter as a mix names it."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def as_yaml(self) -> Any:
        """As it stands in a mix file."""
        return {self.name: dict(self.params)} if self.params else self.name


@dataclass(frozen=True)
class MixSource:
    """One source as written; `where` in the file is `rows_where` here, `place` is file and line."""

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    label: str | None = None
    layout: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    keep_columns: tuple[str, ...] = ()
    rows_where: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    fraction_of_source: float | None = None
    repeat: float | None = None
    stated_rows: int | None = None
    licence: str | None = None
    filters: tuple[FilterCall, ...] = ()
    place: str = ""

    @property
    def amount(self) -> dict[str, float]:
        """The one amount that is given; empty takes every row once."""
        return {key: getattr(self, key) for key in AMOUNTS if getattr(self, key) is not None}

    @property
    def title(self) -> str:
        return self.label or self.name

    @property
    def own_label(self) -> str:
        """Value of the `source` column where neither the mix nor the row says one: no folder of this machine."""
        return local_path(self.name).name if is_local(self.name) and "://" not in self.name else self.name


@dataclass(frozen=True)
class Mix:
    """A whole mix, overlays applied."""

    path: str
    sources: tuple[MixSource, ...]  # last in `meaning`
    target: str = "sft"
    seed: int = 42
    order: str = "shuffled"
    tokenizer: str | None = None
    tokenizer_revision: str | None = None
    shard_rows: int = 50_000
    max_broken_fraction: float = 0.01
    filters: tuple[FilterCall, ...] = ()
    decontaminate: Mapping[str, str] | None = None
    limit: int | None = None  # rows of each source at most: a trial, asked for on the command line

    @property
    def name(self) -> str:
        """By its path, since many are called sft.yaml: data_mixes/tiny/sft.yaml is tiny-sft."""
        return name_of_file(self.path, "data_mixes")

    def own_filters(self) -> list[FilterCall]:
        """The filters that are functions of the user, module:function."""
        calls = (*self.filters, *(call for source in self.sources for call in source.filters))
        return [call for call in calls if ":" in call.name]

    def meaning(self) -> dict[str, Any]:
        """A mix file that says the same, without comments and overlays: equal for mixes that mean the same."""
        values = asdict(self)
        del values["path"], values["sources"]
        if self.limit is None:
            del values["limit"]
        values["filters"] = [call.as_yaml() for call in self.filters]
        values["sources"] = [_source_meaning(source) for source in self.sources]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.meaning(), sort_keys=True).encode()).hexdigest()


def _source_meaning(source: MixSource) -> dict[str, Any]:
    values = asdict(source)
    del values["place"], values["stated_rows"]
    values["where"] = values.pop("rows_where")
    values["filters"] = [call.as_yaml() for call in source.filters]
    return {key: value for key, value in values.items() if value not in (None, {}, (), [])}


def load_mix(path: str | Path) -> Mix:
    """Read and check a mix file and the files it is based on.

    Raises:
        DataError: every problem at once.
    """
    problems: list[Problem] = []
    values = _read_file(str(path), problems, ())
    if not problems and not values.get("sources"):
        problems.append(_empty(path))
    values["sources"] = tuple(values.get("sources", ()))
    mix = Mix(path=str(path), **values)
    problems += _whole_mix_problems(mix)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(problems, headline=f"{path}: {count}, nothing was loaded.")
    return mix


def _read_file(path: str, problems: list[Problem], seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file over those of its base."""
    file = read_flat_yaml(path)
    problems += file.problems
    entries = {entry.key: (entry.node, where_line(path, entry.line)) for entry in file.entries}
    if entries and not file.problems and not entries.keys() & {"sources", "base"}:
        problems.append(_empty(path))  # a recipe, most likely, of which every line would be a problem
        return {}
    values = _read_keys(entries, MIX_KEYS, problems, skip=("sources", "filters", "decontaminate", "base", "without"))
    target = values.get("target", "sft")
    base: dict[str, Any] = {}
    if file.problems:
        return values  # lines of nested values are not known where the file is no YAML
    if "base" in entries:
        base = _read_base(path, entries["base"], problems, (*seen, Path(path).resolve()))
        target = values.get("target", base.get("target", "sft"))
    if "filters" in entries:
        values["filters"] = tuple(_read_filters(entries["filters"], target, problems))
    if "decontaminate" in entries:
        values["decontaminate"] = _read_decontaminate(entries["decontaminate"], problems)
    own = tuple(_read_sources(path, entries["sources"], target, problems)) if "sources" in entries else ()
    inherited = _leave_out(base.get("sources", ()), entries.get("without"), problems)
    return {**base, **values, "sources": (*inherited, *own)}


def _empty(path: str | Path) -> Problem:
    mend = "write  sources:  with a list of  - name: …; a recipe names a mix as  dataset_mix: MIX.yaml"
    return Problem("mix-empty", str(path), "The file has no `sources`, so it is no mix.", mend)


def _read_base(path: str, given: Node, problems: list[Problem], seen: tuple[Path, ...]) -> dict[str, Any]:
    node, where = given
    base = Path(path).parent / str(node.value)
    if base.resolve() in seen:
        problems.append(Problem("mix-base", where, f"base: {node.value} leads back to this file.", "name another."))
        return {}
    return _read_file(str(base), problems, seen)


def _leave_out(sources: tuple[MixSource, ...], without: Node | None, problems: list[Problem]) -> tuple[MixSource, ...]:
    if without is None:
        return sources
    node, where = without
    names = read_value(MIX_KEYS["without"], node, where)
    if isinstance(names, Problem):
        problems.append(names)
        return sources
    for name in names:
        if not any(name in (source.name, source.label) for source in sources):
            known = [word for source in sources for word in (source.label, source.name) if word]
            near = nearest(name, known)
            mend = f"write  {near}" if near else "name a label or a name of the base's sources."
            problems.append(Problem("mix-base", where, f"without: the base has no source {name}.", mend))
    return tuple(source for source in sources if source.name not in names and source.label not in names)


def _read_keys(
    entries: Mapping[str, Node], keys: Mapping[str, Key], problems: list[Problem], skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Values by name; what is unknown or does not fit becomes a problem."""
    values = {}
    for name, (node, where) in entries.items():
        if name not in keys:
            problems.append(_unknown(name, node, where, keys))
        elif name not in skip:
            value = read_value(keys[name], node, where)
            if isinstance(value, Problem):
                problems.append(value)
            else:
                values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _unknown(name: str, node: yaml.Node, where: str, keys: Mapping[str, Key]) -> Problem:
    if name in ("weight", "weights", "fraction", "proportion", "probability", "probabilities"):
        return Problem("mix-weight", where, f"{name} cannot be said here.", NO_WEIGHT)
    near = nearest(name, list(keys))
    what = f"No such key: {name}." + (f" Nearest: {near}." if near else "")
    mend = f"write  {near}: {show_node(node)}" if near else f"use {', '.join(keys)}."
    return Problem("mix-key-unknown", where, what, mend)


def _mapping(path: str, node: yaml.Node, problems: list[Problem]) -> dict[str, Node]:
    """Entries of a nested mapping with their lines; doubled keys are refused."""
    entries: dict[str, Node] = {}
    for key_node, value in node.value:
        name, where = str(key_node.value), where_line(path, key_node.start_mark.line + 1)
        if name in entries:
            what = f"{name} is set twice in one place; YAML would silently keep the last."
            problems.append(Problem("duplicate-key", where, what, "remove one of the two."))
        else:
            entries[name] = (value, where)
    return entries


def _read_sources(path: str, given: Node, target: str, problems: list[Problem]) -> Iterator[MixSource]:
    node, where = given
    if not isinstance(node, yaml.SequenceNode):
        what = f"sources is {show_node(node)}, not a list."
        problems.append(Problem("mix-source", where, what, "write  - name: <Hub id, file or folder>  for each."))
        return
    for item in node.value:
        source = _read_source(path, item, target, problems)
        if source is not None:
            yield source


def _read_source(path: str, node: yaml.Node, target: str, problems: list[Problem]) -> MixSource | None:
    place = where_line(path, node.start_mark.line + 1)
    if not isinstance(node, yaml.MappingNode):
        what = f"A source is {show_node(node)}, not keys with values."
        problems.append(Problem("mix-source", place, what, "write  - name: <Hub id, file or folder>"))
        return None
    entries = _mapping(path, node, problems)
    values = _read_keys(entries, SOURCE_KEYS, problems, skip=("filters", "where"))
    if "name" not in entries:
        problems.append(Problem("mix-source", place, "A source has no name.", "write  name: <Hub id, file or folder>"))
    amounts = [key for key in AMOUNTS if key in entries]
    if len(amounts) > 1:
        what = f"{values.get('name')} has {' and '.join(amounts)}; they say different things."
        problems.append(Problem("mix-amount", entries[amounts[1]][1], what, "keep exactly one."))
    if "filters" in entries:
        values["filters"] = tuple(_read_filters(entries["filters"], target, problems))
    if "where" in entries:
        values["rows_where"] = _read_where(entries["where"], problems)
    return MixSource(place=place, **values) if "name" in values else None


def _read_where(given: Node, problems: list[Problem]) -> dict[str, list[Any]]:
    node, where = given
    if not isinstance(node, yaml.MappingNode) or not node.value:
        what = f"where is {show_node(node)}."
        problems.append(Problem("mix-source", where, what, "write  where: {column: value}  or  {column: [a, b]}"))
        return {}
    read = plain_value(node)
    return {column: value if isinstance(value, list) else [value] for column, value in read.items()}


def _read_filters(given: Node, target: str, problems: list[Problem]) -> Iterator[FilterCall]:
    node, where = given
    path, _, _ = where.rpartition(" line ")
    if not isinstance(node, yaml.SequenceNode):
        mend = "write one filter a line:  - characters: {max: 20000}"
        problems.append(Problem("mix-filter", where, f"filters is {show_node(node)}, not a list.", mend))
        return
    for item in node.value:
        place = where_line(path, item.start_mark.line + 1)
        call = _filter_call(item)
        if call is None:
            what = "A filter is a name, or one name with its parameters."
            problems.append(Problem("mix-filter", place, what, "write  - language: {keep: [en]}"))
            continue
        found = filter_problems(call.name, call.params, target)
        problems += [Problem("mix-filter", place, *_what_and_mend(text)) for text in found]
        yield call


def _filter_call(node: yaml.Node) -> FilterCall | None:
    if isinstance(node, yaml.ScalarNode):
        return FilterCall(str(node.value))
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        name, params = node.value[0]
        read = plain_value(params)
        if isinstance(read, dict) or read is None:
            return FilterCall(str(name.value), read or {})
    return None


def _what_and_mend(text: str) -> tuple[str, str]:
    """A filter says what is wrong, and in its last sentence how to mend it."""
    what, _, mend = text.rpartition(". ")
    return (f"{what}.", mend) if what else (text, "see docs/filters.md.")


def _read_decontaminate(given: Node, problems: list[Problem]) -> dict[str, Any] | None:
    node, where = given
    path, _, _ = where.rpartition(" line ")
    if not isinstance(node, yaml.MappingNode):
        if isinstance(node, yaml.ScalarNode) and node.value in ("", "null", "~", "false"):
            return None  # an overlay switches it off
        what, mend = f"decontaminate is {show_node(node)}.", "write  decontaminate: {against: data_mixes/evals.yaml}"
        problems.append(Problem("mix-decontaminate", where, what, mend))
        return None
    values = _read_keys(_mapping(path, node, problems), DECONTAMINATE_KEYS, problems)
    against = values.get("against")
    if against is None or not Path(against).is_file():
        what = f"decontaminate names {against or 'no evaluation list'}, which is no file."
        problems.append(Problem("mix-decontaminate", where, what, "write  against: data_mixes/evals.yaml"))
    return values


def _whole_mix_problems(mix: Mix) -> Iterator[Problem]:
    for source in mix.sources:
        yield from _amount_problems(source)
        if is_local(source.name) and "://" not in source.name and not local_path(source.name).exists():
            what = f"{source.name} does not exist; paths are relative to the current directory."
            yield Problem("path-missing", source.place, what, "check the path.")
        yield from _says_nothing(source)
        yield from _unknown_address(source)
    yield from _repeated_filters(mix)
    if mix.tokenizer is None and any(call.name == "tokens" for call in _all_filters(mix)):
        what = "The filter tokens counts tokens, but the mix names no tokenizer."
        yield Problem("mix-filter", mix.path, what, "write  tokenizer: <Hub id or folder>")


def _says_nothing(source: MixSource) -> Iterator[Problem]:
    """Keys of Hub datasets beside a local path, where they would be passed over without a word."""
    if not is_local(source.name) or "://" in source.name:
        return
    of_file = ("config",) if local_path(source.name).is_file() else ()
    for key in ("revision", *of_file):
        if getattr(source, key) is not None:
            what = f"{source.name} is on this machine; {key}: {getattr(source, key)} says nothing of it."
            yield Problem("mix-source", source.place, what, f"remove {key}, or name a Hub dataset.")


def _unknown_address(source: MixSource) -> Iterator[Problem]:
    name = source.name
    is_hub_file = name.startswith("hf://datasets/") and len(name.split("/")) > 5 and Path(name).suffix
    if "://" in name and not is_hub_file:
        what = f"{name} is no address of rows that a mix reads."
        mend = "write a Hub id, a local path, or  hf://datasets/OWNER/NAME/path/of/a/file.parquet"
        yield Problem("mix-source", source.place, what, mend)


def _amount_problems(source: MixSource) -> Iterator[Problem]:
    if source.repeat is not None and source.repeat > 1000:
        what = f"repeat: {source.repeat:g} takes every row of {source.name} over a thousand times."
        yield Problem("mix-amount", source.place, what, "if a number of rows is meant, write  rows: N")


def _all_filters(mix: Mix) -> Iterator[FilterCall]:
    yield from mix.filters
    for source in mix.sources:
        yield from source.filters


def _repeated_filters(mix: Mix) -> Iterator[Problem]:
    """Steps are told apart by name in the lock, and deduplicating twice says nothing new."""
    lists = [(mix.filters, mix.path), *((source.filters, source.place) for source in mix.sources)]
    for filters, where in lists:
        names = [call.name for call in filters]
        for name in sorted({name for name in names if name in GLOBAL_FILTERS and names.count(name) > 1}):
            yield Problem("mix-filter", where, f"The filter {name} stands twice in one list.", "keep one.")
