"""Reinforcement learning with verifiable rewards: one recipe in, one run folder out.

    accelerate launch -m tulu_recipes.rlvr recipes/tulu3/8b/rlvr.yaml
    python -m tulu_recipes.rlvr recipes/tiny/rlvr.yaml --algorithm grpo --num_generations 4

PPO with a value model, GRPO or RLOO, as `algorithm` says. The same command resumes a run that was stopped or killed,
and only pushes one that is trained.
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from tulu_recipes.config.entry import run_cli
from tulu_recipes.config.load import load_recipe

if TYPE_CHECKING:
    from tulu_recipes.config.recipe import Recipe


def main(argv: list[str]) -> int:
    # every mistake in the file at once, before torch is imported
    return train(load_recipe(argv, stage="rlvr", ask_hub=True))


def train(recipe: "Recipe") -> int:
    from transformers import PrinterCallback

    from tulu_recipes.data.prompts import verifier_versions
    from tulu_recipes.finish import finish_training, push_run, stop_for_alarm
    from tulu_recipes.prepare import (
        build_base_model,
        check_data_named,
        open_recipe_run,
        prepare_data,
        resume_point,
        sample_before,
    )
    from tulu_recipes.run import FINISHED, TRAINED
    from tulu_recipes.trainers.alarms import AlarmCallback
    from tulu_recipes.trainers.arguments import (
        adapter_config,
        load_critic,
        load_model,
        online_alarms,
        reward_functions,
        rlvr_arguments,
    )
    from tulu_recipes.trainers.callbacks import MetricsCallback, ProgressCallback, StopOnSignal
    from tulu_recipes.trainers.grpo import GRPOTrainer, RLOOTrainer
    from tulu_recipes.trainers.ppo import PPOTrainer

    check_data_named(recipe)
    build_base_model(recipe)
    data = prepare_data(recipe)  # prompts, labels that their verifiers can read, and the audit
    args = rlvr_arguments(recipe)
    run = open_recipe_run(recipe, data, args)
    if run.status == FINISHED and not (recipe["push_to_hub"] and not run.record["pushed_to"]):
        run.say(f"This run is finished: {run.folder}/report.md. For another one, name a new output_dir.")
        return 0
    if run.status in (TRAINED, FINISHED):
        return push_run(recipe, run)

    if run.main:
        run.update(verifiers=verifier_versions(data.train, recipe["verifier_semantics"]))
    stop = StopOnSignal()
    alarms = AlarmCallback(run.folder, online_alarms(recipe), stop=recipe["on_alarm"] == "stop")
    with run.failing(), ProgressCallback() as progress:
        sample_before(recipe, data, run)
        build: Any = {"ppo": PPOTrainer, "grpo": GRPOTrainer, "rloo": RLOOTrainer}[recipe["algorithm"]]
        if recipe["algorithm"] == "ppo":
            build = partial(build, value_model=load_critic(recipe, data.tokenizer))
        trainer = build(
            model=load_model(recipe, data.tokenizer),
            reward_funcs=reward_functions(recipe, run.folder),
            args=args,
            train_dataset=data.train,
            eval_dataset=data.heldout,
            processing_class=data.tokenizer,
            peft_config=adapter_config(recipe),
            callbacks=[MetricsCallback(run.folder / "metrics.jsonl"), progress, alarms, stop],
        )
        alarms.samples = trainer.recent_completions
        trainer.remove_callback(PrinterCallback)  # prints every log as a dict beside our progress line
        trainer.train(resume_from_checkpoint=resume_point(recipe, run))
        if stop.stopped:
            return run.stopped(trainer.state.global_step)
        if not alarms.stopped:
            finish_training(recipe, run, data, trainer)
    if alarms.stopped:
        stop_for_alarm(recipe, run, trainer, alarms.stopped)
    return push_run(recipe, run)


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(sys.argv[1:])))
