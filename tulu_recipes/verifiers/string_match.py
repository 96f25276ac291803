"""string_match: the final answer is the label, but for case, white space and the punctuation around it.

The final answer is what the last <answer>…</answer> holds; without such tags the whole completion. (open-instruct's
`string_matcher`, which came after Tülu 3, is the same only with tags: without them it grades wrong.)
"""

import re
import unicodedata

from tulu_recipes.verifiers.verdict import CORRECT, Verdict, error, wrong

_TAG = re.compile("<(/?)answer>", re.IGNORECASE)
# Signs of value (-, +, %, $, #) are not punctuation here; nor is a dot in front, as in .5
_BEFORE = " \"'“”‘’«»([{<*_`¿¡"
_AFTER = " \"'“”‘’«»)]}>*_`.,;:!?…。、，！？；："


def grade(completion: str, ground_truth: str) -> Verdict:
    label = normalized(ground_truth)
    if not label:
        return error("label is empty")
    answer = normalized(final_answer(completion))
    if not answer:
        return wrong("empty answer")
    return CORRECT if answer == label else wrong("another answer")


def label_fault(ground_truth: str) -> str | None:
    return None if ground_truth.strip() else "label is empty"


def final_answer(completion: str) -> str:
    """Inside the last pair of tags; a tag that is never closed is none."""
    start, inside = None, completion
    for tag in _TAG.finditer(completion):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            inside, start = completion[start : tag.start()], None
    return inside


def normalized(text: str) -> str:
    """Small letters in Unicode form NFKC, one space between words, no punctuation around unless it is all there is."""
    spaced = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return spaced.lstrip(_BEFORE).rstrip(_AFTER) or spaced
