"""The Tülu template to the byte, its labels to the token, and every tokenizer that must be refused."""

from pathlib import Path

import pytest

from tests.tiny import tiny_tokenizer
from tulu_recipes.data.supervision import tokenize_row
from tulu_recipes.data.template import PROBE, check_tokenizer, load_tokenizer, supervised_spans
from tulu_recipes.errors import DataError

CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "how many legs has a cat"},
    {"role": "assistant", "content": "four"},
]
# tulu3.md B6, written out by hand for an EOS of </s>
RENDERED = (
    "<|system|>\nbe brief\n<|user|>\nhello there\n<|assistant|>\nhello</s>\n"
    "<|user|>\nhow many legs has a cat\n<|assistant|>\nfour</s>"
)


def test_the_tulu_template_renders_the_released_bytes() -> None:
    assert tiny_tokenizer().apply_chat_template(CHAT, tokenize=False) == RENDERED


def test_the_generation_prompt_opens_an_assistant_turn() -> None:
    text = tiny_tokenizer().apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>\nbe brief\n<|user|>\nhello there\n<|assistant|>\n"


def test_labels_are_assistant_text_and_eos_of_every_turn_and_nothing_else() -> None:
    tokenizer = tiny_tokenizer()
    row = tokenize_row({"messages": CHAT}, 0, tokenizer, None)
    assert tokenizer.decode(row["input_ids"]) == RENDERED  # no BOS
    supervised = [
        (token, label) for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100
    ]
    assert all(token == label for token, label in supervised)
    assert tokenizer.decode([label for _, label in supervised]) == "hello</s>four</s>"
    unsupervised = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
    assert tokenizer.decode(unsupervised) == RENDERED.replace("hello</s>", "").replace("four</s>", "")


def test_a_role_the_template_does_not_know_is_a_fault_not_a_silent_gap() -> None:
    row = tokenize_row({"messages": [*CHAT, {"role": "tool", "content": "x"}]}, 0, tiny_tokenizer(), None)
    assert "unknown role 'tool'" in row["fault"]


def test_supervised_spans_of_hand_written_masks() -> None:
    assert supervised_spans([0, 1, 1, 0, 1]) == [(1, 3), (4, 5)]
    assert supervised_spans([1, 1]) == [(0, 2)]
    assert supervised_spans([0, 0]) == []


def slugs(**special: str | None) -> list[str]:
    return [problem.slug for problem in check_tokenizer(tiny_tokenizer(**special), "tiny")]


def test_a_tokenizer_fit_for_training_has_no_problem() -> None:
    assert slugs() == []


def test_padding_with_eos_is_refused_because_eos_would_be_masked() -> None:
    tokenizer = tiny_tokenizer(pad_token="</s>")
    (problem,) = check_tokenizer(tokenizer, "tiny")
    assert problem.slug == "pad-is-eos"
    assert "never learns to stop" in problem.what
    assert 'pad_token: "<pad>"' in problem.mend


def test_missing_pad_and_missing_eos_are_named() -> None:
    assert slugs(pad_token=None) == ["pad-missing"]
    assert "eos-missing" in slugs(eos_token=None)


def with_template(template: str | None) -> list[str]:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return [problem.slug for problem in check_tokenizer(tokenizer, "tiny")]


def test_a_tokenizer_without_template_is_refused() -> None:
    assert with_template(None) == ["template-missing"]


def test_a_template_without_generation_markers_is_refused() -> None:
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
    assert with_template(plain) == ["template-without-generation"]


def test_a_template_that_leaves_eos_out_of_the_loss_is_refused() -> None:
    late = (
        "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}{% endgeneration %}{{ eos_token }}{% else %}{{ m['content'] }}{% endif %}"
        "{% endfor %}"
    )
    assert with_template(late) == ["template-eos-unsupervised"]


def test_a_line_break_after_eos_inside_the_turn_is_tolerated_as_in_chatml() -> None:
    chatml = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] + eos_token + '\\n' }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '\\n' }}{% endif %}{% endfor %}"
    )
    assert with_template(chatml) == []


def test_a_template_that_cannot_render_a_conversation_is_refused() -> None:
    assert with_template("{{ raise_exception('no') }}") == ["template-broken"]


def test_load_tokenizer_adds_a_padding_token_of_its_own(tmp_path: Path) -> None:
    tiny_tokenizer(pad_token=None).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), chat_template="tulu", pad_token="<|padding|>")
    assert tokenizer.pad_token == "<|padding|>"
    assert tokenizer.pad_token_id == len(tokenizer) - 1 != tokenizer.eos_token_id


def test_load_tokenizer_refuses_an_eos_outside_the_vocabulary(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(DataError, match="eos-token-unknown") as refused:
        load_tokenizer(str(tmp_path), eos_token="<|nowhere|>")
    assert "could never emit it" in str(refused.value)


def test_a_template_from_a_file_or_a_folder_is_used(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    jinja = tmp_path / "mine.jinja"
    jinja.write_text(
        "{% for m in messages %}{{ '[' + m['role'] + ']' }}{% if m['role'] == 'assistant' %}{% generation %}"
        "{{ m['content'] + eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    tokenizer = load_tokenizer(str(tmp_path / "model"), chat_template=str(jinja))
    assert tokenizer.apply_chat_template(PROBE[:2], tokenize=False) == (
        "[user]How many legs has a cat?[assistant]Four.</s>"
    )
    tokenizer.save_pretrained(tmp_path / "other")
    again = load_tokenizer(str(tmp_path / "model"), chat_template=str(tmp_path / "other"))
    assert again.chat_template == tokenizer.chat_template
