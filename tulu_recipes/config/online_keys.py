"""The recipe keys of the stage rlvr that are ours, and which algorithm reads which key.

`beta`, `num_generations` and what else TRL's GRPOConfig has keep TRL's names. RLOO's own two keys are here, because
TRL has them in another configuration.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tulu_recipes.config.keys import FRACTION, POSITIVE, Limits, alarm_keys, our_key

ALGORITHMS = ("ppo", "grpo", "rloo")
SEMANTICS = ("fixed", "as_released")

_ABOVE_ZERO = Limits(0, open_low=True)

_ROLLOUT = (
    our_key(
        "algorithm",
        "str",
        "ppo",
        "PPO with a value model, or GRPO or RLOO, which need none.",
        "algorithm",
        choices=ALGORITHMS,
    ),
    our_key(
        "num_minibatches",
        "int",
        1,
        "Optimizer steps per pass over a rollout, which holds global_batch_size × num_minibatches completions.",
        "batch and loss",
        limits=POSITIVE,
    ),
    our_key(
        "total_episodes",
        "null int",
        None,
        "Completions generated in all; gives max_steps, and with it the learning-rate schedule.",
        "batch and loss",
        limits=POSITIVE,
    ),
    our_key(
        "stop_after_steps",
        "null int",
        None,
        "End after so many optimizer steps, on the schedule of the whole run.",
        "batch and loss",
        limits=POSITIVE,
    ),
    our_key(
        "rollout_lag",
        "int",
        0,
        "1: generate the next rollout while training on the current one; needs a vLLM server.",
        "algorithm",
        limits=Limits(0, 1),
    ),
)

_ROWS = (
    our_key(
        "max_prompt_length", "int", 2048, "Longest prompt in tokens, chat template included.", "data", limits=POSITIVE
    ),
    our_key(
        "over_length",
        "str",
        "drop",
        "What happens to prompts longer than max_prompt_length.",
        "data",
        choices=("drop", "stop"),
    ),
    our_key(
        "dataset_num_proc",
        "null int",
        None,
        "Processes that tokenize the rows.",
        "data",
        limits=POSITIVE,
        changes_weights=False,
    ),
    our_key(
        "max_unreadable_label_fraction",
        "float",
        0.0,
        "Stop when the ground truth of more of the rows cannot be read by its verifier.",
        "consent and limits",
        limits=FRACTION,
        changes_weights=False,
    ),
)

_REWARD = (
    our_key(
        "verifier_semantics",
        "str",
        "fixed",
        "Corrected verifiers, or those of the Tülu 3 release, bugs included.",
        "reward",
        choices=SEMANTICS,
    ),
    our_key(
        "verifiable_reward",
        "float",
        10.0,
        "Reward of a completion that the verifier calls correct.",
        "reward",
        limits=Limits(0),
    ),
    our_key(
        "non_stop_reward",
        "null float",
        None,
        "Replaces the whole score of a completion without EOS: -10 in Tülu 3, 0 in Tülu 3.1; null: no replacement.",
        "reward",
    ),
    our_key("reward_model_name_or_path", "null str", None, "Reward model whose score is added.", "reward"),
    our_key("reward_model_multiplier", "float", 0.0, "What the reward model's score is multiplied by.", "reward"),
    our_key(
        "max_verifier_error_fraction",
        "float",
        0.05,
        "Stop when the verifier cannot judge more of the last 1,000 completions.",
        "reward",
        limits=FRACTION,
        changes_weights=False,
    ),
    our_key(
        "verifier_workers",
        "null int",
        None,
        "Processes that verify; null: by the machine's cores.",
        "reward",
        limits=POSITIVE,
        changes_weights=False,
    ),
    our_key(
        "verifier_seconds",
        "float",
        20.0,
        "Time in which one completion has to be verified.",
        "reward",
        limits=_ABOVE_ZERO,
    ),
)

_PPO = (
    our_key(
        "value_model_name_or_path",
        "null str",
        None,
        "Reward model or language model that becomes the value model; null: the policy's weights.",
        "value model",
    ),
    our_key(
        "value_head",
        "str",
        "loaded",
        "Keep a reward model's head, or start from a fresh one.",
        "value model",
        choices=("loaded", "fresh"),
    ),
    our_key(
        "value_learning_rate",
        "null float",
        None,
        "Of the value model; null: learning_rate.",
        "value model",
        limits=_ABOVE_ZERO,
    ),
    our_key("vf_coef", "float", 0.1, "Weight of the value loss.", "value model", limits=Limits(0)),
    our_key(
        "cliprange_value",
        "float",
        0.2,
        "How far a value may move from the rollout's within its loss.",
        "value model",
        limits=_ABOVE_ZERO,
    ),
    our_key("gamma", "float", 1.0, "Discount of a token.", "ppo", limits=FRACTION),
    our_key("lam", "float", 0.95, "λ of generalised advantage estimation.", "ppo", limits=FRACTION),
    our_key(
        "kl_placement",
        "str",
        "reward",
        "Where beta × KL counts: in the reward of each token, or in the loss.",
        "ppo",
        choices=("reward", "loss"),
    ),
    our_key(
        "kl_estimator",
        "str",
        "k1",
        "k1: logp - logp_ref; k2: half its square; k3: exp(-k1) - 1 + k1.",
        "ppo",
        choices=("k1", "k2", "k3"),
    ),
    our_key(
        "score_placement",
        "str",
        "last_token",
        "The score counts at the last token, or as in the Tülu 3 release one step after EOS.",
        "ppo",
        choices=("last_token", "as_released"),
    ),
    our_key(
        "whiten_advantages",
        "str",
        "all_ranks",
        "Mean 0 and variance 1 over the tokens of all ranks, or of each by itself as released.",
        "ppo",
        choices=("all_ranks", "per_rank", "none"),
    ),
)

_RLOO = (
    our_key("normalize_advantages", "bool", False, "Advantages of mean 0 and variance 1 over the rollout.", "rloo"),
    our_key(
        "reward_clip_range", "null list", None, "Lowest and highest reward, e.g. [-10, 10].", "rloo", item="float"
    ),
)

_ALARMS = (
    *alarm_keys("equal rewards, truncation, drift and the like"),
    our_key(
        "alarm_truncation",
        "float",
        0.5,
        "Share of completions without EOS, above which the alarm sounds.",
        "alarms",
        limits=FRACTION,
        changes_weights=False,
    ),
    our_key(
        "alarm_verifier_errors",
        "float",
        0.01,
        "Share of completions that could not be graded, above which the alarm sounds.",
        "alarms",
        limits=FRACTION,
        changes_weights=False,
    ),
    our_key(
        "alarm_length_drift",
        "float",
        3.0,
        "Factor by which completions may grow or shrink since the start.",
        "alarms",
        limits=Limits(1, open_low=True),
        changes_weights=False,
    ),
    our_key(
        "alarm_entropy_low",
        "null float",
        None,
        "Nats per token below which the alarm sounds.",
        "alarms",
        limits=Limits(0),
        changes_weights=False,
    ),
    our_key(
        "alarm_entropy_high",
        "null float",
        None,
        "Nats per token above which the alarm sounds.",
        "alarms",
        limits=Limits(0),
        changes_weights=False,
    ),
    our_key(
        "alarm_kl",
        "null float",
        None,
        "Nats a completion from the reference, above which the alarm sounds.",
        "alarms",
        limits=Limits(0),
        changes_weights=False,
    ),
    our_key(
        "alarm_explained_variance",
        "null float",
        None,
        "Share of the returns' variance that values explain, below which the alarm sounds.",
        "alarms",
        limits=Limits(None, 1),
        changes_weights=False,
    ),
)

ONLINE = (*_ROLLOUT, *_ROWS, *_REWARD, *_PPO, *_RLOO, *_ALARMS)

# What TRL's GRPOConfig has and its RLOOConfig has not
GRPO_ALONE = frozenset(
    """
    loss_type scale_rewards importance_sampling_level delta multi_objective_aggregation off_policy_mask_threshold
    sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg
    top_entropy_quantile entropy_coef use_adaptive_entropy entropy_coef_min entropy_coef_max entropy_coef_delta
    entropy_target vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_clip_max
    vllm_importance_sampling_clip_min vllm_importance_sampling_cap use_bias_correction_kl cast_lm_head_to_fp32
    max_tool_calling_iterations log_completions_hub_repo
    """.split()
)
# Of these, what belongs to losses and advantages that PPO does not have
_NOT_PPO = frozenset(
    """
    scale_rewards multi_objective_aggregation use_bias_correction_kl
    sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg
    """.split()
)
PPO_KEYS = frozenset(key.name for key in _PPO) | {"alarm_explained_variance"}
RLOO_KEYS = frozenset(key.name for key in _RLOO)

# Keys that an algorithm does not read, and what a recipe gets where it does not say
UNREAD: Mapping[str, frozenset[str]] = MappingProxyType(
    {"ppo": _NOT_PPO | RLOO_KEYS, "grpo": PPO_KEYS | RLOO_KEYS, "rloo": PPO_KEYS | GRPO_ALONE}
)
DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ppo": {"num_generations": 1, "beta": 0.05},
        "grpo": {"num_generations": 8, "beta": 0.0},
        "rloo": {"num_generations": 2, "beta": 0.05},
    }
)
