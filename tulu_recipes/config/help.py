"""--help: our keys first, with defaults and choices, then TRL's by the dataclass they belong to."""

import textwrap

from tulu_recipes.config.keys import OURS, Key
from tulu_recipes.config.schema import keys_for
from tulu_recipes.config.values import show

_WIDTH = 110
# What a stage's command does beside training
_MORE_USAGE = {
    "reward": "\n       python -m tulu_recipes.reward --score DATASET --model MODEL [...]   (--score --help says more)"
}


def render_usage(stage: str) -> str:
    return (
        f"usage: python -m tulu_recipes.{stage} RECIPE.yaml [--key value ...]\n"
        f"       accelerate launch -m tulu_recipes.{stage} RECIPE.yaml [--key value ...]\n"
        f"       python -m tulu_recipes.{stage} --help"
    ) + _MORE_USAGE.get(stage, "")


def render_help(stage: str) -> str:
    """Every key that a recipe may hold; refused keys and those the stage sets are named at the end."""
    keys = list(keys_for(stage).values())
    groups = dict.fromkeys(key.group for key in keys)
    parts = [
        render_usage(stage),
        "Every key below may stand in the recipe as  key: value  and on the command line as  --key value.\n"
        "Try first:  python -m tulu_recipes." + stage + f" recipes/tiny/{stage}.yaml",
    ]
    for group in groups:
        shown = [key for key in keys if key.group == group and key.use == "passed"]
        owner = "tulu_recipes" if shown and shown[0].source == OURS else "TRL"
        if shown:
            parts.append(f"{owner}: {group}\n" + "\n".join(_line(key) for key in shown))
    parts.append(_names("Set by the stage", [key.name for key in keys if key.use == "ours_sets"]))
    parts.append(_names("Refused, with the reason when used", [key.name for key in keys if key.use == "refused"]))
    return "\n\n".join(parts) + "\n"


def _line(key: Key) -> str:
    default = "" if key.default in (None, [], "") else f" [{show(key.default)}]"
    choices = f" {' | '.join(key.choices)}." if 0 < len(key.choices) <= 8 else ""
    words = key.help if key.source == OURS else textwrap.shorten(key.help, 90, placeholder=" ...")
    text = f"{words}{choices}{default}"
    return textwrap.fill(
        text, _WIDTH, initial_indent=f"  --{key.name}  ".ljust(32), subsequent_indent=" " * 32, break_on_hyphens=False
    )


def _names(title: str, names: list[str]) -> str:
    return f"{title}:\n" + textwrap.fill(
        ", ".join(names), _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
