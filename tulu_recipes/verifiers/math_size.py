"""Powers and factorials that nobody can compute: found in the text, before a library tries.

sympy computes numbers as it reads them, and a tower of powers takes all time and memory there is.
"""

import math
import re

MOST_DIGITS = 50_000.0  # of a number that is still computed, in some hundredths of a second
_BRACKETS = re.compile(r"\\(?:left|right|cdot|,|;|!|:)|[\s{}()\[\]]")
_POWERS = re.compile(r"(?<![0-9.])(?:[0-9]{1,40}(?:\.[0-9]{1,40})?(?:\^|\*\*)[+-]?)+[0-9]{1,40}(?:\.[0-9]{1,40})?")
_LONG_POWER = re.compile(r"[0-9](?:\^|\*\*)[+-]?[0-9]{7,}")
_FACTORIAL = re.compile(r"[0-9]{5,}!|[0-9]!!!")


def is_too_large(text: str) -> bool:
    """Whether a formula holds a power of numbers, or a factorial, of more than `MOST_DIGITS` digits.

    Brackets are left out, so (2^3)^4 is taken for 2^3^4: a bracketed power that large is in doubt too.
    """
    bare = _BRACKETS.sub("", text)
    if _FACTORIAL.search(bare) or _LONG_POWER.search(bare):
        return True
    return any(_digits(match[0]) > MOST_DIGITS for match in _POWERS.finditer(bare))


def _digits(power: str) -> float:
    """Decimal digits of a^b^c, taken from the right; infinite where that cannot be said."""
    *bases, top = re.split(r"\^|\*\*", power)
    digits, exponent = 0.0, abs(float(top))
    for base in reversed(bases):
        digits = exponent * abs(math.log10(max(abs(float(base)), 1e-300)))
        if digits > 15:
            return digits if base is bases[0] else math.inf
        exponent = abs(float(base)) ** exponent
    return digits
