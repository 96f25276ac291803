"""What the card of a model trained with verifiable rewards says beyond that of any model: method and papers."""

from tulu_recipes.config.recipe import Recipe
from tulu_recipes.config.values import show

_NAMES = {"ppo": "PPO with a value model", "grpo": "GRPO", "rloo": "RLOO"}
_PAPERS = {
    "ppo": "Schulman et al., *Proximal Policy Optimization Algorithms*, "
    "[arXiv 1707.06347](https://arxiv.org/abs/1707.06347)",
    "grpo": "Shao et al., *DeepSeekMath* (GRPO), [arXiv 2402.03300](https://arxiv.org/abs/2402.03300)",
    "rloo": "Ahmadian et al., *Back to Basics: Revisiting REINFORCE Style Optimization* (RLOO), "
    "[arXiv 2402.14740](https://arxiv.org/abs/2402.14740)",
    "tulu": "Lambert et al., *Tülu 3*, [arXiv 2411.15124](https://arxiv.org/abs/2411.15124)",
    "trl": "von Werra et al., *TRL: Transformers Reinforcement Learning*, "
    "[github.com/huggingface/trl](https://github.com/huggingface/trl)",
}


def method(recipe: Recipe) -> list[str]:
    """The section that says how completions were sampled, scored and learned from."""
    rows = [
        ("algorithm", _NAMES[recipe["algorithm"]]),
        ("rollout", _rollout(recipe)),
        ("sampling", _sampling(recipe)),
        ("reward", _reward(recipe)),
        ("KL to the start", _kl(recipe)),
        *(_value_model(recipe) if recipe["algorithm"] == "ppo" else []),
    ]
    return ["## Method", "", "| setting | value |", "|---|---|", *[f"| {name} | {text} |" for name, text in rows], ""]


def _rollout(recipe: Recipe) -> str:
    return (
        f"{recipe['generation_batch_size']:,} completions, {recipe['num_generations']} of each prompt; "
        f"{recipe['num_iterations']} pass(es) of {recipe['num_minibatches']} optimizer step(s)"
    )


def _sampling(recipe: Recipe) -> str:
    engine = "vLLM" if recipe["use_vllm"] else "transformers"
    return (
        f"{engine}, temperature {show(recipe['temperature'])}, top_p {show(recipe['top_p'])}, up to "
        f"{recipe['max_completion_length']:,} tokens"
    )


def _reward(recipe: Recipe) -> str:
    text = f"{show(recipe['verifiable_reward'])} when the verifier says correct (`{recipe['verifier_semantics']}`)"
    if recipe["reward_model_multiplier"]:
        model = recipe["reward_model_name_or_path"]
        text += f", and {show(recipe['reward_model_multiplier'])} × the score of `{model}`"
    if recipe["non_stop_reward"] is not None:
        text += f"; {show(recipe['non_stop_reward'])} in place of all of it without an end of turn"
    return text


def _kl(recipe: Recipe) -> str:
    if recipe["beta"] == 0:
        return "none"
    beta = f"beta {show(recipe['beta'])}"
    if recipe["algorithm"] == "ppo":
        return f"{beta}, {recipe['kl_estimator']}, in the {recipe['kl_placement']}"
    return beta + (", k3, in the loss" if recipe["algorithm"] == "grpo" else ", k1, in the reward")


def _value_model(recipe: Recipe) -> list[tuple[str, str]]:
    name = recipe["value_model_name_or_path"]
    start = f"from `{name}`" if name else "from the policy, under a new head"
    return [
        ("value model", f"{start}; as trained in the folder `value_model`"),
        ("advantages", f"GAE, γ {show(recipe['gamma'])}, λ {show(recipe['lam'])}, {_whitened(recipe)}"),
    ]


def _whitened(recipe: Recipe) -> str:
    over = {"all_ranks": "whitened over all ranks", "per_rank": "whitened by each rank", "none": "not whitened"}
    return over[recipe["whiten_advantages"]]


def papers(recipe: Recipe) -> list[str]:
    """What the training rests on."""
    keys = (recipe["algorithm"], "tulu", "trl")
    return ["## Papers and software", "", *[f"- {_PAPERS[key]}" for key in keys], ""]
