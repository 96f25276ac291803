"""Reward model: one recipe in, one run folder out.

    accelerate launch -m tulu_recipes.reward recipes/tulu3/8b/reward.yaml
    python -m tulu_recipes.reward recipes/tiny/reward.yaml --learning_rate 1e-3
    python -m tulu_recipes.reward --score DATASET --model runs/tiny-reward

The same command resumes a run that was stopped or killed, and only pushes one that is trained. With --score it adds a
trained model's scores to a dataset.
"""

import sys
from typing import TYPE_CHECKING

from tulu_recipes.config.entry import run_cli
from tulu_recipes.config.load import load_recipe
from tulu_recipes.scoring.command import score_command

if TYPE_CHECKING:
    from tulu_recipes.config.recipe import Recipe


def main(argv: list[str]) -> int:
    if any(argument.partition("=")[0] == "--score" for argument in argv):
        return score_command(argv)
    # every mistake in the file at once, before torch is imported
    return train(load_recipe(argv, stage="reward", ask_hub=True))


def train(recipe: "Recipe") -> int:
    from transformers import PrinterCallback

    from tulu_recipes.finish import finish_training, push_run
    from tulu_recipes.prepare import (
        build_base_model,
        check_data_named,
        open_recipe_run,
        prepare_data,
        resume_point,
    )
    from tulu_recipes.run import FINISHED, TRAINED
    from tulu_recipes.trainers.arguments import adapter_config, load_model, reward_arguments
    from tulu_recipes.trainers.callbacks import MetricsCallback, ProgressCallback, StopOnSignal
    from tulu_recipes.trainers.reward import RewardTrainer

    check_data_named(recipe)
    build_base_model(recipe)
    data = prepare_data(recipe)  # tokens and the length report; refuses what cannot be compared
    args = reward_arguments(recipe)
    run = open_recipe_run(recipe, data, args)
    if run.status == FINISHED and not (recipe["push_to_hub"] and not run.record["pushed_to"]):
        run.say(f"This run is finished: {run.folder}/report.md. For another one, name a new output_dir.")
        return 0
    if run.status in (TRAINED, FINISHED):
        return push_run(recipe, run)

    stop = StopOnSignal()
    with run.failing(), ProgressCallback() as progress:
        trainer = RewardTrainer(
            model=load_model(recipe, data.tokenizer),
            args=args,
            train_dataset=data.train,
            eval_dataset=data.heldout,
            processing_class=data.tokenizer,
            peft_config=adapter_config(recipe),
            callbacks=[MetricsCallback(run.folder / "metrics.jsonl"), progress, stop],
        )
        trainer.remove_callback(PrinterCallback)  # prints every log as a dict beside our progress line
        trainer.train(resume_from_checkpoint=resume_point(recipe, run))
        if stop.stopped:
            return run.stopped(trainer.state.global_step)
        finish_training(recipe, run, data, trainer)
    return push_run(recipe, run)


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(sys.argv[1:])))
