"""Checks of RLVR that read models' small files: lengths, and a value model that knows the policy's tokens."""

from collections.abc import Iterator, Mapping
from typing import Any

from tulu_recipes.config.model_files import ModelFiles, files_of, files_of_model, positions_of
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.surroundings import Surroundings, is_local, local_path
from tulu_recipes.errors import Problem

SCORERS = ("value_model_name_or_path", "reward_model_name_or_path")


def check_lengths(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """Prompt and completion together, against the positions of the model and the context of vLLM."""
    prompt, completion = recipe["max_prompt_length"], recipe["max_completion_length"]
    files = files_of_model(recipe, surroundings)
    limits = {
        "the model has {:,} positions (max_position_embeddings)": positions_of(_config(files)),
        "vLLM is given {:,} (vllm_max_model_length)": recipe["vllm_max_model_length"] if recipe["use_vllm"] else None,
    }
    for which, limit in limits.items():
        if limit is not None and prompt + completion > limit:
            given = "max_completion_length" if "max_completion_length" in recipe.given else "max_prompt_length"
            yield Problem(
                "max-length",
                recipe.where(given),
                f"max_prompt_length {prompt:,} + max_completion_length {completion:,} = {prompt + completion:,} "
                f"tokens, but {which.format(limit)}.",
                f"make them {limit:,} together, e.g.  max_prompt_length: {max(limit - completion, 1)}"
                if completion < limit
                else f"make them {limit:,} together or less.",
            )


def check_scorers(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """Folders of value and reward model hold a model."""
    for key in SCORERS:
        name = recipe[key]
        folder = local_path(name) if name and is_local(name) else None
        if folder is None or not folder.is_dir():
            continue
        if key == "value_model_name_or_path" and (folder / "adapter_config.json").is_file():
            what = f"{key}: {name} holds an adapter, and a value model is trained whole."
            mend = "merge it into its base (peft's merge_and_unload, then save_pretrained), and name that folder."
            yield Problem("model-incomplete", recipe.where(key), what, mend)
            continue
        described = any((folder / file).is_file() for file in ("config.json", "adapter_config.json"))
        if not described or not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
            missing = "weights (*.safetensors or *.bin)" if described else "config.json"
            mend = "name the folder that save_pretrained wrote, or let the run that writes it end first."
            yield Problem("model-incomplete", recipe.where(key), f"{key}: {name} holds no {missing}.", mend)


def check_value_tokens(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """The value model reads the policy's token ids: they must mean the same text to it."""
    name = recipe["value_model_name_or_path"]
    if not name or recipe["algorithm"] != "ppo" or name == recipe["model_name_or_path"]:
        return
    policy, value = files_of_model(recipe, surroundings), files_of(name, None, surroundings)
    if policy is None or value is None:
        return
    difference = _difference(policy, value)
    if difference:
        yield Problem(
            "value-model-tokenizer",
            recipe.where("value_model_name_or_path"),
            f"{name} has another tokenizer than {recipe['model_name_or_path']}: {difference}. It would value other "
            "text than the policy writes.",
            "name a reward model that was trained from a model with the policy's tokenizer, or remove the key: the "
            "value model then starts from the policy.",
        )


def _difference(policy: ModelFiles, value: ModelFiles) -> str:
    """In words, or empty. Special tokens that one of them lacks (a padding token) do no harm."""
    ours, theirs = _vocabulary(policy), _vocabulary(value)
    if ours and theirs:
        names = {number: token for token, number in theirs.items()}
        for token, number in sorted(ours.items(), key=lambda item: item[1]):
            if number in names and names[number] != token:
                return f"token {number} is {names[number]!r} there and {token!r} here"
        sizes = len(theirs), len(ours)
        shared = len(ours.keys() & theirs.keys())
        if shared < 0.99 * max(sizes):
            return f"it has {sizes[0]:,} tokens, the policy has {sizes[1]:,}"
        return ""
    known, needed = _rows(value), _rows(policy)
    if known and needed and known < needed:
        return f"it has {known:,} embeddings, the policy has {needed:,}"
    return ""


def _vocabulary(files: ModelFiles) -> dict[str, int]:
    """Token → id of a tokenizer.json, added tokens included; empty where it cannot be read."""
    try:
        tokenizer = files.read_json("tokenizer.json") or {}
    except ValueError:
        return {}
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if isinstance(vocabulary, list):  # Unigram: [token, score], in the order of ids
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    if not isinstance(vocabulary, dict):
        return {}
    return vocabulary | {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}


def _rows(files: ModelFiles) -> int | None:
    config = _config(files)
    found = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return found if isinstance(found, int) else None


def _config(files: ModelFiles | None) -> Mapping[str, Any]:
    try:
        return (files.config if files is not None else None) or {}
    except ValueError:
        return {}  # reported as model-files-broken


CHECKS = (check_lengths, check_scorers, check_value_tokens)
