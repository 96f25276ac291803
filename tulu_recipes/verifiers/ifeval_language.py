"""The language of an answer, by langdetect, which IFEval and the Tülu 3 release use.

Seeded here: langdetect draws random numbers, and the release left its seed to chance.
"""

import functools
import importlib.util
from typing import Any

from tulu_recipes.errors import DataError, Problem

READ = 10_000  # characters; langdetect reads no more, but would first clean the whole text
SHORT = 20  # letters; below, langdetect takes plain English for Portuguese or Welsh
LIKELY = 0.2  # probability


def languages_of(text: str) -> dict[str, float]:
    """Probabilities by code, the likeliest first; empty when the text has no letters to go by.

    Raises:
        DataError: langdetect is not installed.
    """
    detector = _factory().create()
    from langdetect.lang_detect_exception import LangDetectException

    detector.append(text[:READ])
    try:
        return {found.lang: found.prob for found in detector.get_probabilities()}
    except LangDetectException:  # no features in the text
        return {}


def language_of(text: str) -> str | None:
    """The likeliest code, as `langdetect.detect`; None when nothing can be said."""
    return next(iter(languages_of(text)), None)


def same_language(found: str, wanted: str) -> bool:
    """zh stands for zh-cn and zh-tw."""
    return wanted in (found, found.partition("-")[0])


def is_english(text: str) -> bool:
    """Whether a text may be English, in any case: langdetect takes French in capitals for English."""
    letters = [letter for letter in text[:READ] if letter.isalpha()]
    if len(letters) < SHORT:
        return all(letter.isascii() for letter in letters)
    return languages_of(text[:READ].lower()).get("en", 0.0) >= LIKELY


@functools.lru_cache(maxsize=1)
def _factory() -> Any:
    """Half a second: it reads 55 profiles. Our own, so that nobody else's seed is changed."""
    check_installed()
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = 0
    return factory


def check_installed() -> None:
    if importlib.util.find_spec("langdetect") is None:
        what = "The library langdetect is not installed."
        raise DataError(Problem("verifier-library", "verifier ifeval", what, 'pip install "tulu-recipes[rlvr]".'))
