"""The language a row is written in, by py3langid, with probabilities over its 139 languages or those of `among`."""

import functools
from typing import Any

from tulu_recipes.data.filters.kinds import FilterKind, Parameter, RowFilter, Tokenizer, picked, side

LOOKED_AT = 2000  # characters of a conversation: the model walks bytes in Python, about 0.2 µs each
FEWEST_LETTERS = 20  # fewer say nothing about a language


@functools.cache
def _identifier(among: tuple[str, ...]) -> Any:
    """The classifier with normalised probabilities; about 0.2 s and 100 MB the first time in a process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if among:
        identifier.set_languages(list(among))
    return identifier


def language_probabilities(text: str, among: tuple[str, ...] = ()) -> dict[str, float]:
    """ISO 639 code → probability (0-1), over all languages or over `among`. The start of the text decides."""
    return dict(_identifier(among).rank(text[:LOOKED_AT]))


def language_of(text: str) -> str | None:
    """The likeliest language's ISO 639 code; None where there are too few letters to tell."""
    if sum(map(str.isalpha, text[:LOOKED_AT])) < FEWEST_LETTERS:
        return None
    return str(_identifier(()).classify(text[:LOOKED_AT])[0])


def _language(params: dict[str, Any], target: str, _tokenizer: Tokenizer | None) -> RowFilter:
    keep, among, needed = params["keep"], tuple(sorted(params["among"])), params["min_probability"]
    known = set(_identifier(()).labels)
    unknown = [code for code in [*keep, *among] if code not in known]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} is no language that py3langid knows. Write codes of {' '.join(sorted(known))}."
        )

    def in_language(row: dict[str, Any]) -> str | None:
        for texts in picked(row, target, params["of"]):
            text = "\n".join(texts)[:LOOKED_AT]
            if sum(map(str.isalpha, text)) < FEWEST_LETTERS:
                continue
            found = language_probabilities(text, among)
            if sum(found.get(code, 0.0) for code in set(keep)) < needed:
                return "another language"
        return None

    return in_language


def _keep_among(params: dict[str, Any], _target: str) -> list[str]:
    if not params["keep"]:
        return ["keep is empty, so no row would stay. Write the languages that stay, as in [en]."]
    outside = [code for code in params["keep"] if params["among"] and code not in params["among"]]
    return (
        [f"{', '.join(outside)} is kept but not among the languages told apart. Add it to among."] if outside else []
    )


KINDS = (
    FilterKind(
        "language",
        f"rows in another language go; with fewer than {FEWEST_LETTERS} letters a row stays",
        {
            "keep": Parameter("texts", "ISO 639 codes of the languages that stay", needed=True),
            "min_probability": Parameter(
                "fraction", "probability of the kept languages together from which a row stays", 0.5
            ),
            "among": Parameter("texts", "languages told apart; fewer are surer; all when empty", []),
            "of": side("all"),
        },
        _language,
        check=_keep_among,
    ),
)
