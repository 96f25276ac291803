"""README.md of a trained model: enough to use it, to judge it, and to train it again."""

from pathlib import Path
from typing import Any

import yaml

from tulu_recipes import hub
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.hub_problems import RepoType
from tulu_recipes.reports import online_card, preference_card
from tulu_recipes.reports.reward_report import reward_section
from tulu_recipes.reports.shown_metrics import GRADED, data_markdown
from tulu_recipes.run import package_versions, read_alarms, read_json, read_metrics, write_text

USE = """```python
from transformers import pipeline

chat = pipeline("text-generation", model="{name}")
print(chat([{{"role": "user", "content": "How many legs has a cat?"}}], max_new_tokens=64, return_full_text=False))
```"""

_TRAINED = {
    "sft": "supervised fine-tuning on",
    "dpo": "preference tuning (DPO) on the pairs of",
    "reward": "training as a reward model on the pairs of",
    "rlvr": "reinforcement learning with verifiable rewards on the prompts of",
}
_TAGS = {"reward": ["reward-model", "reward-trainer"]}  # of rlvr: the algorithm too


def write_model_card(folder: Path, recipe: Recipe) -> Path:
    """Write the card of the model in `folder`, with metadata that the Hub understands."""
    record = read_json(folder / "run.json")
    name = record.get("hub_repo") or str(folder)  # what from_pretrained takes
    path = folder / "README.md"
    front = yaml.safe_dump(_metadata(recipe, folder.name, record), sort_keys=False, allow_unicode=True)
    write_text(path, f"---\n{front}---\n\n{_body(folder, recipe, record, name)}")
    return path


def _metadata(recipe: Recipe, name: str, record: dict[str, Any]) -> dict[str, Any]:
    base, data = recipe["model_name_or_path"], recipe["dataset_name"]
    metadata: dict[str, Any] = {"library_name": "peft" if recipe["use_peft"] else "transformers", "model_name": name}
    if not Path(base).exists():
        metadata["base_model"] = base
        licence = hub.licence_of(base, repo_type="model", revision=recipe["model_revision"])
        if licence:
            metadata["license"] = licence
    if data and not Path(data).exists():
        metadata["datasets"] = [data]
    metadata["pipeline_tag"] = "text-classification" if recipe.stage == "reward" else "text-generation"
    metadata["tags"] = ["tulu-recipes", "trl", *_TAGS.get(recipe.stage, [recipe.stage])]
    if recipe.stage == "rlvr":
        metadata["tags"].append(recipe["algorithm"])
    if recipe.stage != "sft":
        metadata |= preference_card.evaluation_metadata(recipe, name, record["final_metrics"])
    return metadata


def _body(folder: Path, recipe: Recipe, record: dict[str, Any], name: str) -> str:
    resolved = (folder / "recipe.resolved.yaml").read_text(encoding="utf-8")
    versions = ", ".join(f"{package} {version}" for package, version in package_versions().items())
    reward = recipe.stage == "reward"
    card = online_card if recipe.stage == "rlvr" else preference_card
    method, papers = ([], []) if recipe.stage == "sft" else (card.method(recipe), card.papers(recipe))
    launch = f"accelerate launch -m tulu_recipes.{recipe.stage} recipe.yaml"
    curve = "![curves](loss.png)\n" if read_metrics(folder) else ""
    return "\n".join(
        [
            f"# {folder.name}",
            "",
            f"{_base(recipe)}, after {_TRAINED[recipe.stage]} {_data(recipe)} with `tulu_recipes`.",
            "",
            "## How to use",
            "",
            preference_card.use_reward(recipe, name) if reward else USE.format(name=name),
            "",
            *method,
            "## Results",
            "",
            *_results(folder, recipe, record),
            "",
            curve,
            *reward_section(folder),
            "## Data",
            "",
            *data_markdown(read_json(folder / "audit.json"), recipe.stage),
            "",
            "## How to train it again",
            "",
            f"Save the recipe below as `recipe.yaml` and run `{launch}`.",
            f"This run: {record['num_processes']} process(es), commit `{record['git_commit'] or 'unknown'}`.",
            "",
            "```yaml",
            resolved.rstrip(),
            "```",
            "",
            f"Software: {versions}.",
            "",
            *papers,
            "## Licence",
            "",
            _licence(recipe),
            "",
        ]
    )


def _base(recipe: Recipe) -> str:
    base, revision = recipe["model_name_or_path"], recipe["model_revision"]
    if Path(base).exists():
        return f"The local model `{base}`"
    sha = hub.resolve_revision(base, repo_type="model", revision=revision)
    return f"[{base}](https://huggingface.co/{base}) at `{sha or revision or 'main'}`"


def _data(recipe: Recipe) -> str:
    if recipe["dataset_mix"]:
        return _mix(recipe)
    data = recipe["dataset_name"]
    if Path(data).exists():
        return f"the local rows `{data}`"
    sha = hub.resolve_revision(data, repo_type="dataset", revision=recipe["dataset_revision"])
    return f"[{data}](https://huggingface.co/datasets/{data}) at `{sha or recipe['dataset_revision'] or 'main'}`"


def _mix(recipe: Recipe) -> str:
    lock = read_json(Path(recipe["output_dir"]) / "data.lock.json")
    sources = len(lock["sources"])
    return (
        f"the mix `{lock['name']}` ({lock['result']['rows']:,} rows, sources: {sources}; "
        f"content `{lock['result']['content_sha256'][:16]}`; its lock is `data.lock.json` in this repository)"
    )


def _results(folder: Path, recipe: Recipe, record: dict[str, Any]) -> list[str]:
    if recipe.stage == "sft":
        lines = [f"- {key}: {value:.6g}" for key, value in record["final_metrics"].items()]
    else:
        lines = preference_card.results(recipe, record["final_metrics"])
    if recipe.stage in GRADED and "samples" in record:
        name, prefix = GRADED[recipe.stage]
        samples = record["samples"]
        lines.append(
            f"- held-out {name}: {samples[prefix + '_before']:.3f} before, "
            f"{samples[prefix + '_after']:.3f} after training ({samples['rows']} rows)"
        )
    lines += [f"- alarm at step {alarm['step']:,}: {alarm['alarm']}" for alarm in read_alarms(folder)]
    lines.append(f"- training time: {record.get('seconds', 0):,.0f} s")
    lines.append(
        f"- saved weights loaded again: logits differ by at most {record['saved_model_difference']:.2g} (relative)"
    )
    return lines


def _licence(recipe: Recipe) -> str:
    sources: tuple[tuple[RepoType, str | None, str | None], ...] = (
        ("model", recipe["model_name_or_path"], recipe["model_revision"]),
        ("dataset", recipe["dataset_name"], recipe["dataset_revision"]),
    )
    licences = [
        f"{kind} `{name}`: {hub.licence_of(name, repo_type=kind, revision=revision) or 'not stated'}"
        for kind, name, revision in sources
        if name and not Path(name).exists()
    ]
    if recipe["dataset_mix"]:
        lock = read_json(Path(recipe["output_dir"]) / "data.lock.json")
        licences += [f"dataset `{source['name']}`: {source['licence'] or 'not stated'}" for source in lock["sources"]]
    if not licences:
        return "Base model and data are local files; state their licence before sharing this model."
    return "Inherited from " + "; ".join(licences) + ". The terms of the base model and of the data both apply."
