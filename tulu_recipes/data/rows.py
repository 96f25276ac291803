"""What a row may look like, and what is wrong with it when it may not.

Two layouts are trained on as they are: `messages` (a list of {role, content}) and `prompt`/`completion`, both
strings or both lists of messages. Converting other layouts is the mixer's work.
"""

from typing import Any

from tulu_recipes.errors import DataError, Problem


def check_columns(columns: list[str], where: str) -> None:
    """Refuse a dataset that has neither layout, naming what it has."""
    if "messages" in columns or {"prompt", "completion"} <= set(columns):
        return
    raise DataError(
        Problem(
            "columns-unknown",
            where,
            f"The columns are {', '.join(sorted(columns)) or '(none)'}: neither `messages` nor `prompt` and "
            "`completion` is there.",
            "rename or convert the columns so that each row holds `messages`: [{role, content}, …].",
        )
    )


def row_fault(row: dict[str, Any]) -> str | None:
    """Why a row cannot be trained on as it stands, in a few words; None when it can."""
    if row.get("messages") is not None:
        return messages_fault(row["messages"])
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return None if completion.strip() else "empty completion"
    if isinstance(prompt, list) and isinstance(completion, list):
        if not completion:
            return "empty completion"
        return messages_fault(prompt + completion)
    if "prompt" in row or "completion" in row:
        return f"prompt is {_kind(prompt)} and completion is {_kind(completion)}; both must be text or both messages"
    return "messages is missing"


def messages_fault(messages: Any) -> str | None:
    """Why a list of messages is broken; None when every message has a role, and text for content."""
    if not isinstance(messages, list):
        return f"messages is {_kind(messages)}, not a list"
    if not messages:
        return "messages is an empty list"
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            return f"message {number} is {_kind(message)}, not an object with role and content"
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role:
            return f"message {number} has no role"
        if not isinstance(content, str):
            return f"message {number} ({role}) has {_kind(content)} for content, not text"
        if role == "assistant" and not content.strip():
            return f"message {number} (assistant) is empty"
    return None


def has_odd_order(messages: list[dict[str, str]]) -> bool:
    """Whether turns do not alternate user, assistant, … after an optional system turn. Trained on, but counted."""
    roles = [message["role"] for message in messages]
    if roles and roles[0] == "system":
        roles = roles[1:]
    return any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles))


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return {
        str: "text",
        list: "a list",
        dict: "an object",
        bool: "true/false",
        int: "a number",
        float: "a number",
    }.get(type(value), type(value).__name__)
