"""What the card of a DPO or reward model says beyond that of any model: method, results on pairs, use, papers.

Results are those of RLVR too, whose method is in `online_card`.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.values import show
from tulu_recipes.reports.shown_metrics import NUMBERS

USE_REWARD = """It scores whole conversations and writes no text: it is no chat model. A score is one number, read at
the last token of the last answer; only scores of answers to the same prompt compare. `sigmoid(a - b)` is how likely
this model finds it that the answer scored `a` is preferred to the one scored `b`.

```python
import torch
{imports}

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {load}
question = {{"role": "user", "content": "How many legs has a cat?"}}
for answer in ("Four.", "Legs are a matter of taste."):
    chat = [question, {{"role": "assistant", "content": answer}}]
    tokens = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        print(answer, model(**tokens).logits.item())
```"""
_WHOLE = "from transformers import AutoModelForSequenceClassification, AutoTokenizer"
_ADAPTER = "from peft import AutoPeftModelForSequenceClassification\nfrom transformers import AutoTokenizer"

# Metric of a held-out evaluation → type and name on the Hub
_HUB_METRICS = {
    "dpo": {
        "eval_rewards/accuracies": ("accuracy", "Preference accuracy"),
        "eval_rewards/margins": ("margin", "Mean reward margin"),
        "eval_loss": ("loss", "Loss"),
    },
    "rlvr": {
        "eval_verifier/accuracy": ("accuracy", "Verified accuracy"),
        "eval_reward": ("reward", "Mean reward"),
    },
    "reward": {
        "eval_accuracy": ("accuracy", "Preference accuracy"),
        "eval_margin": ("margin", "Mean score margin"),
        "eval_loss": ("loss", "Loss"),
    },
}
_TASKS = {"dpo": "text-generation", "reward": "text-classification", "rlvr": "text-generation"}

_PAPERS = {
    "dpo": "Rafailov et al., *Direct Preference Optimization*, [arXiv 2305.18290](https://arxiv.org/abs/2305.18290)",
    "simpo": "Meng et al., *SimPO*, [arXiv 2405.14734](https://arxiv.org/abs/2405.14734)",
    "reward": "Ouyang et al., *Training language models to follow instructions with human feedback* (the loss), "
    "[arXiv 2203.02155](https://arxiv.org/abs/2203.02155)",
    "tulu": "Lambert et al., *Tülu 3*, [arXiv 2411.15124](https://arxiv.org/abs/2411.15124)",
    "trl": "von Werra et al., *TRL: Transformers Reinforcement Learning*, "
    "[github.com/huggingface/trl](https://github.com/huggingface/trl)",
}


def use_reward(recipe: Recipe, name: str) -> str:
    """How to load a reward model and score with it."""
    if recipe["use_peft"]:
        load = f'AutoPeftModelForSequenceClassification.from_pretrained("{name}", num_labels=1)'
        return USE_REWARD.format(name=name, imports=_ADAPTER, load=load)
    load = f'AutoModelForSequenceClassification.from_pretrained("{name}")'
    return USE_REWARD.format(name=name, imports=_WHOLE, load=load)


def method(recipe: Recipe) -> list[str]:
    """The section that says how pairs became a loss."""
    rows = _reward_method(recipe) if recipe.stage == "reward" else _dpo_method(recipe)
    return ["## Method", "", "| setting | value |", "|---|---|", *[f"| {name} | {text} |" for name, text in rows], ""]


def _dpo_method(recipe: Recipe) -> list[tuple[str, str]]:
    losses = recipe.loss_types()
    weights = recipe["loss_weights"] or [1.0] * len(losses)
    named = [
        f"`{loss}`" if len(losses) == 1 else f"{weight:g} × `{loss}`"
        for loss, weight in zip(losses, weights, strict=True)
    ]
    loss = " + ".join(named) + (", normalised by the length of each answer" if "sigmoid_norm" in losses else "")
    rows = [("loss", loss), ("beta", show(recipe["beta"]))]
    if recipe.is_simpo():
        rows.append(("gamma", show(recipe["simpo_gamma"])))
    turns = {
        "last_turn": "the last answer of each conversation",
        "all_assistant_turns": "every assistant turn of each conversation",
    }[recipe["masking"]]
    end = "without its end-of-turn token" if recipe["mask_termination_tokens"] else "end-of-turn token included"
    return [*rows, ("compared tokens", f"`{recipe['masking']}`: {turns}, {end}"), ("reference", _reference(recipe))]


def _reference(recipe: Recipe) -> str:
    if recipe.is_simpo():
        return "none"
    if recipe["use_peft"]:
        return "the base model, which is this model without its adapter"
    if recipe["precompute_ref_log_probs"]:
        return "the base model, its log-probs computed once before training"
    return "the base model, kept beside the trained one" + (", and moved after it" if recipe["sync_ref_model"] else "")


def _reward_method(recipe: Recipe) -> list[tuple[str, str]]:
    column = recipe["margin_column"]
    lead = f" − margin), margins from the column `{column}`" if column else ")"
    loss = f"−log σ(score of chosen − score of rejected{lead}"
    return [
        ("loss", f"{loss}, mean over the pairs of a step"),
        ("score", "one linear head on the last token's hidden state; no bound, no fixed zero"),
        ("pairs over length", f"`{recipe['over_length']}`, max_length {recipe['max_length']}"),
    ]


def results(recipe: Recipe, final_metrics: dict[str, float]) -> list[str]:
    """The table of the last evaluation on held-out pairs, or prompts."""
    shown = [
        (label, final_metrics[f"eval_{name}"])
        for name, label in NUMBERS[recipe.stage].items()
        if f"eval_{name}" in final_metrics
    ]
    if not shown:
        return [f"No held-out {_unit(recipe)} were evaluated.", ""]
    rows = [f"| {label} | {value:,.4g} |" for label, value in shown]
    return [f"| on {_heldout_name(recipe)} | mean |", "|---|---:|", *rows, ""]


def evaluation_metadata(recipe: Recipe, name: str, final_metrics: dict[str, float]) -> dict[str, Any]:
    """`model-index` of a card, as the Hub reads it; empty without an evaluation."""
    found = [
        EvalResult(
            task_type=_TASKS[recipe.stage],
            dataset_type=_dataset_type(recipe),
            dataset_name=_heldout_name(recipe),
            metric_type=kind,
            metric_name=metric,
            metric_value=round(final_metrics[key], 6),
        )
        for key, (kind, metric) in _HUB_METRICS[recipe.stage].items()
        if key in final_metrics
    ]
    if not found:
        return {}
    card: Any = ModelCardData(model_name=name, eval_results=found)
    return {"model-index": card.to_dict()["model-index"]}


def _dataset_type(recipe: Recipe) -> str:
    """The Hub id of the held-out rows; a local file has none."""
    data = recipe["eval_dataset_name"] or recipe["dataset_name"]
    local = "verifiable-prompts" if recipe.stage == "rlvr" else "preference-pairs"
    return local if Path(data).exists() else str(data)


def _unit(recipe: Recipe) -> str:
    return "prompts" if recipe.stage == "rlvr" else "pairs"


def _heldout_name(recipe: Recipe) -> str:
    data = recipe["eval_dataset_name"] or recipe["dataset_name"]
    split = "" if recipe["eval_dataset_name"] else f", split {recipe['dataset_test_split']}"
    return f"held-out {_unit(recipe)} ({Path(data).name if Path(data).exists() else data}{split})"


def papers(recipe: Recipe) -> list[str]:
    """What the training rests on."""
    keys = ["reward"] if recipe.stage == "reward" else ["simpo" if recipe.is_simpo() else "dpo"]
    if recipe.stage == "reward" or "sigmoid_norm" in recipe.loss_types():
        keys.append("tulu")
    return ["## Papers and software", "", *[f"- {_PAPERS[key]}" for key in [*keys, "trl"]], ""]
