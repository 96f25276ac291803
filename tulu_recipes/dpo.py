"""Preference tuning (DPO): one recipe in, one run folder out.

    accelerate launch -m tulu_recipes.dpo recipes/tulu3/8b/dpo.yaml
    python -m tulu_recipes.dpo recipes/tiny/dpo.yaml --beta 2

The same command resumes a run that was stopped or killed, and only pushes one that is trained.
"""

import sys
from functools import partial
from typing import TYPE_CHECKING

from tulu_recipes.config.entry import run_cli
from tulu_recipes.config.load import load_recipe

if TYPE_CHECKING:
    from tulu_recipes.config.recipe import Recipe


def main(argv: list[str]) -> int:
    # every mistake in the file at once, before torch is imported
    return train(load_recipe(argv, stage="dpo", ask_hub=True))


def train(recipe: "Recipe") -> int:
    from transformers import PrinterCallback

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
        dpo_arguments,
        load_model,
        load_reference,
        preference_alarms,
    )
    from tulu_recipes.trainers.callbacks import MetricsCallback, ProgressCallback, StopOnSignal
    from tulu_recipes.trainers.dpo import DPOTrainer
    from tulu_recipes.trainers.reference import check_cache
    from tulu_recipes.trainers.simpo import SimPOTrainer

    check_data_named(recipe)
    build_base_model(recipe)
    data = prepare_data(recipe)  # tokens, masks, and the length report; refuses what cannot be compared
    args = dpo_arguments(recipe)
    if recipe["ref_log_probs_cache"]:
        check_cache(args, {"train": data.train, "eval": data.heldout}, data.tokenizer)
    run = open_recipe_run(recipe, data, args)
    if run.status == FINISHED and not (recipe["push_to_hub"] and not run.record["pushed_to"]):
        run.say(f"This run is finished: {run.folder}/report.md. For another one, name a new output_dir.")
        return 0
    if run.status in (TRAINED, FINISHED):
        return push_run(recipe, run)

    stop = StopOnSignal()
    alarms = AlarmCallback(run.folder, preference_alarms(recipe), stop=recipe["on_alarm"] == "stop")
    with run.failing(), ProgressCallback() as progress:
        sample_before(recipe, data, run)
        reference = load_reference(recipe, data.tokenizer)
        build = SimPOTrainer if recipe.is_simpo() else partial(DPOTrainer, ref_model=reference)
        trainer = build(
            model=load_model(recipe, data.tokenizer),
            args=args,
            train_dataset=data.train,
            eval_dataset=data.heldout,
            processing_class=data.tokenizer,
            peft_config=adapter_config(recipe),
            callbacks=[MetricsCallback(run.folder / "metrics.jsonl"), progress, alarms, stop],
        )
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
