"""What a recipe key is: what its value may be, whose it is, and whether another value can give other weights."""

from dataclasses import dataclass
from typing import Any, Literal

OURS = "tulu_recipes"
Use = Literal["passed", "ours_sets", "refused"]


@dataclass(frozen=True)
class Limits:
    """A number's allowed range; `open_low` excludes the lower end itself."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False

    def holds(self, value: float) -> bool:
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        low = "" if self.low is None else f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        high = "" if self.high is None else f"at most {self.high:g}"
        return " and ".join(part for part in (low, high) if part)


@dataclass(frozen=True)
class Key:
    """One recipe key.

    kinds: what a value may be, of "null" "bool" "int" "float" "str" "list" "dict".
    choices: allowed words; empty when any text will do.
    group: heading in --help; for TRL's keys the dataclass they belong to.
    source: "tulu_recipes" or the TRL dataclass.
    use: passed through to TRL | ours_sets (the stage gives it its value) | refused.
    reason: for ours_sets and refused keys, why, and what to write instead.
    changes_weights: whether another value can give other trained weights.
    item: what the elements of a list are, "str" or "float".
    """

    name: str
    kinds: tuple[str, ...]
    choices: tuple[str, ...]
    default: Any
    help: str
    group: str
    source: str
    limits: Limits | None = None
    use: Use = "passed"
    reason: str = ""
    mend: str = ""
    fixed_values: tuple[Any, ...] = ()
    changes_weights: bool = True
    item: Literal["str", "float"] = "str"


def our_key(
    name: str,
    kinds: str,
    default: Any,
    help: str,  # noqa: A002  # the dataclass field it fills
    group: str,
    *,
    choices: tuple[str, ...] = (),
    limits: Limits | None = None,
    changes_weights: bool = True,
    item: Literal["str", "float"] = "str",
) -> Key:
    return Key(
        name,
        tuple(kinds.split()),
        choices,
        default,
        help,
        group,
        OURS,
        limits,
        changes_weights=changes_weights,
        item=item,
    )


FRACTION = Limits(0, 1)
POSITIVE = Limits(1)


def alarm_keys(what: str) -> tuple[Key, Key]:
    """on_alarm and alarm_window of a stage; what: its alarms, in words."""
    help_text = f"What an alarm does: {what}."
    return (
        our_key("on_alarm", "str", "warn", help_text, "alarms", choices=("warn", "stop"), changes_weights=False),
        our_key(
            "alarm_window",
            "int",
            50,
            "Logged steps that an alarm averages over.",
            "alarms",
            limits=POSITIVE,
            changes_weights=False,
        ),
    )
