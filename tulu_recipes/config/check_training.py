"""Checks of the training itself: loss, precision, packing, adapters, evaluation and saving."""

from collections.abc import Callable, Iterator
from typing import Any

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.reduction_rules import REDUCTION_RULES, Rule
from tulu_recipes.config.surroundings import Surroundings
from tulu_recipes.config.values import nearest, show
from tulu_recipes.errors import Problem

# Problems that a recipe may go on in spite of, by naming them in `allow`.
CONSENTS = (
    "microbatch-mean",
    "bf16-weights",
    "sum-optimizer",
    "eos-unsupervised",
    "double-bos",
    "loss-per-microbatch",
)

# Optimizers whose step grows with the gradient. Adam's relatives divide by the gradient's own size.
_SCALE_BOUND_OPTIMIZERS = ("sgd", "lomo", "schedule_free_sgd")

# bf16 keeps 8 significant bits: near a typical weight of 0.02, which lies in [2^-6, 2^-5), neighbouring values
# are 2^-6 * 2^-7 = 2^-13 apart, and an update below half of that rounds to nothing. AdamW's update is about the
# learning rate.
BF16_LOST_UPDATE = 2.0**-14

_ISOLATING_ATTENTION = ("sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4")
_ISOLATING_PREFIXES = ("kernels-community/flash-attn", "kernels-community/vllm-flash-attn")


def consents_to(recipe: Recipe, slug: str) -> bool:
    return slug in recipe["allow"]


def check_consents(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    for slug in recipe["allow"]:
        if slug not in CONSENTS:
            near = nearest(slug, CONSENTS)
            yield Problem(
                "unknown-consent",
                recipe.where("allow"),
                f"allow names {slug}, which cannot be allowed. Valid: {', '.join(CONSENTS)}.",
                f"write  {near}" if near else "remove it; other problems have to be mended.",
            )


def _as_check(rule: Rule) -> Callable[[Recipe, Surroundings], Iterator[Problem]]:
    return lambda recipe, surroundings: rule(recipe.__getitem__, recipe.where)


def check_microbatch_mean(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    if recipe["loss_reduction"] == "microbatch_mean" and not consents_to(recipe, "microbatch-mean"):
        yield Problem(
            "microbatch-mean",
            recipe.where("loss_reduction"),
            "loss_reduction: microbatch_mean is the historic error of averaging each micro-batch by itself: short "
            "answers weigh more, and the result depends on the division of the batch.",
            "write  loss_reduction: token_mean,  or to study the error  allow: [microbatch-mean]",
        )


def check_sum_optimizer(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    optimizer = recipe["optim"]
    if recipe["loss_reduction"] != "sum" or optimizer not in _SCALE_BOUND_OPTIMIZERS:
        return
    if not consents_to(recipe, "sum-optimizer"):
        yield Problem(
            "sum-optimizer",
            recipe.where("optim"),
            f"optim: {optimizer} with loss_reduction: sum: its step grows with the gradient, and a summed loss has "
            "gradients as many times larger as an answer has tokens. AdamW divides that out.",
            "write  optim: adamw_torch_fused,  or with a learning rate made for it  allow: [sum-optimizer]",
        )


def uses_mixed_precision(recipe: Recipe, surroundings: Surroundings) -> bool:
    """bf16 or fp16 autocast; TRL's bf16: null means true unless fp16 is set."""
    bf16, fp16 = recipe["bf16"], recipe["fp16"]
    launched = surroundings.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no"
    return bool(fp16 or bf16 or bf16 is None or launched)


def keeps_fp32_masters(recipe: Recipe, surroundings: Surroundings) -> bool:
    """Whether somebody keeps an fp32 copy of 16-bit weights for the optimizer.

    DeepSpeed does under mixed precision, and so does accelerate's FSDP (it upcasts trainable parameters);
    adapters are made in fp32 by peft. Plain DDP and single processes step the 16-bit weights themselves.
    """
    sharded = surroundings.switched_on("ACCELERATE_USE_DEEPSPEED") or surroundings.switched_on("ACCELERATE_USE_FSDP")
    return bool(recipe["use_peft"]) or (sharded and uses_mixed_precision(recipe, surroundings))


def low_precision_problems(recipe: Recipe, dtype: str, surroundings: Surroundings) -> Iterator[Problem]:
    """dtype: what the weights are loaded in, with `auto` already looked up in the model."""
    if keeps_fp32_masters(recipe, surroundings):
        return
    rate, where = recipe["learning_rate"], recipe.where("dtype")
    mend = "write  dtype: float32  (bf16 autocast stays on), or launch with  recipes/machines/zero3.yaml"
    if dtype == "float16":
        yield Problem(
            "fp16-weights",
            where,
            "Weights in float16 without an fp32 copy: the gradient scaler refuses them, and small updates vanish.",
            mend,
        )
    lost = dtype == "bfloat16" and rate < BF16_LOST_UPDATE and recipe["optim"] != "adamw_anyprecision"
    if lost and not consents_to(recipe, "bf16-weights"):
        yield Problem(
            "bf16-weights",
            where,
            f"Weights in bfloat16 without an fp32 copy at learning_rate {show(rate)}: an AdamW update is about the "
            f"learning rate, and near a weight of 0.02 bfloat16 loses updates below {BF16_LOST_UPDATE:.1e}, so most "
            "weights would not move.",
            f"{mend}, or  allow: [bf16-weights]",
        )


def check_precision(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    if recipe["bf16"] and recipe["fp16"]:
        yield Problem(
            "precision-twice",
            recipe.where("fp16"),
            "bf16 and fp16 are both true.",
            "remove fp16; bf16 needs no scaler.",
        )
    if recipe["dtype"] in ("bfloat16", "float16"):
        yield from low_precision_problems(recipe, recipe["dtype"], surroundings)


def check_packing(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    packing, strategy = recipe["packing"] or recipe["eval_packing"], recipe["packing_strategy"]
    if packing and strategy != "bfd":
        why = {
            "wrapped": "samples are concatenated and see each other, and answers are cut anywhere",
            "bfd_split": "the rest of a cut row becomes a sample of its own, an answer without its question",
        }[strategy]
        yield Problem(
            "packing-not-isolated",
            recipe.where("packing_strategy"),
            f"packing_strategy: {strategy}: {why}.",
            "write  packing_strategy: bfd",
        )
    attention = recipe["attn_implementation"]
    if (packing or recipe["padding_free"]) and not _isolates(attention):
        yield Problem(
            "packing-not-isolated",
            recipe.where("attn_implementation"),
            f"attn_implementation: {attention} is not known to keep packed samples apart.",
            "write  attn_implementation: sdpa  or  flash_attention_2,  or remove packing and padding_free.",
        )


def _isolates(attention: str | None) -> bool:
    if attention is None or attention in _ISOLATING_ATTENTION or attention.startswith(_ISOLATING_PREFIXES):
        return True
    return attention == "flex_attention"


def check_lengths(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    length = recipe["max_length"]
    if recipe["padding_free"] and not recipe["packing"] and length is not None:
        yield Problem(
            "padding-free-length",
            recipe.where("padding_free"),
            f"padding_free: true without packing: TRL does not enforce max_length ({length}).",
            "write  packing: true,  or  max_length: null",
        )
    if recipe["packing"] and length is None:
        yield Problem(
            "packing-max-length",
            recipe.where("max_length"),
            "packing: true without max_length: it is the length of a packed row.",
            "write  max_length: 4096  or what fits the memory.",
        )


def check_pad_token(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    pad = recipe["pad_token"]
    if pad is not None and pad == recipe["eos_token"]:
        yield Problem(
            "pad-is-eos",
            recipe.where("pad_token"),
            f"pad_token and eos_token are both {pad}: padding is never supervised, so neither is EOS.",
            'write  pad_token: "<pad>"; it is added to the vocabulary.',
        )


def check_quantisation(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    four, eight = recipe["load_in_4bit"], recipe["load_in_8bit"]
    if four and eight:
        yield Problem(
            "quantised-twice",
            recipe.where("load_in_8bit"),
            "load_in_4bit and load_in_8bit are both true.",
            "keep one.",
        )
    if (four or eight) and not recipe["use_peft"]:
        key = "load_in_4bit" if four else "load_in_8bit"
        yield Problem(
            "quantised-full",
            recipe.where(key),
            f"{key}: true without adapters: quantised weights have no gradient, so nothing could be trained.",
            f"write  use_peft: true,  or remove {key}.",
        )


def check_adapter_keys(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    names = [name for name in recipe.given if name.startswith("lora_") or name in ("use_rslora", "use_dora")]
    names = [name for name in names if recipe[name] not in (None, False) and name != "lora_task_type"]
    # `--use_peft false` on top of an adapter recipe is meant
    if names and not recipe["use_peft"] and "use_peft" not in recipe.given:
        yield Problem(
            "lora-without-peft",
            recipe.where(names[0]),
            f"{', '.join(names)} would be ignored: use_peft is false, so all weights are trained.",
            f"write  use_peft: true,  or remove {', '.join(names)}.",
        )


def check_model_init_kwargs(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    own = {"dtype": "dtype", "torch_dtype": "dtype", "revision": "model_revision"}
    own |= {name: name for name in ("attn_implementation", "trust_remote_code")}
    kwargs: Any = recipe["model_init_kwargs"]
    if isinstance(kwargs, str):
        yield Problem(
            "model-init-kwargs",
            recipe.where("model_init_kwargs"),
            "model_init_kwargs is text.",
            "write it as {key: value}.",
        )
    elif kwargs:
        for name in (name for name in kwargs if name in own):
            yield Problem(
                "model-init-kwargs",
                recipe.where("model_init_kwargs"),
                f"model_init_kwargs sets {name}, which has its own key and would be set twice.",
                f"remove it there and write  {own[name]}: {show(kwargs[name])}",
            )


def check_steps(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    for strategy, key in (
        ("logging_strategy", "logging_steps"),
        ("eval_strategy", "eval_steps"),
        ("save_strategy", "save_steps"),
    ):
        steps = recipe[key]
        if recipe[strategy] == "steps" and steps is not None and steps > 1 and steps != int(steps):
            yield Problem(
                "steps-not-whole",
                recipe.where(key),
                f"{key}: {show(steps)}: above 1 it counts steps, below 1 it is a fraction of the run.",
                f"write  {key}: {round(steps)}",
            )


def check_best_model(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    evaluation, saving = recipe["eval_strategy"], recipe["save_strategy"]
    where = recipe.where("load_best_model_at_end")
    if saving == "best" and evaluation == "no":
        where = recipe.where("save_strategy")
        yield Problem(
            "best-model", where, "save_strategy: best without evaluation.", "write  eval_strategy: steps  or  epoch"
        )
    if not recipe["load_best_model_at_end"] or saving == "best":
        return
    if evaluation != saving:
        yield Problem(
            "best-model",
            where,
            f"load_best_model_at_end: true needs equal strategies, but eval_strategy is {evaluation} and "
            f"save_strategy is {saving}: the best step would not be saved.",
            f"write  eval_strategy: {saving if saving != 'no' else 'steps'}  and the same save_strategy.",
        )
    elif evaluation == "steps":
        yield from _best_model_steps(recipe)


def _best_model_steps(recipe: Recipe) -> Iterator[Problem]:
    every = recipe["eval_steps"] or recipe["logging_steps"]
    saved = recipe["save_steps"]
    # fractions are compared as transformers does, in millionths
    whole = (saved * 1_000_000) % (every * 1_000_000) == 0
    if (every < 1) != (saved < 1) or not whole:
        yield Problem(
            "best-model",
            recipe.where("save_steps"),
            f"load_best_model_at_end: true needs save_steps ({saved:g}) to be a multiple of eval_steps ({every:g}).",
            f"write  save_steps: {every:g}  or a multiple of it.",
        )


def check_schedule(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    scheduler = recipe["lr_scheduler_type"]
    if scheduler in ("reduce_lr_on_plateau", "greedy") and recipe["eval_strategy"] == "no":
        yield Problem(
            "scheduler-needs-eval",
            recipe.where("lr_scheduler_type"),
            f"lr_scheduler_type: {scheduler} follows an evaluation metric, but eval_strategy is no.",
            "write  eval_strategy: steps,  or  lr_scheduler_type: linear",
        )


SFT_CHECKS = (
    *(_as_check(rule) for rule in REDUCTION_RULES),
    check_microbatch_mean,
    check_sum_optimizer,
    check_packing,
    check_lengths,
)
CHECKS = (
    check_precision,
    check_pad_token,
    check_quantisation,
    check_adapter_keys,
    check_model_init_kwargs,
    check_steps,
    check_best_model,
    check_schedule,
)
