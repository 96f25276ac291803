"""Mentions of other models and their makers, which teach a model to say that it is somebody else.

Tülu 3 dropped answers that talk about models or their developers, by keywords such as "OpenAI" (arXiv 2411.15124,
§3.1); its list is not published, so this one is our own. Names that are also words (Claude, Gemini, Bard, Llama,
Falcon, Cohere) count only where a version, a maker or a product word stands beside them.
"""

import re
import unicodedata
from typing import Any, NamedTuple

from tulu_recipes.config.values import nearest
from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer, picked, side
from tulu_recipes.data.filters.text import alternatives


class Mention(NamedTuple):
    """stems: lower-case, | between them; without one of them in the text the pattern, which is slower, is not tried.

    pattern: case does not count, but inside (?-i:…).
    """

    stems: str
    pattern: str


MENTIONS = {
    "OpenAI": Mention("openai|open ai|open-ai", r"open[ -]?ai"),
    "GPT": Mention(
        "gpt|davinci",
        r"chat[ -]?gpt(?:[ -]?[345](?:\.\d)?)?|gpt[ -]?[2345](?:\.\d)?(?:[ -]?(?:o|v|turbo|mini|nano|neo|j))*"
        r"|instructgpt|text-davinci-\d+",
    ),
    "Anthropic": Mention("anthropic", r"(?-i:Anthropic)(?! (?:principle|rock|landscape))"),
    "Claude": Mention(
        "claude",
        r"claude(?:[ -](?:\d(?:\.\d)?|ai|instant|opus|sonnet|haiku|pro))+"
        r"|(?:i am|i'm|called|named) claude,? (?:an?|the) (?:ai|assistant|language model)",
    ),
    "Google models": Mention(
        "deepmind|deep mind|bard|gemini|palm|lamda|gemma",
        r"deep ?mind|google(?:'s)? (?:bard|gemini|palm)|gemini[ -](?:pro|ultra|nano|flash|\d(?:\.\d)?)|bard ai"
        r"|palm[ -]?2|(?-i:LaMDA)|gemma[ -](?:\d+b|2|3|it)",
    ),
    "Meta models": Mention(
        "llama|meta ai|facebook ai",
        r"(?:code ?)?llama[ -]?[1234](?:\.\d)?(?:[ -]\d+b)?|(?-i:LLaMA)|code ?llama|meta ai|facebook ai",
    ),
    "Mistral": Mention("mistral|mixtral", r"mistral[ -](?:ai|7b|nemo|large|small|medium)|mixtral(?:[ -]\d+x\d+b)?"),
    "Alpaca and Vicuna": Mention(
        "alpaca|vicuna|lmsys", r"stanford alpaca|alpaca[ -]\d+b|vicuna[ -]\d+b|vicuna (?:model|assistant)|lmsys"
    ),
    "Qwen": Mention("qwen|qianwen|alibaba cloud", r"qwen(?:[ -]?\d(?:\.\d)?)?|tongyi qianwen|alibaba cloud"),
    "DeepSeek": Mention("deepseek", r"deepseek(?:[ -](?:v\d|r1|coder|chat))?"),
    "Cohere": Mention("cohere|command r+", r"cohere (?:ai|for ai|command)|cohereforai|command r\+"),
    "xAI": Mention("xai|grok", r"(?-i:xAI)|grok[ -]?[1234]"),
    "Falcon": Mention("falcon", r"falcon[ -]\d+b"),
    "Microsoft models": Mention(
        "bing chat|copilot|phi-", r"bing chat|(?:microsoft|github) copilot|phi-[1234](?:\.\d)?(?:[ -]mini)?"
    ),
    "Chinese models": Mention(
        "baichuan|chatglm|ernie|internlm|moonshot|zhipu|01.ai|yi-",
        r"baichuan(?:[ -]?\d)?|chatglm\d?|ernie bot|internlm|moonshot ai|zhipu ai|01\.ai|yi-\d+b",
    ),
    "Open Assistant": Mention("assistant|laion", r"(?-i:Open[ -]?Assistant|LAION)"),
    "Nemotron": Mention("nemotron", r"nemotron"),
    "Tülu": Mention("tülu|tulu", r"t[uü]lu[ -]?[123](?:\.\d)?"),
    "OLMo": Mention("olmo", r"(?-i:OLMoE?)(?:[ -]?\d)?"),
    "Ai2": Mention("ai2|allen institute", r"(?-i:Ai2|AI2)|allen institute for (?:ai|artificial intelligence)"),
    "made by": Mention(
        "trained by|created by|developed by|made by|built by",
        r"(?:language model|ai model|ai assistant|chatbot),? (?:that was |which was )?"
        r"(?:trained|created|developed|made|built) by (?-i:[A-Z])\w+",
    ),
}
OWN = ["Tülu", "OLMo", "Ai2"]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).lower().replace("ü", "u")


_NAMES = {_plain(name): name for name in MENTIONS}


def mention_pattern(mentions: list[Mention], also: list[str]) -> re.Pattern[str]:
    """Any of these and of the further names, as whole words."""
    either = [rf"(?<!\w)(?:{mention.pattern})(?!\w)" for mention in mentions]
    if also:
        either.append(alternatives(also, whole_words=True))
    return re.compile("|".join(either), re.IGNORECASE)


def _known_names(params: dict[str, Any], _target: str) -> list[str]:
    problems = []
    for name in params["allow"]:
        if _plain(name) not in _NAMES:
            near = nearest(name, list(MENTIONS))
            problems.append(f"allow: {name!r} is not on the list. Write {near or 'one of ' + ', '.join(MENTIONS)}.")
    return problems


def _model_mentions(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    allowed = {_NAMES[_plain(name)] for name in params["allow"]}
    others = [mention for name, mention in MENTIONS.items() if name not in allowed]
    also = [unicodedata.normalize("NFC", name) for name in params["also"]]
    stems = [stem for mention in others for stem in mention.stems.split("|")] + [name.lower() for name in also]
    pattern = mention_pattern(others, also)

    def silent(row: dict[str, Any]) -> str | None:
        for texts in picked(row, target, params["of"]):
            for text in texts:
                spelt = unicodedata.normalize("NFC", text)
                lowered = spelt.lower()
                if any(stem in lowered for stem in stems) and pattern.search(spelt):
                    return "names a model"
        return None

    return silent


KINDS = (
    FilterKind(
        "model_mentions",
        "rows that mention other models or their makers go",
        {
            "of": side("assistant"),
            "allow": Parameter("texts", "names of the list that may be mentioned", OWN),
            "also": Parameter("texts", "further names, as whole words", []),
        },
        _model_mentions,
        check=_known_names,
    ),
)
