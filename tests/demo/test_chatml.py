"""The ChatML template of recipes/smollm2: the text as ChatML has it, the marks around answer and end of turn."""

from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.demo import tiny_model

TEMPLATE = Path(__file__).parents[2] / "recipes" / "smollm2" / "chatml.jinja"
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi\n"},
    {"role": "assistant", "content": " Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "Bye!"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    built = tiny_model.build_tokenizer()
    built.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return built


def test_text_is_chatml_and_a_prompt_is_a_prefix_of_it(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi\n<|im_end|>\n"
        "<|im_start|>assistant\n Hello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\nBye!<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template(CONVERSATION[:-1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    assert text[len(prompt) :] == "Bye!<|im_end|>\n"


def test_marks_cover_every_answer_with_its_end_and_nothing_else(tokenizer: Any) -> None:
    encoded = tokenizer.apply_chat_template(CONVERSATION, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mark == 1]
    assert tokenizer.decode(marked) == " Hello.<|im_end|>Bye!<|im_end|>"
