"""Rows and tokenizers that would train something else are refused by the stage: exit 2, a table, nothing written."""

from pathlib import Path
from typing import Any

import pytest

from tests.stage import run_sft, run_sft_here, slugs, write_recipe
from tests.tiny import conversation, save_base, tiny_tokenizer
from tulu_recipes.run import read_json

pytestmark = pytest.mark.e2e

GOOD = [conversation(i, 1 + i % 3, 9) for i in range(8)]


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def refused(recipe: Path, *overrides: str) -> tuple[set[str], str]:
    """Slugs and text of a refusal that wrote nothing."""
    done = run_sft_here(recipe, *overrides)
    assert done.returncode == 2, done.stderr
    assert not (recipe.parent / "run").exists()
    return slugs(done.stderr), done.stderr


def test_every_kind_of_bad_row_at_once_is_answered_with_the_table_and_no_folder(tmp_path: Path) -> None:
    bad = [
        chat(("user", "hello"), ("assistant", "")),  # empty answer
        chat(("system", "be kind")),  # only a system turn
        chat(("user", "hello")),  # no assistant turn
        chat(("assistant", "hello"), ("user", "hello"), ("assistant", "cat")),  # an assistant turn first
        chat(("user", "one"), ("user", "two"), ("assistant", "three")),  # odd order
        chat(("", "hello"), ("assistant", "cat")),  # no role
        chat(("user", None), ("assistant", "cat")),
        {"messages": []},
        chat(("user", "the cat " * 1_300_000), ("assistant", "four")),  # 10 MB
    ]
    recipe = write_recipe(tmp_path, GOOD + bad)
    done = run_sft(recipe)
    assert done.returncode == 2, done.stderr
    assert "Supervision audit" in done.stderr
    assert {"rows-broken", "rows-unsupervised"} <= slugs(done.stderr)
    for text in (
        "row 9 (",
        "message 2 (assistant) is empty",
        "message 1 has no role",
        "message 1 (user) has nothing for content, not text",
        "messages is an empty list",
        "3 of 17 rows have no supervised token",
        "row 17 (",
    ):
        assert text in done.stderr, text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["base", "recipe.yaml", "rows.jsonl"]


def test_content_that_is_no_text_is_named_by_row(tmp_path: Path) -> None:
    found, text = refused(write_recipe(tmp_path, [*GOOD, chat(("user", 7), ("assistant", ["a", "b"]))]))
    assert found == {"rows-broken"}
    assert "row 9 (" in text
    assert "message 1 (user) has a number for content, not text" in text


def test_eight_tokens_a_row_are_refused_for_what_they_cut(tmp_path: Path) -> None:
    found, text = refused(write_recipe(tmp_path, GOOD, max_length=8))
    assert {"rows-unsupervised", "answers-cut", "no-rows"} <= found
    assert "8 of 8 rows lose the end of an answer at max_length: 8 tokens" in text


def test_limits_that_a_recipe_sets_are_kept(tmp_path: Path) -> None:
    rows = [*GOOD, GOOD[0]]
    assert refused(write_recipe(tmp_path, rows, over_length="stop", max_length=40))[0] == {
        "over-length",
        "answers-cut",
    }
    assert refused(write_recipe(tmp_path, rows, max_duplicate_fraction=0))[0] == {"rows-duplicate"}
    found, text = refused(write_recipe(tmp_path, [{"text": "no conversation"}]))
    assert found == {"columns-unknown"}
    assert "The columns are text" in text


@pytest.mark.parametrize(
    ("special", "keys", "expected"),
    [
        ({"pad_token": None}, {}, {"pad-missing"}),
        ({"pad_token": "</s>"}, {}, {"pad-is-eos"}),
        ({}, {"eos_token": "<|im_end|>"}, {"eos-token-unknown"}),
        ({"pad_token": None}, {"pad_token": "<pad>", "use_peft": True}, {"lora-new-tokens"}),
    ],
    ids=["no-pad", "pad-is-eos", "unknown-eos", "lora-and-a-new-token"],
)
def test_a_tokenizer_that_hides_the_end_of_a_turn_is_refused(
    tmp_path: Path, special: dict[str, Any], keys: dict[str, Any], expected: set[str]
) -> None:
    save_base(tmp_path / "base", tiny_tokenizer(**special))
    assert refused(write_recipe(tmp_path, GOOD, **keys))[0] == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, {"template-missing"}),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", {"template-without-generation"}),
    ],
    ids=["none", "no-markers"],
)
def test_a_tokenizer_without_a_usable_template_is_refused(
    tmp_path: Path, template: str | None, expected: set[str]
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    save_base(tmp_path / "base", tokenizer)
    found, text = refused(write_recipe(tmp_path, GOOD, chat_template=None))
    assert found == expected
    assert "chat_template: tulu" in text


def test_a_tokenizer_without_pad_and_template_is_mended_by_two_keys(tmp_path: Path) -> None:
    import safetensors.torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = tiny_tokenizer(pad_token=None)
    tokenizer.chat_template = None
    before = len(save_base(tmp_path / "base", tokenizer) and tokenizer)
    recipe = write_recipe(tmp_path, GOOD, chat_template="tulu", pad_token="<pad>", num_train_epochs=1)
    done = run_sft_here(recipe)
    assert done.returncode == 0, done.stderr

    run = tmp_path / "run"
    saved, generation = AutoTokenizer.from_pretrained(run), read_json(run / "generation_config.json")
    assert len(saved) == before + 1
    assert generation["eos_token_id"] in (saved.eos_token_id, [saved.eos_token_id])
    assert generation["pad_token_id"] == saved.pad_token_id == before != saved.eos_token_id
    rows = safetensors.torch.load_file(run / "model.safetensors")["model.embed_tokens.weight"].shape[0]
    assert rows % 8 == 0
    assert rows >= before + 1
    assert AutoModelForCausalLM.from_pretrained(run).config.vocab_size == rows
    text = saved.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert text == "<|user|>\nhello\n"
