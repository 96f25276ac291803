"""Rows shown to a person: readable, whole where it matters, and nothing in them acts on the terminal."""

import io
import time
from typing import Any

import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tiny import tiny_tokenizer
from tulu_recipes.data.supervision import tokenize_row
from tulu_recipes.reports.show_rows import folded, mask_spans, shared_turns, show_rows, visible

USER, ANSWER = {"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi!"}


def shown(rows: list[dict[str, Any]], target: str = "sft", *, colour: bool = False, **options: Any) -> str:
    out = io.StringIO()
    system: Any = "truecolor" if colour else None
    show_rows(
        rows,
        target,
        Console(file=out, width=80, color_system=system, force_terminal=colour, legacy_windows=False),
        **options,
    )
    return out.getvalue()


def chat(content: str, answer: str = "Hi!") -> dict[str, Any]:
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "source": "acme/rows"}


def test_a_conversation_is_read_from_top_to_bottom() -> None:
    text = shown([{"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER], "source": "a", "id": "x1"}])
    order = ["1 · a", "id: x1", "▌ system", "Be brief.", "▌ user", "Say hi.", "▌ assistant", "Hi!"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("[bold red]x[/] [/nothing] :smile: [link=a]", "[bold red]x[/] [/nothing] :smile: [link=a]"),
        ("a\x1b[31mred\x1b[0m\x07\r\x00", "a␛[31mred␛[0m␇␍␀"),
        ("\x9b2J\x7f\u202egnp.exe\u200b\ufeff", "⟨U+009B⟩2J␡⟨U+202E⟩gnp.exe⟨U+200B⟩⟨U+FEFF⟩"),
        ("👩‍🚀 naïve 한국어 שלום", "👩‍🚀 naïve 한국어 שלום"),
        ("\ud800 alone", "⟨U+D800⟩ alone"),
        ("tags \U000e0041", "tags ⟨U+E0041⟩"),
        ("two\nlines", "two\nlines"),
        ("", "(empty)"),
    ],
)
def test_nothing_in_a_row_acts_on_the_terminal(content: str, read: str) -> None:
    text = shown([chat(content)])
    assert read in text
    assert "\x1b" not in text
    text.encode("utf-8")
    # Names of sources and kept columns come from the rows as well.
    row = chat("a") | {"source": content, "id": content}
    assert "\x1b" not in shown([row])
    assert "\x07" not in shown([row], colour=True)


def test_roles_are_coloured_on_a_terminal_alone() -> None:
    assert "\x1b[1;36m▌ user" in shown([chat("a")], colour=True)
    assert "\x1b" not in shown([chat("a")])


def test_a_content_of_ten_megabytes_is_folded_at_once() -> None:
    started = time.monotonic()
    text = shown([chat("a" * 5_000_000 + "[b]" + "z" * 5_000_000)])
    assert time.monotonic() - started < 1
    assert "… 9,996,803 characters …" in text
    assert len(text) < 6000
    assert folded("x" * 4000, full=False) == folded("x" * 4000, full=True) == "x" * 4000
    assert folded("x" * 4001, full=True) == "x" * 4001


def test_full_leaves_nothing_out() -> None:
    text = shown([chat("word " * 3000)], full=True)
    assert text.count("word") == 3000


def test_a_pair_shows_what_both_share_once() -> None:
    pair = {
        "prompt": "Say hi.",
        "chosen": [USER, ANSWER],
        "rejected": [USER, {"role": "assistant", "content": "[No]"}],
        "source": "p",
    }
    text = shown([pair], "preference")
    assert text.count("Say hi.") == 1
    places = [text.index(part) for part in ("▌ user", "Say hi.", "▌ ✓ chosen", "Hi!", "▌ ✗ rejected", "[No]")]
    assert places == sorted(places)
    assert shared_turns(pair) == 1
    apart = pair | {"chosen": [ANSWER], "prompt": "Asked elsewhere."}
    assert shown([apart], "preference").count("Asked elsewhere.") == 1
    same = pair | {"rejected": [USER]}
    assert "✗ rejected (nothing of its own)" in shown([same], "preference")


def test_an_rlvr_row_shows_what_its_verifier_gets() -> None:
    row = {"messages": [USER], "ground_truth": '{"n": 3}', "dataset": "ifeval", "source": "r"}
    text = shown([row | {"constraint_type": "length", "constraint": "At least [3] words"}], "rlvr")
    for part in ("▌ ground truth · ifeval", '{"n": 3}', "▌ constraint · length", "At least [3] words"):
        assert part in text
    plain = shown(
        [row | {"constraint_type": None, "constraint": None}], "rlvr", masks=True, tokenizer=tiny_tokenizer()
    )
    assert "constraint" not in plain
    assert "no token is supervised" in " ".join(plain.split())


TURNS = [USER, {"role": "assistant", "content": "Ünï 👩‍🚀 [b]"}, USER, {"role": "assistant", "content": "the cat 한"}]


def test_supervised_spans_are_the_assistant_s_text_and_eos() -> None:
    tokenizer = tiny_tokenizer()
    tokens = tokenize_row({"messages": TURNS}, 0, tokenizer, None)
    spans = mask_spans(tokens["input_ids"], tokens["labels"], tokenizer)
    assert [text for text, supervised in spans if supervised] == ["Ünï 👩‍🚀 [b]</s>", "the cat 한</s>"]
    assert "".join(text for text, _ in spans) == tokenizer.apply_chat_template(TURNS, tokenize=False)


def test_a_space_at_the_start_of_a_span_survives_sentencepiece() -> None:
    words = ["<unk>", "</s>", "▁a", "▁b", "▁c"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    assert mask_spans([2, 3, 4, 1], [-100, 3, 4, 1], wrapped) == [("a", False), (" b c</s>", True)]


def test_masks_are_brackets_in_a_log_and_colours_on_a_terminal() -> None:
    row = {"messages": TURNS, "source": "a"}
    log = shown([row], masks=True, tokenizer=tiny_tokenizer())
    assert "⟦Ünï 👩‍🚀 [b]</s>⟧" in log
    assert "⟦the cat 한</s>⟧" in log
    assert log.count("⟦") == 2
    assert "\x1b" not in log
    screen = shown([row], masks=True, tokenizer=tiny_tokenizer(), colour=True)
    assert "⟦" not in screen
    assert "\x1b[1;32mthe cat 한</s>\x1b[0m" in screen
    assert "\x1b[2m" in screen


def test_masks_of_a_cut_row_end_where_training_does() -> None:
    tokenizer = tiny_tokenizer()
    whole = tokenize_row({"messages": TURNS}, 0, tokenizer, None)["tokens"]
    inside = next(n for n in range(whole, 0, -1) if "�" in shown_masks(tokenizer, n))  # cut within 한
    assert f"cut at max_length: {inside}" in shown_masks(tokenizer, inside)
    assert "⟦the cat �" in shown_masks(tokenizer, inside)
    assert f"of {whole} tokens supervised\n" in shown_masks(tokenizer, whole)


def shown_masks(tokenizer: Any, max_length: int) -> str:
    return shown([{"messages": TURNS}], masks=True, tokenizer=tokenizer, max_length=max_length)


def test_masks_of_a_pair_and_of_a_broken_row() -> None:
    pair = {"prompt": "Say hi.", "chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": " "}]}
    text = shown([pair], "preference", masks=True, tokenizer=tiny_tokenizer())
    assert "⟦Hi!</s>⟧" in text
    assert "broken: message 2 (assistant) is empty" in text
    with pytest.raises(ValueError, match="masks need a tokenizer"):
        shown([pair], "preference", masks=True)


def test_visible_text_is_left_alone() -> None:
    assert visible("a\tb\nc") == "a\tb\nc"
