"""Checks of the model's small files: lengths, special tokens, chat template, architecture.

They are read as JSON and text from a local folder, or from the Hub where a reader is given. No tokenizer
is built: this has to answer before torch could be imported.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tulu_recipes.config.check_training import low_precision_problems
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.surroundings import ReadText, Surroundings, is_local, local_path
from tulu_recipes.errors import Problem
from tulu_recipes.hub import file_sha256

# {% generation %} ... {% endgeneration %}: how a chat template marks what the assistant wrote
_GENERATION = re.compile(r"\{%-?\+?\s*generation\s*[-+]?%\}")

# Templates of this repository, known to mark the assistant's text
OWN_TEMPLATES = ("tulu",)


@dataclass(frozen=True)
class ModelFiles:
    """The small files of one model or tokenizer.

    repo: folder or Hub id. read_text: None for a local folder.
    """

    repo: str
    read_text: ReadText | None = None
    revision: str | None = None

    def read(self, filename: str) -> str | None:
        if self.read_text is not None:
            return self.read_text(self.repo, filename, revision=self.revision)
        file = local_path(self.repo) / filename
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None

    def read_json(self, filename: str) -> dict[str, Any] | None:
        """None when the file is absent. Raises ValueError when it is no JSON object."""
        text = self.read(filename)
        if text is None:
            return None
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value

    @cached_property
    def config(self) -> dict[str, Any] | None:
        return self.read_json("config.json")

    @cached_property
    def tokenizer_config(self) -> dict[str, Any] | None:
        return self.read_json("tokenizer_config.json")

    @cached_property
    def special_tokens_map(self) -> dict[str, Any]:
        return self.read_json("special_tokens_map.json") or {}

    def token(self, name: str) -> str | None:
        """Text of `eos_token` or `pad_token`; None when no file names it."""
        for source in (self.tokenizer_config or {}, self.special_tokens_map):
            value = source.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                return text
        return None

    def may_have_token(self, name: str) -> bool:
        """False when the files say that there is none: some tokenizer classes bring tokens of their own."""
        if self.token(name) is not None:
            return True
        explicit = name in (self.tokenizer_config or {}) or name in self.special_tokens_map
        return not explicit and (self.config or {}).get(f"{name}_id") is not None

    def chat_template(self) -> str | None:
        text = self.read("chat_template.jinja")
        if text is None:
            text = _default_template((self.read_json("chat_template.json") or {}).get("chat_template"))
        if text is None:
            text = _default_template((self.tokenizer_config or {}).get("chat_template"))
        return text


def _default_template(value: Any) -> str | None:
    if isinstance(value, list):
        value = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
    if isinstance(value, dict):
        value = value.get("default")
    return value if isinstance(value, str) else None


def has_generation_markers(template: str) -> bool:
    return _GENERATION.search(template) is not None


def files_of_model(recipe: Recipe, surroundings: Surroundings) -> ModelFiles | None:
    """None when there is nothing to read yet: a folder to be made first, or a Hub that may not be asked."""
    name = recipe["model_name_or_path"]
    if recipe["model_builder"] and name and not local_path(name).exists():
        return None
    if recipe.untrained():
        return None
    return files_of(name, recipe["model_revision"], surroundings)


def files_of(name: str | None, revision: str | None, surroundings: Surroundings) -> ModelFiles | None:
    if not name:
        return None
    if is_local(name):
        return ModelFiles(name) if local_path(name).is_dir() else None
    if surroundings.read_text is None:
        return None
    return ModelFiles(name, surroundings.read_text, revision)


def check_model_files(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """Everything that the model's own files say against the recipe; nothing when they cannot be read yet."""
    files = files_of_model(recipe, surroundings)
    if files is None:
        return
    where = recipe.where("model_name_or_path")
    try:
        # all three are read here, so that a broken file is reported once
        config, tokenizer, _ = files.config, files.tokenizer_config, files.special_tokens_map
    except ValueError as error:
        yield Problem(
            "model-files-broken", where, f"A JSON file of {files.repo} is broken: {error}.", "download it again."
        )
        return
    if config is None:
        yield Problem(
            "model-incomplete",
            where,
            f"{files.repo} has no config.json, so it is not a transformers model.",
            "name the folder that save_pretrained wrote, e.g. a checkpoint-N inside it.",
        )
        return
    yield from _architecture_problems(recipe, config)
    if recipe["dtype"] == "auto":
        yield from low_precision_problems(recipe, _stored_dtype(config), surroundings)
    if tokenizer is None:
        yield Problem(
            "tokenizer-missing",
            where,
            f"{files.repo} has no tokenizer_config.json, so its tokenizer cannot be loaded.",
            "copy the tokenizer's files of the base model into the folder.",
        )


def _stored_dtype(config: dict[str, Any]) -> str:
    return str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")


def classifier_of(architectures: Sequence[Any] | None) -> str | None:
    """The first of the `architectures` of a config.json that has a head for scores or classes."""
    return next((str(name) for name in architectures or () if str(name).endswith("ForSequenceClassification")), None)


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Longest row in tokens that a config.json allows; None where it does not say."""
    found = config.get("max_position_embeddings") or (config.get("text_config") or {}).get("max_position_embeddings")
    return found if isinstance(found, int) else None


def describe_weights(name: str, commit: str | None) -> str | None:
    """The weights a model name stands for: the commit on the Hub, a hash of a local folder's weight files, or None."""
    folder = Path(name).expanduser()
    if commit or not name or not folder.is_dir():
        return commit
    digests = [bytes.fromhex(file_sha256(path)) for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(b"".join(digests)).hexdigest() if digests else None


def _architecture_problems(recipe: Recipe, config: dict[str, Any]) -> Iterator[Problem]:
    classifier = classifier_of(config.get("architectures"))
    if classifier and recipe.stage != "reward":
        yield Problem(
            "wrong-architecture",
            recipe.where("model_name_or_path"),
            f"{recipe['model_name_or_path']} is a {classifier}, a reward model: it gives a score, not text.",
            "name the language model that it was trained from.",
        )


def check_model_length(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    if recipe.stage == "rlvr":  # whose two lengths are added up: online_files.check_lengths
        return
    config = _readable(recipe, surroundings, "config")
    length = recipe["max_length"]
    limit = positions_of(config)
    if length is None or limit is None or length <= limit:
        return
    default = "" if "max_length" in recipe.given else " (the default)"
    yield Problem(
        "max-length",
        recipe.where("max_length"),
        f"max_length is {length:,}{default}, but the model has {limit:,} positions (max_position_embeddings).",
        f"write  max_length: {limit}  or less.",
    )


def check_special_tokens(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    tokenizer = _readable(recipe, surroundings, "tokenizer_config")
    files = files_of_model(recipe, surroundings)
    if not tokenizer or files is None:
        return
    eos, pad = recipe["eos_token"] or files.token("eos_token"), recipe["pad_token"] or files.token("pad_token")
    name = recipe["model_name_or_path"]
    if not recipe["eos_token"] and not files.may_have_token("eos_token"):
        yield Problem(
            "eos-missing",
            recipe.where("model_name_or_path"),
            f"The tokenizer of {name} has no EOS token, so the model could not learn to stop.",
            "write  eos_token: one of its vocabulary that ends a turn.",
        )
    if not recipe["pad_token"] and not files.may_have_token("pad_token"):
        yield Problem(
            "pad-missing",
            recipe.where("model_name_or_path"),
            f"The tokenizer of {name} has no padding token, and TRL would take EOS: then EOS is never supervised.",
            'write  pad_token: "<pad>"; it is added to the vocabulary.',
        )
    # the recipe's own pair is checked without the model's files
    if pad is not None and pad == eos and not (recipe["pad_token"] and recipe["eos_token"]):
        yield Problem(
            "pad-is-eos",
            recipe.where("pad_token" if recipe["pad_token"] else "model_name_or_path"),
            f"Padding and EOS of {name} are both {pad}: padding is never supervised, so neither is EOS.",
            'write  pad_token: "<pad>"; it is added to the vocabulary.',
        )


def check_chat_template(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    named = recipe["chat_template"]
    if named in OWN_TEMPLATES:
        return
    where = recipe.where("chat_template" if named else "model_name_or_path")
    owner = named or recipe["model_name_or_path"]
    template = _named_template(named, recipe, surroundings)
    if template is None:
        return
    if not template:
        yield Problem(
            "template-missing",
            where,
            f"{owner} has no chat template, so conversations cannot become text.",
            "write  chat_template: tulu",
        )
    elif recipe.stage != "rlvr" and not has_generation_markers(template):
        yield Problem(
            "template-without-generation",
            where,
            f"The chat template of {owner} does not mark what the assistant wrote ({{% generation %}}), so the loss "
            "could not be kept to it.",
            "write  chat_template: tulu,  or a .jinja file with {% generation %} ... {% endgeneration %}",
        )


def _named_template(named: str | None, recipe: Recipe, surroundings: Surroundings) -> str | None:
    """The template's text, empty when its owner has none, None when it cannot be read from here."""
    if named and local_path(named).is_file():
        return Path(named).expanduser().read_text(encoding="utf-8", errors="replace")
    files = files_of(named, None, surroundings) if named else files_of_model(recipe, surroundings)
    if files is None:
        return None
    try:
        return files.chat_template() or ("" if named or files.tokenizer_config is not None else None)
    except ValueError:
        return None


def _readable(recipe: Recipe, surroundings: Surroundings, attribute: str) -> dict[str, Any]:
    """A file's content, or nothing when it is absent or broken (check_model_files says so)."""
    files = files_of_model(recipe, surroundings)
    if files is None:
        return {}
    try:
        return getattr(files, attribute) or {}
    except ValueError:
        return {}


CHECKS = (check_model_files, check_model_length, check_special_tokens, check_chat_template)
