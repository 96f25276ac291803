"""Calls of tulu_recipes.hub in a client's process: HF_ENDPOINT is read when huggingface_hub is imported.

Several calls share one process, as its start costs most of a second.
"""

import json
from pathlib import Path
from typing import Any

from tests.hub.fixtures import RunningHub

RUNNER = """
    import json, os, time
    from huggingface_hub import HfApi, get_session, get_token  # loaded before the clock runs
    from tulu_recipes import hub
    from tulu_recipes.errors import HubError
    result = []
    for name, args, options in json.loads(os.environ["CALLS"]):
        started, value, problems, text = time.monotonic(), None, [], ""
        try:
            value = getattr(hub, name)(*args, **options)
        except HubError as error:
            problems, text = error.problems, str(error)
        if name.startswith("check_"):
            value, problems = None, value
            text = "\\n".join(problem.render() for problem in problems)
        slugs = [problem.slug for problem in problems]
        result.append({"value": value, "slugs": slugs, "text": text, "seconds": time.monotonic() - started})
"""

Call = tuple[str, list[Any], dict[str, Any]]


def call(name: str, *args: object, **options: object) -> Call:
    return name, [str(a) if isinstance(a, Path) else a for a in args], options


def ask(hub: RunningHub, *calls: Call, token: str | None = "write", **env: str) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = hub.run(RUNNER, env=hub.env(token, CALLS=json.dumps(calls), **env))
    return answers


def ask_one(hub: RunningHub, one: Call, token: str | None = "write", **env: str) -> dict[str, Any]:
    return ask(hub, one, token=token, **env)[0]
