"""Rows of a mix as a person reads them: turns under headings, what answers share once, what is supervised in colour.

Everything of a row is shown as text: markup of rich or Markdown in it stays as it is, and what would move the cursor,
hide text or turn its direction is spelled out.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text

from tulu_recipes.data.supervision import tokenize_row
from tulu_recipes.data.template import supervised_spans

FOLD_CHARACTERS = 4000  # longer texts lose their middle
KEPT_HEAD, KEPT_TAIL = 2400, 800
LONGEST_COLUMN = 200  # characters of a kept column, such as an id
ROLES = {"system": "bold magenta", "user": "bold cyan", "assistant": "bold yellow"}
OWN_COLUMNS = {
    "sft": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "rlvr": ("messages", "ground_truth", "dataset", "constraint_type", "constraint"),
}
SUPERVISED, CONTEXT = "bold green", "dim"
OPEN, CLOSE = "⟦", "⟧"  # around supervised text where there is no colour
# Controls except tab and line feed, lone surrogates, line separators, direction marks, text without width, tags.
# Zero-width joiners stay: emoji and several scripts are written with them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)


def show_rows(
    rows: Iterable[Mapping[str, Any]],
    target: str,
    console: Console,
    *,
    tokenizer: Any | None = None,
    masks: bool = False,
    max_length: int | None = None,
    full: bool = False,
) -> None:
    """Print canonical rows of a mix in the order given.

    Args:
        target: sft, preference or rlvr.
        tokenizer: with a chat template; needed for `masks`.
        masks: show the text as it is tokenized, supervised tokens apart from the others.
        max_length: tokens a row is cut at, as in training; only with `masks`.
        full: leave nothing out of long texts.
    """
    if masks and tokenizer is None:
        raise ValueError("masks need a tokenizer")
    for number, row in enumerate(rows, start=1):
        title = f"{number} · {row.get('source') or 'no source'}"[:LONGEST_COLUMN].replace("\n", "␊")
        console.rule(Text(visible(title)), align="left")
        _print_columns(row, target, console)
        if masks and target != "rlvr":
            _print_masks(row, target, console, tokenizer, max_length, full)
        elif target == "preference":
            _print_pair(row, console, full)
        else:
            _print_turns(row["messages"], console, full)
        if target == "rlvr":
            _print_check(row, console, full)
        console.print()
    if masks and target == "rlvr":
        console.print(
            "Rows of an RLVR mix hold prompts: the model's own answers are rewarded, no token is supervised."
        )


def visible(text: str) -> str:
    """Text in which everything can be seen: ESC as ␛, a right-to-left override as ⟨U+202E⟩."""
    return UNSEEN.sub(lambda match: _spelled(ord(match[0])), text)


def _spelled(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of control characters
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def folded(text: str, full: bool) -> str:
    """Visible text, without its middle when it is long."""
    left_out = len(text) - KEPT_HEAD - KEPT_TAIL
    if full or len(text) <= FOLD_CHARACTERS:
        return visible(text)
    return f"{visible(text[:KEPT_HEAD])}\n… {left_out:,} characters …\n{visible(text[-KEPT_TAIL:])}"


def _print_columns(row: Mapping[str, Any], target: str, console: Console) -> None:
    for name, value in row.items():
        if name not in (*OWN_COLUMNS[target], "source") and value is not None:
            shown = str(value)
            shown = f"{shown[:LONGEST_COLUMN]}…" if len(shown) > LONGEST_COLUMN else shown
            console.print(Text(visible(f"{name}: {shown}"), style="dim", overflow="fold"))


def _heading(console: Console, words: str, style: str) -> None:
    console.print(Text(visible(words), style=style))


def _print_text(console: Console, text: str, full: bool) -> None:
    console.print(Text(folded(text, full), overflow="fold") if text else Text("(empty)", style="dim"))


def _print_turns(messages: Iterable[Mapping[str, Any]], console: Console, full: bool) -> None:
    for message in messages:
        role = str(message["role"])
        _heading(console, f"▌ {role}", ROLES.get(role, "bold"))
        _print_text(console, message["content"] or "", full)


def shared_turns(row: Mapping[str, Any]) -> int:
    """How many turns both answers of a preference row begin with."""
    pairs = zip(row["chosen"], row["rejected"], strict=False)
    equal = [a["role"] == b["role"] and a["content"] == b["content"] for a, b in pairs]
    return equal.index(False) if False in equal else len(equal)


def _print_pair(row: Mapping[str, Any], console: Console, full: bool) -> None:
    shared = shared_turns(row)
    if not shared and row.get("prompt"):
        _print_turns([{"role": "prompt", "content": row["prompt"]}], console, full)
    _print_turns(row["chosen"][:shared], console, full)
    for name, mark, style in (("chosen", "✓", "bold green"), ("rejected", "✗", "bold red")):
        turns = row[name][shared:]
        _heading(console, f"▌ {mark} {name}" + ("" if turns else " (nothing of its own)"), style)
        for message in turns:
            if message["role"] != "assistant":
                _heading(console, f"  {message['role']}", ROLES.get(str(message["role"]), "bold"))
            _print_text(console, message["content"] or "", full)


def _print_check(row: Mapping[str, Any], console: Console, full: bool) -> None:
    _heading(console, f"▌ ground truth · {row.get('dataset') or 'no verifier named'}", "bold green")
    _print_text(console, str(row.get("ground_truth") or ""), full)
    if row.get("constraint_type") or row.get("constraint"):
        _heading(console, f"▌ constraint · {row.get('constraint_type') or 'no type'}", "bold green")
        _print_text(console, str(row.get("constraint") or ""), full)


# ---- which tokens are supervised


def _print_masks(
    row: Mapping[str, Any], target: str, console: Console, tokenizer: Any, max_length: int | None, full: bool
) -> None:
    conversations = {"": row["messages"]} if target == "sft" else {k: row[k] for k in ("chosen", "rejected")}
    for name, messages in conversations.items():
        if name:
            _heading(console, f"▌ {name}", "bold green" if name == "chosen" else "bold red")
        tokens = tokenize_row({"messages": messages}, 0, tokenizer, max_length)
        if tokens["fault"]:
            _heading(console, f"broken: {tokens['fault']}", "bold red")
            continue
        console.print(mask_text(mask_spans(tokens["input_ids"], tokens["labels"], tokenizer), console, full=full))
        cut = f" · cut at max_length: {max_length}" if tokens["over_length"] else ""
        count = f"{tokens['supervised_tokens']:,} of {tokens['tokens']:,} tokens supervised{cut}"
        console.print(Text(count, style="dim"))


def mask_spans(ids: list[int], labels: list[int], tokenizer: Any) -> list[tuple[str, bool]]:
    """The text of each run of tokens that are all supervised, or all not, in order.

    Runs are decoded whole, as one token may be a part of a character; what a tokenizer strips at the start of a text
    (SentencePiece: a space) is kept by decoding each run behind what is before it.
    """
    mask = [int(label != -100) for label in labels]
    edges = sorted({0, len(ids), *(edge for span in supervised_spans(mask) for edge in span)})
    spans, before = [], ""
    for start, stop in pairwise(edges):
        whole = _decode(tokenizer, ids[:stop])
        # Where a run begins inside a character, the text before it ends otherwise than the whole text goes on.
        text = whole.removeprefix(before) if whole.startswith(before) else _decode(tokenizer, ids[start:stop])
        spans.append((text, mask[start] == 1))
        before = whole
    return spans


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def mask_text(spans: list[tuple[str, bool]], console: Console, *, full: bool = False) -> Text:
    """Supervised text in colour, the rest dim; between ⟦ and ⟧ where the console has no colour, as in a log."""
    plain = console.color_system is None or console.no_color
    text = Text(overflow="fold")
    for span, supervised in spans:
        shown = folded(span, full)
        if plain:
            text.append(f"{OPEN}{shown}{CLOSE}" if supervised else shown)
        else:
            text.append(shown, SUPERVISED if supervised else CONTEXT)
    return text
