"""Checks of RLVR: rollouts that do not divide, what does not go together, and keys that nothing would read."""

from collections.abc import Iterator, Mapping, Sequence

from tulu_recipes.config.check_preference import check_reference
from tulu_recipes.config.online_batch import steps_of_episodes
from tulu_recipes.config.online_keys import UNREAD
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.schema import keys_for
from tulu_recipes.config.surroundings import Surroundings
from tulu_recipes.config.values import show
from tulu_recipes.errors import Problem

# Words that TRL takes, where its field is plain text
CHOICES: Mapping[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
PPO_LOSSES = ("dapo", "bnpo")
_OF_SERVER = ("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port")
_OF_ENGINE = (
    "vllm_gpu_memory_utilization",
    "vllm_enable_sleep_mode",
    "vllm_tensor_parallel_size",
    "vllm_max_model_length",
    "vllm_model_impl",
)


def check_choices(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    for key, known in CHOICES.items():
        if recipe[key] not in known:
            what = f"{key} is {show(recipe[key])}, which is no valid value."
            yield Problem("unknown-choice", recipe.where(key), what, f"write one of {', '.join(known)}.")


def check_levels(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """Losses that PPO has, and those that need importance ratios of tokens, or of whole sequences, as TRL has it."""
    loss, level = recipe["loss_type"], recipe["importance_sampling_level"]
    if recipe["algorithm"] == "ppo" and loss not in PPO_LOSSES:
        what = f"loss_type: {loss} with algorithm: ppo, which has one loss: loss_type says how tokens are averaged."
        mend = "write  loss_type: dapo  (over the optimizer step) or bnpo (over micro-batches, as released)."
        yield Problem("online-combination", recipe.where("loss_type"), what, mend)
        return
    needed = {"luspo": "sequence", **dict.fromkeys(("vespo", "bnpo", "dr_grpo", "dapo", "cispo"), "token")}.get(loss)
    if recipe["algorithm"] != "rloo" and needed is not None and level != needed:
        where = recipe.where("importance_sampling_level" if needed == "token" else "loss_type")
        what = f"loss_type: {loss} with importance_sampling_level: {level}."
        mend = f"write  importance_sampling_level: {needed},  or  loss_type: grpo"
        yield Problem("online-combination", where, what, mend)


def check_groups(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """Whole groups of samples, in rollouts and in evaluation."""
    algorithm, generations = recipe["algorithm"], recipe["num_generations"]
    if generations < 2 and algorithm != "ppo":
        yield Problem(
            "online-combination",
            recipe.where("num_generations"),
            f"num_generations: 1 with algorithm: {algorithm}, which compares the samples of one prompt.",
            "write  num_generations: 8  or more,  or  algorithm: ppo",
        )
    rollout = recipe["generation_batch_size"]
    if recipe.batch is None or rollout is None:
        return
    if rollout % generations:
        yield Problem(
            "rollout-not-divisible",
            recipe.where("num_generations"),
            f"A rollout of global_batch_size {recipe['global_batch_size']} × num_minibatches "
            f"{recipe['num_minibatches']} = {rollout} completions does not hold whole groups of num_generations "
            f"{generations}.",
            f"write  num_generations: {_listed(_divisors(rollout, 1 if algorithm == 'ppo' else 2))}, or a rollout of "
            f"{_listed(_multiples(rollout, generations))}.",
        )
    yield from _eval_groups(recipe, recipe["num_generations_eval"] or generations, recipe.batch.num_processes)


def _eval_groups(recipe: Recipe, group: int, processes: int) -> Iterator[Problem]:
    size = recipe["per_device_eval_batch_size"]
    if recipe["eval_strategy"] == "no" or (size * processes) % group == 0:
        return
    sizes = [number for number in range(1, 2 * group + size + 1) if number * processes % group == 0]
    near = sorted(sorted(sizes, key=lambda number: abs(number - size))[:2])
    yield Problem(
        "rollout-not-divisible",
        recipe.where("per_device_eval_batch_size"),
        f"per_device_eval_batch_size {size} × {processes} processes = {size * processes} completions do not hold "
        f"whole groups of {group} samples of a prompt.",
        f"write  per_device_eval_batch_size: {_listed(near)}, or remove it; num_generations_eval: 1 is the cheapest.",
    )


def _divisors(number: int, low: int) -> list[int]:
    return [divisor for divisor in range(low, number + 1) if number % divisor == 0][:8]


def _multiples(number: int, of: int) -> list[int]:
    below = number // of * of
    return [size for size in (below, below + of) if size]


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))


def _shortened(recipe: Recipe) -> bool:
    """max_steps on the command line, over the total_episodes of the file: somebody wants a short trial."""
    return "max_steps" in recipe.overrides and "total_episodes" not in recipe.overrides


def check_episodes(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """total_episodes against what else says how long the run is."""
    episodes, stop = recipe["total_episodes"], recipe["stop_after_steps"]
    steps = steps_of_episodes(recipe.values, recipe.batch) if recipe.batch is not None else None
    if episodes is not None and steps is not None:
        rollout = recipe["generation_batch_size"]
        if episodes < rollout:
            yield Problem(
                "total-episodes",
                recipe.where("total_episodes"),
                f"total_episodes: {episodes:,} is less than one rollout of {rollout:,} completions (global_batch_size "
                "× num_minibatches).",
                f"write  total_episodes: {rollout}  or more, or a smaller global_batch_size.",
            )
        elif recipe["max_steps"] != steps and not _shortened(recipe):
            yield Problem(
                "total-episodes",
                recipe.where("max_steps"),
                f"total_episodes: {episodes:,} are {steps:,} steps, and max_steps is {recipe['max_steps']:,}.",
                "keep one; to end earlier on the schedule of all episodes, write  stop_after_steps.",
            )
    end = recipe["max_steps"]
    if stop is not None and end <= 0:
        what = f"stop_after_steps: {stop:,} of a schedule that neither total_episodes nor max_steps gives."
        yield Problem("online-combination", recipe.where("stop_after_steps"), what, "write  total_episodes  too.")
    elif stop is not None and end < stop:
        what = f"stop_after_steps: {stop:,}, and the run has {end:,} steps."
        yield Problem("key-ignored", recipe.where("stop_after_steps"), what, "remove it, or write a smaller number.")


def check_sampling(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    if recipe["temperature"] == 0:
        yield Problem(
            "online-combination",
            recipe.where("temperature"),
            "temperature: 0 takes the likeliest token: nothing is sampled, so nothing better can be found.",
            "write  temperature: 1.0",
        )
    low, high = recipe["alarm_entropy_low"], recipe["alarm_entropy_high"]
    if low is not None and high is not None and low >= high:
        what = f"alarm_entropy_low: {show(low)} is not below alarm_entropy_high: {show(high)}."
        yield Problem("online-combination", recipe.where("alarm_entropy_low"), what, "exchange them, or remove one.")


def check_rewards(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    model, multiplier = recipe["reward_model_name_or_path"], recipe["reward_model_multiplier"]
    if multiplier and not model:
        what = f"reward_model_multiplier: {show(multiplier)} without a reward model."
        mend = "write  reward_model_name_or_path: a Hub id or a local folder,  or remove it."
        yield Problem("online-combination", recipe.where("reward_model_multiplier"), what, mend)
    if model and not multiplier:
        what = f"reward_model_name_or_path: {model} would be ignored: reward_model_multiplier is 0."
        mend = "remove it; the value model starts from  value_model_name_or_path."
        yield Problem("key-ignored", recipe.where("reward_model_name_or_path"), what, mend)
    if not recipe["verifiable_reward"] and not multiplier:
        what = "verifiable_reward: 0 and no reward model: every completion has the same reward."
        yield Problem("online-combination", recipe.where("verifiable_reward"), what, "write  verifiable_reward: 10.0")


def check_lag(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    served = recipe["use_vllm"] and recipe["vllm_mode"] == "server"
    if recipe["rollout_lag"] and not served:
        yield Problem(
            "online-combination",
            recipe.where("rollout_lag"),
            "rollout_lag: 1 generates while the learner trains, which needs devices of its own: a vLLM server.",
            "write  use_vllm: true  and  vllm_mode: server,  or  rollout_lag: 0",
        )


def check_ignored_keys(recipe: Recipe, surroundings: Surroundings) -> Iterator[Problem]:
    """A key that somebody gave another value, and that nothing would read."""
    algorithm = recipe["algorithm"]
    unread: dict[str, tuple[bool, str]] = dict.fromkeys(
        sorted(UNREAD[algorithm]), (True, f"algorithm: {algorithm} does not read it")
    )
    vllm, server = recipe["use_vllm"], recipe["vllm_mode"] == "server"
    for key in (key for key in keys_for("rlvr") if key.startswith("vllm_")):
        elsewhere = key in (_OF_ENGINE if server else _OF_SERVER)
        why = "vllm_mode is server, which is launched with it" if server else "vllm_mode is not server"
        unread.setdefault(key, (not vllm or elsewhere, why if vllm else "use_vllm is not true"))
    for key in ("kl_placement", "kl_estimator", "use_bias_correction_kl", "sync_ref_model"):
        unread.setdefault(key, (recipe["beta"] == 0, "beta is 0, so there is no reference model"))
    for loss in ("sapo", "vespo"):
        for key in (key for key in keys_for("rlvr") if key.startswith(f"{loss}_")):
            unread.setdefault(key, (recipe["loss_type"] != loss, f"loss_type is not {loss}"))
    for key in ("ref_model_sync_steps", "ref_model_mixup_alpha"):
        unread[key] = (not recipe["sync_ref_model"], "sync_ref_model is not true")
    for key in ("num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo"):
        unread.setdefault(key, (not recipe["log_completions"], "log_completions is not true"))
    timed = recipe["total_episodes"] is not None
    unread["num_train_epochs"] = (timed, "total_episodes says how long the run is")
    for key, (ignored, why) in unread.items():
        if ignored and key in recipe.given and recipe[key] != keys_for(recipe.stage)[key].default:
            what = f"{key}: {show(recipe[key])} would be ignored: {why}."
            yield Problem("key-ignored", recipe.where(key), what, f"remove {key}, or change what it goes with.")


CHECKS = (
    check_choices,
    check_levels,
    check_groups,
    check_episodes,
    check_sampling,
    check_rewards,
    check_lag,
    check_reference,
    check_ignored_keys,
)
