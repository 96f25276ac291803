"""A flat YAML file, key by key, with the line of each.

PyYAML's composer gives nodes with positions before any value is guessed, so that `no`, `5e-6` or `1e10`
can be read as the key expects. When the file is not valid YAML, its top-level entries are read one by
one: one broken line does not hide the problems of the others.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tulu_recipes.errors import Problem

# A recipe is a page; anything larger is another file given by mistake, and would take seconds to parse.
MAX_BYTES = 64_000


@dataclass(frozen=True)
class Entry:
    """One `key: value`; line counts from 1; key_text is what stands in the file."""

    key: str
    node: yaml.Node
    line: int


@dataclass(frozen=True)
class ParsedFile:
    """unreadable: names of keys whose lines could not be parsed, so that nobody calls them missing."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]
    text: str
    unreadable: frozenset[str] = frozenset()


def where_line(path: str, line: int) -> str:
    return f"{path} line {line}"


def read_flat_yaml(path: str) -> ParsedFile:
    """The file's entries in order, and a problem for each thing that is not a `key: value`."""
    text = _read_text(path)
    if isinstance(text, Problem):
        return ParsedFile((), (text,), "")
    try:
        root = _compose(text)
    except (yaml.YAMLError, RecursionError) as error:
        entries, problems, unreadable = _read_in_pieces(path, text, error)
    else:
        if root is None:
            return ParsedFile((), (_empty(path),), text)
        if not isinstance(root, yaml.MappingNode):
            return ParsedFile((), (_not_a_mapping(path, root),), text)
        entries, problems, unreadable = list(_entries(root, 0)), [], set()
    kept, duplicates = _refuse_duplicates(path, entries)
    return ParsedFile(tuple(kept), (*problems, *duplicates), text, frozenset(unreadable))


def compose_scalar(text: str) -> yaml.Node | Problem:
    """A command-line value as a YAML node; what is no YAML by itself is plain text."""
    try:
        node = _compose(text)
    except (yaml.YAMLError, RecursionError):
        node = None
    if node is None or (isinstance(node, yaml.MappingNode) and not text.lstrip().startswith("{")):
        # "a: b" and "# b" are text on a command line; only a flow mapping {...} is meant as one
        style = None if not text.strip() else "'"
        return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)
    return node


def _read_text(path: str) -> str | Problem:
    file = Path(path)
    if not file.exists():
        return _missing(path)
    if file.is_dir():
        found = sorted(file.glob("*.yaml"))[:5]
        names = ", ".join(entry.name for entry in found) or "no YAML files"
        return Problem(
            "recipe-unreadable",
            path,
            f"This is a folder with {names}.",
            f"name the file, e.g. {path.rstrip('/')}/sft.yaml",
        )
    try:
        if file.stat().st_size > MAX_BYTES:
            size = file.stat().st_size
            return Problem(
                "recipe-unreadable",
                path,
                f"The file has {size:,} bytes: a recipe has a few thousand.",
                "check that this is the recipe and not its data.",
            )
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        return Problem(
            "recipe-not-utf8",
            where_line(path, line),
            f"Byte {error.start:,} (0x{error.object[error.start]:02x}) is not UTF-8.",
            f"save the file as UTF-8, e.g.  iconv -f latin1 -t utf-8 {path}",
        )
    except OSError as error:
        return Problem("recipe-unreadable", path, f"{error.strerror}.", "check the file's permissions.")


def _missing(path: str) -> Problem:
    folder = Path(path).parent
    there = [str(folder / entry.name) for entry in sorted(folder.glob("*.y*ml"))] if folder.is_dir() else []
    near = difflib.get_close_matches(path, there, n=1, cutoff=0.5) or there[:1]
    here = "" if folder.is_dir() else f" Neither does the folder {folder}."
    mend = f"did you mean {near[0]}?" if near else "check the path; it is relative to the current directory."
    return Problem("recipe-missing", path, f"The file does not exist.{here}", mend)


def _empty(path: str) -> Problem:
    return Problem(
        "recipe-empty", path, "The file holds no key.", "start from a shipped one, e.g. recipes/tiny/sft.yaml"
    )


def _not_a_mapping(path: str, root: yaml.Node) -> Problem:
    what = "a list" if isinstance(root, yaml.SequenceNode) else "plain text"
    line = root.start_mark.line + 1
    return Problem(
        "recipe-not-a-mapping",
        where_line(path, line),
        f"The file is {what}, not keys with values.",
        "write one  key: value  per line, with a space after the colon.",
    )


class _AliasError(yaml.MarkedYAMLError):
    """Anchors and aliases: a flat file needs none, and they can hide a value far from its key."""


class _Loader(yaml.SafeLoader):
    """Composes as SafeLoader does, without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise _AliasError(problem=f"the alias *{event.anchor}", problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _entries(root: yaml.MappingNode, line_offset: int) -> Iterator[Entry]:
    for key_node, value_node in root.value:
        name = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(yaml.serialize(key_node)).strip()
        yield Entry(name, value_node, key_node.start_mark.line + 1 + line_offset)


def _read_in_pieces(path: str, text: str, error: Exception) -> tuple[list[Entry], list[Problem], set[str]]:
    entries: list[Entry] = []
    problems: list[Problem] = []
    unreadable: set[str] = set()
    for first_line, piece in _pieces(text):
        try:
            root = _compose(piece)
        except (yaml.YAMLError, RecursionError) as piece_error:
            problems.append(_syntax_problem(path, piece, piece_error, first_line))
            unreadable.add(_first_word(piece))
            continue
        if isinstance(root, yaml.MappingNode):
            entries += _entries(root, first_line)
        elif root is not None:
            problems.append(_no_colon(path, piece, first_line))
            unreadable.add(_first_word(piece))
    # what is only wrong as a whole, e.g. a second document
    return entries, problems or [_syntax_problem(path, text, error, 0)], unreadable


def _first_word(piece: str) -> str:
    match = re.search(r"^[\"']?(\w+)", piece, re.MULTILINE)
    return match[1] if match else ""


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """(lines before it, text) of each top-level entry with the indented lines that belong to it."""
    piece: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines()):
        if re.match(r"[^\s#\-\]}]", line) and piece:
            yield start, "\n".join(piece)
            piece = []
        if not piece:
            start = number
        piece.append(line)
    if piece:
        yield start, "\n".join(piece)


def _syntax_problem(path: str, text: str, error: Exception, line_offset: int) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        said = str(error).splitlines()[0] if isinstance(error, yaml.YAMLError) else "brackets are nested too deeply"
        return Problem("yaml-syntax", where_line(path, line_offset + 1), f"Not YAML: {said}.", "rewrite the line.")
    # the scanner notices at the end of a broken entry; the context is where it began
    second_document = "another document" in (error.problem or "")
    mark = error.problem_mark if error.context_mark is None or second_document else error.context_mark
    lines = text.splitlines() or [""]
    number = min(mark.line, len(lines) - 1)
    where = where_line(path, number + 1 + line_offset)
    if isinstance(error, _AliasError):
        return Problem(
            "yaml-alias", where, f"Recipes have no aliases, but here is {error.problem}.", "write the value itself."
        )
    said = error.problem or error.context or "it cannot be parsed"
    tab = next((offset for offset, line in enumerate(lines) if re.match(r"\s*\t", line) or ":\t" in line), None)
    if "\\t" in said and tab is not None:
        where = where_line(path, tab + 1 + line_offset)
        return Problem("yaml-syntax", where, "YAML does not allow tabs here.", "use spaces.")
    return Problem(
        "yaml-syntax", where, f"Not YAML: {said}, in  {lines[number].strip()}", _syntax_mend(lines[number], said)
    )


def _syntax_mend(line: str, said: str) -> str:
    if line.count('"') % 2 or line.count("'") % 2:
        return "close the quote."
    if line.count("[") != line.count("]") or line.count("{") != line.count("}"):
        return "close the bracket."
    if "another document" in said:
        return "remove the line ---; a recipe is one document."
    if "mapping values are not allowed" in said:
        return "put a value with a colon in quotes; keys of one level start in the same column."
    return "write one  key: value  per line; quote text that starts with a special character."


def _no_colon(path: str, piece: str, line_offset: int) -> Problem:
    line = piece.splitlines()[0].split(" #")[0].strip()
    match = re.match(r"([A-Za-z_]\w*)\s*[:=\s]\s*(.*)", line)
    mend = f"write  {match[1]}: {match[2]}" if match and match[2] else "write  key: value"
    return Problem("yaml-syntax", where_line(path, line_offset + 1), f"Not a  key: value  line:  {line}", mend)


def _refuse_duplicates(path: str, entries: list[Entry]) -> tuple[list[Entry], list[Problem]]:
    first: dict[str, Entry] = {}
    problems = []
    for entry in entries:
        if entry.key in first:
            problems.append(
                Problem(
                    "duplicate-key",
                    where_line(path, entry.line),
                    f"{entry.key} is set here and in line {first[entry.key].line}; YAML would silently keep the last.",
                    "remove one of the two.",
                )
            )
        else:
            first[entry.key] = entry
    return list(first.values()), problems
