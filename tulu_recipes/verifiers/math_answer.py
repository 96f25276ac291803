"""Where the answer of a mathematical completion stands. Pure functions on text, in linear time on any text.

The ways, in this order; the first that finds an answer counts (tulu3.md D3, without the release's faults):
1. the last `\\boxed{…}` or `\\fbox{…}` whose braces close, or `\\boxed 5`, and the sentence of 2 beside it;
2. "Final Answer: The final answer is … . I hope it is correct." (Lewkowycz et al. 2022);
3. the last formula between `$…$`, `$$…$$`, `\\(…\\)` or `\\[…\\]`;
4. the end of the whole answer, or of what its last <answer> tags hold.
"""

import re
import unicodedata
from typing import Literal, NamedTuple

from tulu_recipes.verifiers.string_match import final_answer

# One step of a walk through the braces: an opened box, another brace, or an escaped character, which is neither.
_STEP = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|(?P<bare>\\boxed(?![a-zA-Z{]))|(?P<brace>[{}])|\\.", re.DOTALL)
_UNTIL_DOLLAR = re.compile(r"[ \t]*([^$\n]{1,200})\$")
_TOKEN = re.compile(r"[ \t]*([^\s${}]{1,200})")
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2}")
_MINERVA = "final answer is"
_MINERVA_END = "i hope it is correct"
_DOLLARS = re.compile(r"\\[()\[\]]|\$\$?|\\.", re.DOTALL)
_ROOT = re.compile(r"√\s?(\d+(?:\.\d+)?|\([^()]*\)|[A-Za-z])")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_SIGNS = {"√": "\\sqrt", "∞": "\\infty", "·": "\\cdot ", "∈": "\\in ", "−": "-", "⁄": "/"}
TAIL = 1000  # characters of a whole answer that are read
MOST_BOXES = 8  # that may be one answer together


class Found(NamedTuple):
    """texts: readings of the answer, any of which may match; whole: it is running text, not a formula."""

    way: Literal["boxed", "sentence", "formula", "whole"]
    texts: tuple[str, ...]


def ways(completion: str) -> list[Found]:
    """What can be taken for the answer, best first: a later one is for an earlier one that proves to be no formula."""
    completion = as_latex(completion)
    boxes = boxed(completion)
    if boxes:
        # x = [1] and y = [2] are one answer in two boxes; [12], no, [13] is a corrected one: both are tried.
        together = [", ".join(boxes)] if 1 < len(boxes) <= MOST_BOXES else []
        said = sentence(completion)  # kept beside a box, whichever of the two is right [P:§7.2]
        return [Found("boxed", (boxes[-1], *together, *([said] if said else [])))]
    completion = final_answer(completion)  # inside <answer> tags, where there are any
    said, formula = sentence(completion), last_formula(completion)
    found = [Found("sentence", (said,))] if said else []
    found += [Found("formula", (formula,))] if formula else []
    return [*found, Found("whole", (completion[-TAIL:],))]


def as_latex(text: str) -> str:
    """√2, x², ½, ∞ and the digits of other scripts as math-verify reads them; the rest as it is."""
    if text.isascii():
        return text
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _RAISED.sub(lambda found: f"^{{{found[0].translate(_LOWERED)}}}", text)
    return _NOT_ASCII.sub(lambda found: _sign(found[0]), text)


def _sign(sign: str) -> str:
    if sign.isdecimal():
        return str(int(sign))
    above, slash, below = unicodedata.normalize("NFKC", sign).partition("⁄")  # of ½
    return f"\\frac{{{above}}}{{{below}}}" if slash and above and below else _SIGNS.get(sign, sign)


def is_bare_formula(text: str) -> bool:
    """A whole answer that is a formula without its dollars: 2\\sqrt{3}, but no running text."""
    return len(text) < TAIL and is_comparable(text) and not _PROSE.search(text)


def boxed(text: str) -> list[str]:
    """What the boxes hold, in their order; of nested boxes the innermost. Empty boxes hold no answer."""
    found: list[tuple[int, str]] = []
    opened: list[int] = []  # for each open brace where the contents of its box start, or -1
    for step in _STEP.finditer(text):
        if step["box"]:
            opened.append(step.end())
        elif step["bare"]:
            found.append((step.end(), _bare(text, step.end())))
        elif step["brace"] == "{":
            opened.append(-1)
        elif step["brace"] and opened:
            start = opened.pop()
            inner = found[-1][0] if found else -1
            if start > inner:
                found.append((start, text[start : step.start()]))
    return [content.strip() for _, content in found if content.strip()]


def _bare(text: str, start: int) -> str:
    """What `\\boxed` without braces holds: all until the dollar, unless that is prose, else one word."""
    formula = _UNTIL_DOLLAR.match(text, start)
    if formula and not _PROSE.search(formula[1]):
        return formula[1]
    token = _TOKEN.match(text, start)
    return token[1] if token else ""


def sentence(text: str) -> str:
    """The answer in the Minerva sentence, the last one; empty when there is none."""
    lower = text.lower() if text.isascii() else _ascii_lower(text)
    start = lower.rfind(_MINERVA)
    if start < 0:
        return ""
    end = lower.find(_MINERVA_END, start)
    if end < 0:
        end = lower.find("\n", start)
    said = text[start + len(_MINERVA) : end if end >= 0 else len(text)]
    return said.strip().removeprefix(":").rstrip(" \n.").strip(" $")


def _ascii_lower(text: str) -> str:
    """Of the same length as the text, which lower() does not promise."""
    return text.translate({upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)})


def last_formula(text: str) -> str:
    """Between the last two delimiters that hold more than space; empty when there are none."""
    ends = [step for step in _DOLLARS.finditer(text) if step[0][0] == "$" or step[0][1] in "()[]"]
    for opening, closing in zip(ends[-2::-1], ends[:0:-1], strict=True):
        content = text[opening.end() : closing.start()].strip()
        if content:
            return content
    return ""


_WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_DROPPED = re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:!]|\$")
_SPACE = re.compile(r"(?:\s|~|\\ )+")
_IDLE_SPACE = re.compile(r"(?<!\w) | (?!\w)")  # 1 1/2 is not 11/2
_WORD = re.compile(r"[^\W\d_]{3}")


def plain(text: str) -> str:
    """A text by which equal answers of any kind can be seen to be equal: without spacing, fonts and the final stop."""
    text = _WRAPPED.sub(r"\1", text)
    text = _IDLE_SPACE.sub("", _SPACE.sub(" ", _DROPPED.sub("", text)))
    text = text.replace("dfrac", "frac").replace("tfrac", "frac").rstrip(".")
    return text.casefold() if _WORD.search(text) and "\\" not in text else text


def is_comparable(text: str) -> bool:
    """Something is left of it when spacing is gone, and its braces close."""
    open_braces = 0
    for step in re.finditer(r"\\.|[{}]", text):
        open_braces += {"{": 1, "}": -1}.get(step[0], 0)
        if open_braces < 0:
            return False
    return open_braces == 0 and any(letter.isalnum() for letter in plain(text))


def label_text(ground_truth: str) -> str:
    """A label may stand in dollars or a box."""
    ground_truth = as_latex(ground_truth)
    boxes = boxed(ground_truth)
    return (boxes[-1] if boxes else ground_truth).strip().strip("$").strip()
