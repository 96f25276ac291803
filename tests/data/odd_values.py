"""Random nested values, close enough to chat rows to get past the first checks."""

import datetime
import random
from typing import Any

KEYS = [
    "role",
    "content",
    "from",
    "value",
    "tool_calls",
    "name",
    "response",
    "annotations",
    "Rating",
    "overall_score",
    "",
]
TEXTS = ["", " ", "unusual", "user", "assistant", "USER", "human", "gpt", "system", "N/A", "5", "1e999", "ﬁ", "\u0000"]
PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    10**400,
    2.5,
    float("nan"),
    float("inf"),
    b"unusual",
    datetime.date(2024, 1, 1),
    set(),
]


def odd_value(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.35:
        return rng.choice(TEXTS) if rng.random() < 0.6 else rng.choice(PLAIN)
    if kind < 0.6:
        return [odd_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind < 0.8:
        return [_turn(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice([*KEYS, 5, None]): odd_value(rng, depth - 1) for _ in range(rng.randrange(4))}


def _turn(rng: random.Random, depth: int) -> dict[str, Any]:
    """A turn that is nearly always fine."""
    role = rng.choice(["user", "assistant", "system", odd_value(rng, depth)])
    content = "unusual" if rng.random() < 0.8 else odd_value(rng, depth)
    return {"role": role, "content": content, **({rng.choice(KEYS): None} if rng.random() < 0.2 else {})}
