"""Checks of DPO: what does not go together, and keys that nothing would read."""

from collections.abc import Iterator

from tulu_recipes.config.check_training import consents_to
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.schema import keys_for
from tulu_recipes.config.surroundings import Surroundings
from tulu_recipes.config.values import show
from tulu_recipes.errors import Problem

# They sort the pairs of a micro-batch against each other
_SORTING = ("aot", "aot_unpaired")
# f-divergences are defined on the difference of two rewards; as TRL has it
_DIVERGING = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
_SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired", "simpo")


def check_losses(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    losses, where = recipe.loss_types(), recipe.where("loss_type")
    recipe["loss_type"], recipe["loss_weights"]  # a value that was refused is judged no further
    if not losses or len(set(losses)) != len(losses):
        what = "loss_type is an empty list." if not losses else f"loss_type names a loss twice: {', '.join(losses)}."
        yield Problem("loss-combination", where, what, "name each loss once; loss_weights says how much it counts.")
    if "simpo" in losses and len(losses) > 1:
        what = "simpo is a loss of another trainer, without a reference model, and cannot be added to others."
        yield Problem("loss-combination", where, what, "write  loss_type: simpo,  or leave it out of the list.")
    weights = recipe["loss_weights"]
    if weights is not None and len(weights) != len(losses):
        what = f"loss_weights has {len(weights)} numbers for {len(losses)} losses ({', '.join(losses)})."
        mend = f"write  loss_weights: {show([1.0] * len(losses))}  with your weights, or remove it."
        yield Problem("loss-combination", recipe.where("loss_weights"), what, mend)
    elif weights is not None and (min(weights) < 0 or not any(weights)):
        what = f"loss_weights is {show(weights)}: below 0 a loss is turned round, and with 0 alone nothing trains."
        yield Problem("loss-combination", recipe.where("loss_weights"), what, "write weights from 0 on, one above it.")
    sorting = [loss for loss in losses if loss in _SORTING]
    if sorting and not consents_to(recipe, "loss-per-microbatch"):
        yield Problem(
            "loss-per-microbatch",
            where,
            f"{sorting[0]} sorts the pairs of one micro-batch, so the result depends on the division of the batch.",
            "write  loss_type: sigmoid,  or to use it on one machine  allow: [loss-per-microbatch]",
        )


def check_smoothing(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    losses, smoothing = recipe.loss_types(), recipe["label_smoothing"]
    where = recipe.where("label_smoothing" if "label_smoothing" in recipe.given else "loss_type")
    if "exo_pair" in losses and smoothing == 0:
        what = "exo_pair needs a label_smoothing above 0."
        yield Problem("loss-label-smoothing", where, what, "write  label_smoothing: 1.0e-3  (the EXO paper)")
    if "robust" in losses and smoothing >= 0.5:
        what = f"robust with label_smoothing: {show(smoothing)}: it is the share of wrong labels, below 0.5."
        yield Problem("loss-label-smoothing", where, what, "write  label_smoothing: 0.1  or what the labels have.")
    if "robust" in losses and smoothing == 0 and len(losses) == 1:
        what = "robust with label_smoothing: 0 is sigmoid."
        yield Problem("loss-label-smoothing", where, what, "write  label_smoothing: 0.1,  or  loss_type: sigmoid")


def check_divergence(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    kind, losses = recipe["f_divergence_type"], recipe.loss_types()
    known = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
    where = recipe.where("f_divergence_type")
    if kind not in known:
        what = f"f_divergence_type is {kind}, which is no valid value."
        yield Problem("unknown-choice", where, what, f"write one of {', '.join(known)}.")
    elif kind != "reverse_kl" and not set(losses) <= set(_DIVERGING):
        other = next(loss for loss in losses if loss not in _DIVERGING)
        what = f"f_divergence_type: {kind} is not defined for {other}."
        yield Problem("loss-combination", where, what, "remove f_divergence_type, or use sigmoid or sigmoid_norm.")
    if recipe["use_weighting"] and {*_SORTING, "sft"} & set(losses):
        what = f"use_weighting weighs pairs one by one, which {', '.join(losses)} does not allow."
        yield Problem("loss-combination", recipe.where("use_weighting"), what, "remove use_weighting.")


def check_reference(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    if not recipe["sync_ref_model"]:
        return
    where = recipe.where("sync_ref_model")
    if recipe["use_peft"] or recipe.values.get("precompute_ref_log_probs"):
        key = "use_peft" if recipe["use_peft"] else "precompute_ref_log_probs"
        what = f"sync_ref_model: true with {key}: true: there is no second model that could follow the first."
        yield Problem("moving-reference", where, what, f"remove sync_ref_model, or {key}.")
    elif recipe["save_strategy"] != "no":
        what = "sync_ref_model: true: a checkpoint does not hold the reference that moved, so a resumed run would "
        what += "train against another one."
        yield Problem("moving-reference", where, what, 'remove sync_ref_model, or write  save_strategy: "no"')


def check_ignored_keys(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """A key that somebody gave another value, and that nothing would read."""
    losses = set(recipe.loss_types())
    simpo, cached = "simpo" in losses, recipe["precompute_ref_log_probs"]
    unread: dict[str, tuple[bool, str]] = {
        "simpo_gamma": (not simpo, "loss_type is not simpo"),
        "discopop_tau": ("discopop" not in losses, "loss_type is not discopop"),
        "label_smoothing": (not losses & set(_SMOOTHED), f"of the losses only {', '.join(_SMOOTHED)} read it"),
        "f_alpha_divergence_coef": (
            recipe["f_divergence_type"] != "alpha_divergence",
            "f_divergence_type is not alpha_divergence",
        ),
        "ref_log_probs_cache": (not cached, "precompute_ref_log_probs is not true"),
        "precompute_ref_batch_size": (not cached, "precompute_ref_log_probs is not true"),
        "ref_model_sync_steps": (not recipe["sync_ref_model"], "sync_ref_model is not true"),
        "ref_model_mixup_alpha": (not recipe["sync_ref_model"], "sync_ref_model is not true"),
        "max_early_divergence_fraction": (
            recipe["masking"] == "all_assistant_turns",
            "masking: all_assistant_turns compares every turn, wherever they part",
        ),
    }
    for key in ("precompute_ref_log_probs", "sync_ref_model", "ld_alpha", "use_weighting"):
        unread.setdefault(key, (simpo, "SimPO has no reference model"))
    for key in ("f_divergence_type", "concatenated_forward", "loss_weights"):
        unread[key] = (simpo, "TRL's SimPO does not have it")
    unread["beta"] = (losses == {"sft"}, "sft alone has no reference model")
    for key, (ignored, why) in unread.items():
        if ignored and key in recipe.given and recipe[key] != keys_for(recipe.stage)[key].default:
            what = f"{key}: {show(recipe[key])} would be ignored: {why}."
            yield Problem("key-ignored", recipe.where(key), what, f"remove {key}, or change what it goes with.")


CHECKS = (check_losses, check_smoothing, check_divergence, check_reference, check_ignored_keys)
