"""Each row filter on hand-written rows: what goes, what stays, and why."""

from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from tulu_recipes.data.filters import RowFilter, make_filter
from tulu_recipes.data.filters.models import MENTIONS, mention_pattern
from tulu_recipes.data.filters.repetition import repeated_fraction
from tulu_recipes.data.filters.words import words_of


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def row(user: str, assistant: str, system: str | None = None) -> dict[str, Any]:
    first = [] if system is None else [said("system", system)]
    return {"messages": [*first, said("user", user), said("assistant", assistant)]}


def pair(user: str, chosen: str, rejected: str) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    return {"prompt": user, **{side: [said("user", user), said("assistant", text)] for side, text in sides.items()}}


def build(name: str, target: str = "sft", tokenizer: Any = None, **params: Any) -> RowFilter:
    return make_filter(name, params, target=target, tokenizer=tokenizer)


def test_characters_count_the_turns_that_are_named() -> None:
    shown = row("abc", "défg", "hi")  # 3, 4 and 2 code points
    assert build("characters", min=9, max=9)(shown) is None
    assert build("characters", max=8)(shown) == "more than 8 characters"
    assert build("characters", min=10)(shown) == "fewer than 10 characters"
    assert build("characters", min=4, max=4, of="assistant")(shown) is None
    assert build("characters", min=3, max=3, of="user")(shown) is None
    assert build("characters", min=2, max=2, of="system")(shown) is None


def test_both_conversations_of_a_preference_row_are_within_the_limits() -> None:
    shown = pair("ab", "abc", "abcdefg")  # conversations of 5 and 9
    assert build("characters", "preference", min=5, max=9)(shown) is None
    assert build("characters", "preference", max=8)(shown) == "more than 8 characters"
    assert build("characters", "preference", min=6)(shown) == "fewer than 6 characters"
    assert build("characters", "preference", max=3, of="chosen")(shown) is None
    assert build("characters", "preference", max=6, of="rejected")(shown) == "more than 6 characters"


def test_turns_leave_the_system_prompt_out() -> None:
    shown = row("q", "a", "be kind")
    assert build("turns", min=2, max=2)(shown) is None
    assert build("turns", max=1)(shown) == "more than 1 turns"
    assert build("turns", min=1, max=1, of="user")(shown) is None


def test_tokens_are_counted_by_the_tokenizer_without_special_ones() -> None:
    words = Tokenizer(WordLevel({"[UNK]": 0, "<s>": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    shown = row("one two", "three four five")
    assert build("tokens", tokenizer=words, min=5, max=5)(shown) is None
    assert build("tokens", tokenizer=words, max=2, of="assistant")(shown) == "more than 2 tokens"
    assert build("tokens", tokenizer=words, min=1, of="system")(shown) == "fewer than 1 tokens"


def test_keywords_are_whole_words_in_any_case() -> None:
    drop = build("keywords", words=["cat", "bad luck", "C++", "café"])
    for text in ("a Cat.", "BAD LUCK!", "use C++ now", "cafe\u0301 noir", "(cat)"):
        assert drop(row("q", text)) == "keyword", text
    for text in ("concatenate", "cats", "bad and luck", "cafes"):
        assert drop(row("q", text)) is None, text
    assert build("keywords", words=["cat"], whole_words=False)(row("q", "cats")) == "keyword"
    assert build("keywords", words=["Cat"], ignore_case=False)(row("q", "cat")) is None
    assert build("keywords", words=["cat"], of="assistant")(row("cat", "dog")) is None
    assert build("keywords", words=["cat"], of="user")(row("cat", "dog")) == "keyword"
    assert build("keywords", "preference", words=["cat"], of="rejected")(pair("q", "cat", "dog")) is None


def test_a_pattern_is_searched_for_in_each_turn() -> None:
    drop = build("regex", pattern=r"^I cannot\b", of="assistant")
    assert drop(row("q", "I cannot say.")) == "pattern"
    assert drop(row("I cannot", "Sure. I cannot")) is None


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("a b c d", 0.0),  # every pair of words is new
        ("a b a b", 0.5),  # the second "a b"
        ("a a a a", 0.75),  # "a a" from the second word on; the pairs overlap
        ("a b c a b d", 2 / 6),
        ("a b c b a", 0.0),
        ("a", 0.0),
        ("", 0.0),
    ],
)
def test_repeated_words_counted_by_hand(text: str, fraction: float) -> None:
    assert repeated_fraction(text.split(), 2) == pytest.approx(fraction)


def test_loops_go_and_lists_stay() -> None:
    drop = build("repetition")
    loop = "I think that the answer is clear to all of us today. " * 6
    table = "\n".join(f"| row {i} | value {i * i} | the same unit |" for i in range(40))
    assert drop(row("q", loop)) == "repeats itself"
    assert drop(row("q", loop.upper() + loop)) == "repeats itself"
    assert drop(row("q", "ha " * 31)) is None  # fewer than 32 words
    assert drop(row("q", "ha " * 32)) == "repeats itself"
    assert drop(row("q", table)) is None
    assert drop(row(loop, "no")) is None
    assert drop(row("q", "我们认为答案是清楚的。" * 20)) == "repeats itself"
    assert build("repetition", "preference", of="chosen")(pair("q", "fine", loop)) is None


def test_words_stand_between_white_space_and_chinese_has_none() -> None:
    assert words_of("it's  a\ttest.") == ["it's", "a", "test."]
    assert words_of("naïve Köln") == ["naïve", "Köln"]
    assert words_of("用GPT写 作") == ["用", "GPT", "写", "作"]
    assert words_of("한국어 문장") == ["한국어", "문장"]


ENGLISH = "The committee met on Tuesday to discuss the budget for the coming year and the plans for a new library."
GERMAN = "Der Ausschuss hat am Dienstag über den Haushalt des kommenden Jahres und die neue Bibliothek beraten."


def test_languages() -> None:
    drop = build("language", keep=["en"])
    assert drop(row(ENGLISH, ENGLISH)) is None
    assert drop(row(GERMAN, GERMAN)) == "another language"
    assert drop(row("Warum?", "4 * 5 = 20")) is None  # too short to tell
    both = build("language", keep=["en", "de"], among=["en", "de", "fr"], min_probability=0.9)
    assert both(row(ENGLISH, GERMAN)) is None
    assert build("language", keep=["en"], of="assistant")(row(GERMAN, ENGLISH)) is None
    assert build("language", "preference", keep=["en"])(pair(ENGLISH, ENGLISH, GERMAN * 3)) == "another language"


@pytest.mark.parametrize(
    "text",
    [
        "As an AI made by OpenAI, I cannot.",
        "I'm ChatGPT.",
        "GPT-4o and gpt3.5 differ",
        "Claude 3 Opus is",
        "I am Claude, an AI assistant",
        "trained by Anthropic's team",
        "Google's Gemini",
        "Gemini Pro",
        "DeepMind",
        "Llama-2 and code llama",
        "Mistral 7B",
        "Qwen2.5",
        "a language model trained by Zork",
        "Open Assistant",
        "ChatGLM3",
        "use GitHub Copilot",
        "Command R+",
    ],
)
def test_other_models_and_makers_are_mentions(text: str) -> None:
    assert build("model_mentions")(row("q", text)) == "names a model"


@pytest.mark.parametrize(
    "text",
    [
        "Claude Monet painted water lilies",
        "the bard of Avon",
        "a llama and an alpaca in Peru",
        "my sign is Gemini",
        "a falcon's prey",
        "arguments must cohere",
        "the mistral blows",
        "an anthropic principle",
        "Anthropic principle",
        "grok it",
        "the palm of my hand",
        "I am Tülu 3, made by Ai2.",
        "a taxi in Paris",
        "an open assistant manager position",
    ],
)
def test_words_that_are_also_names_stay(text: str) -> None:
    assert build("model_mentions")(row("q", text)) is None


def test_mentions_are_looked_for_where_asked_and_can_be_allowed() -> None:
    shown = row("Are you ChatGPT?", "No.")
    assert build("model_mentions")(shown) is None
    assert build("model_mentions", of="all")(shown) == "names a model"
    assert build("model_mentions", of="user", allow=["gpt"])(shown) is None
    assert build("model_mentions", allow=[])(row("q", "I am Tülu 3.")) == "names a model"
    assert build("model_mentions", allow=["tulu"])(row("q", "Tu\u0308lu 3")) is None
    assert build("model_mentions", also=["Zörk"])(row("q", "zo\u0308rk says")) == "names a model"
    assert build("model_mentions", also=["Zörk"])(row("q", "zörks")) is None


def test_stems_hold_for_whatever_their_pattern_matches() -> None:
    """The quick look at stems may not lose a match: every literal run in a pattern's branches has one."""
    examples = """
    open ai; open-ai; chatgpt; chat-gpt 4; gpt 4 turbo; instructgpt; text-davinci-003; Anthropic; claude-2; deep
    mind; bard ai; google palm; gemini 1.5; palm 2; LaMDA; gemma 2; llama 3.1 8b; LLaMA; codellama; meta ai;
    facebook ai; mixtral 8x7b; mistral ai; stanford alpaca; alpaca-7b; vicuna model; lmsys; tongyi qianwen;
    alibaba cloud; deepseek r1; cohere for ai; cohereforai; command r+; xAI; grok-1; falcon 40b; bing chat;
    microsoft copilot; phi-3-mini; baichuan2; chatglm; ernie bot; internlm; moonshot ai; zhipu ai; 01.ai; yi-34b;
    OpenAssistant; LAION; nemotron; tulu 2; tülu-3; OLMoE; Ai2; allen institute for ai; chatbot created by Bob
    """
    for example in " ".join(examples.split()).split("; "):
        matched = [name for name, mention in MENTIONS.items() if mention_pattern([mention], []).search(example)]
        assert matched, example
        for name in matched:
            assert any(stem in example.lower() for stem in MENTIONS[name].stems.split("|")), (name, example)
