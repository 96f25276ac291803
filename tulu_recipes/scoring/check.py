"""Whether a name is that of a reward model, from its small files alone: no weight is loaded to say no."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_recipes import hub
from tulu_recipes.config.surroundings import is_local
from tulu_recipes.errors import HubError, Problem

CLASSIFIER = "ForSequenceClassification"


@dataclass(frozen=True)
class ScorerFiles:
    """What the files of a reward model say.

    adapter: a LoRA adapter, on `base`; None where the model is whole.
    positions: longest row in tokens; None where the configuration does not say.
    """

    adapter: bool
    base: str | None
    positions: int | None


def read_scorer(name: str, revision: str | None) -> ScorerFiles | list[Problem]:
    """What `name` is, or why nothing can be scored with it."""
    where = f"--model {name}"
    if is_local(name) and not Path(name).is_dir():
        what = f"{name} is no folder; paths are relative to the current directory."
        return [Problem("path-missing", where, what, "check the path, or name a Hub id.")]
    if Path(name).is_dir() and revision is not None:
        what = f"--model_revision {revision} has no effect: {name} is a local folder."
        return [Problem("revision-ignored", where, what, "remove --model_revision, or name a Hub id.")]
    if problems := hub.check_readable(name, revision=revision, where=where):
        return problems
    try:
        adapter = _read_json(name, "adapter_config.json", revision)
        if adapter is not None:
            return _read_adapter(name, adapter)
        config = _read_json(name, "config.json", revision)
        tokenizer = _read_json(name, "tokenizer_config.json", revision)
    except ValueError as error:
        what = f"A JSON file of {name} is broken: {error}."
        return [Problem("model-files-broken", where, what, "download or copy the model again.")]
    except HubError as error:
        return error.problems
    return _read_whole(name, config, tokenizer)


def _read_whole(
    name: str, config: dict[str, Any] | None, tokenizer: dict[str, Any] | None
) -> ScorerFiles | list[Problem]:
    where = f"--model {name}"
    if config is None:
        unfinished = (Path(name) / "run.json").is_file()
        what = f"{name} has no config.json" + (": its run has not finished." if unfinished else ", so it is no model.")
        mend = "finish the run with its own command." if unfinished else "name the folder that save_pretrained wrote."
        return [Problem("model-incomplete", where, what, mend)]
    architectures = [str(architecture) for architecture in config.get("architectures") or []]
    if not any(architecture.endswith(CLASSIFIER) for architecture in architectures):
        kind = architectures[0] if architectures else "model of no named architecture"
        return [_no_reward_model(name, f"is a {kind}: it has no head that scores")]
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if labels != 1:
        return [_no_reward_model(name, f"is a classifier with {labels} labels, not one score")]
    if tokenizer is None:
        what = f"{name} has no tokenizer_config.json, so its tokenizer cannot be loaded."
        return [Problem("tokenizer-missing", where, what, "copy the tokenizer's files of the base model there.")]
    return ScorerFiles(False, None, _positions(config))


def _read_adapter(name: str, adapter: dict[str, Any]) -> ScorerFiles | list[Problem]:
    if adapter.get("task_type") != "SEQ_CLS":
        return [_no_reward_model(name, f"is an adapter for {adapter.get('task_type')}: it has no head that scores")]
    base = str(adapter.get("base_model_name_or_path"))
    where = f"--model {name}"
    if problems := hub.check_readable(base, where=f"{where}, whose base is {base}"):
        return problems
    config = _read_json(base, "config.json", None)
    return ScorerFiles(True, base, _positions(config or {}))


def _no_reward_model(name: str, what: str) -> Problem:
    return Problem(
        "no-reward-model",
        f"--model {name}",
        f"{name} {what}.",
        "name a model with one score: what the reward stage saved, or a sequence classifier with num_labels 1.",
    )


def _positions(config: dict[str, Any]) -> int | None:
    text = config.get("text_config") or {}
    found = config.get("max_position_embeddings") or text.get("max_position_embeddings")
    return found if isinstance(found, int) else None


def _read_json(name: str, filename: str, revision: str | None) -> dict[str, Any] | None:
    text = hub.read_text(name, filename, revision=revision)
    if text is None:
        return None
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{filename} is not an object")
    return value
