"""Whether a name is that of a reward model, from its small files alone: no weight is loaded to say no."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_recipes import hub
from tulu_recipes.config.model_files import ModelFiles, classifier_of, positions_of
from tulu_recipes.config.surroundings import is_local
from tulu_recipes.errors import HubError, Problem


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
        files = _files(name, revision)
        adapter = files.read_json("adapter_config.json")
        if adapter is not None:
            return _read_adapter(name, adapter)
        config, tokenizer = files.config, files.tokenizer_config
    except ValueError as error:
        what = f"A JSON file of {name} is broken: {error}."
        return [Problem("model-files-broken", where, what, "download or copy the model again.")]
    except HubError as error:
        return error.problems
    return _read_whole(name, config, tokenizer)


def _files(name: str, revision: str | None) -> ModelFiles:
    return ModelFiles(name, hub.read_text, revision)


def _read_whole(
    name: str, config: dict[str, Any] | None, tokenizer: dict[str, Any] | None
) -> ScorerFiles | list[Problem]:
    where = f"--model {name}"
    if config is None:
        unfinished = (Path(name) / "run.json").is_file()
        what = f"{name} has no config.json" + (": its run has not finished." if unfinished else ", so it is no model.")
        mend = "finish the run with its own command." if unfinished else "name the folder that save_pretrained wrote."
        return [Problem("model-incomplete", where, what, mend)]
    architectures = config.get("architectures") or []
    if classifier_of(architectures) is None:
        kind = architectures[0] if architectures else "model of no named architecture"
        return [_no_reward_model(name, f"is a {kind}: it has no head that scores")]
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if labels != 1:
        return [_no_reward_model(name, f"is a classifier with {labels} labels, not one score")]
    if tokenizer is None:
        what = f"{name} has no tokenizer_config.json, so its tokenizer cannot be loaded."
        return [Problem("tokenizer-missing", where, what, "copy the tokenizer's files of the base model there.")]
    return ScorerFiles(False, None, positions_of(config))


def _read_adapter(name: str, adapter: dict[str, Any]) -> ScorerFiles | list[Problem]:
    if adapter.get("task_type") != "SEQ_CLS":
        return [_no_reward_model(name, f"is an adapter for {adapter.get('task_type')}: it has no head that scores")]
    base = str(adapter.get("base_model_name_or_path"))
    where = f"--model {name}"
    if problems := hub.check_readable(base, where=f"{where}, whose base is {base}"):
        return problems
    return ScorerFiles(True, base, positions_of(_files(base, None).config or {}))


def _no_reward_model(name: str, what: str) -> Problem:
    return Problem(
        "no-reward-model",
        f"--model {name}",
        f"{name} {what}.",
        "name a model with one score: what the reward stage saved, or a sequence classifier with num_labels 1.",
    )
