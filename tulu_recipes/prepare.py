"""What every training stage does before its first step: base model, rows, audit, run folder, first samples."""

import importlib
import os
from dataclasses import asdict, dataclass
from getpass import getuser
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from datasets import Dataset, disable_progress_bars
from filelock import FileLock
from rich.console import Console
from transformers import AutoConfig, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from tulu_recipes import hub
from tulu_recipes.config.check_hub import hub_model_id
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.data.audit import Audit
from tulu_recipes.data.mixing.build import LocalPasses
from tulu_recipes.data.mixing.lock import Lock
from tulu_recipes.data.mixing.use import check_mix, use_mix
from tulu_recipes.data.mixing.workers import default_workers
from tulu_recipes.data.template import load_tokenizer
from tulu_recipes.errors import DataError, Problem, RecipeError
from tulu_recipes.prepare_rows import ROWS_OF_STAGE
from tulu_recipes.reports.mix_folder import describe_mix
from tulu_recipes.run import FINISHED, TRAINED, Run, naming_full_disk, open_run, read_json, write_json
from tulu_recipes.sampling import generate_answers, load_for_sampling, outside_zero3

LOG_WIDTH = 120  # columns of a table in a log file, which has no width of its own


@dataclass(frozen=True)
class StageData:
    """Rows of a run: tokenized for training, tokenized for evaluation, and as text for samples.

    mix_lock: of the mix they are from; None for a single dataset.
    heldout_tokenized: evaluation rows with the columns of the audit, those included that cannot be evaluated.
    """

    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    heldout: Dataset | None
    heldout_text: Dataset | None
    audit: Audit
    mix_lock: Lock | None = None
    heldout_tokenized: Dataset | None = None


def is_main() -> bool:
    """Rank 0, before torch.distributed is started."""
    return os.environ.get("RANK", "0") == "0"


def check_data_named(recipe: Recipe) -> None:
    """Refuse a mix file that is faulty or was edited since it was locked, before anything is loaded or written.

    Raises:
        DataError: every problem of the mix file, or how it differs from its lock.
    """
    if recipe["dataset_mix"]:
        check_mix(recipe["dataset_mix"], recipe.stage)


def build_base_model(recipe: Recipe) -> None:
    """Run `model_builder` ("module:function") when the model folder does not exist yet; each rank waits its turn.

    Raises:
        RecipeError: the folder holds no weights.
    """
    folder = Path(recipe["model_name_or_path"]).expanduser()
    if recipe["model_builder"] is None or folder.exists():
        if folder.is_dir() and not any([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
            what = f"{folder} holds no weights (*.safetensors or *.bin)."
            mend = "name the folder that save_pretrained wrote, or let the run that writes it end first."
            raise RecipeError(Problem("model-incomplete", recipe.where("model_name_or_path"), what, mend))
        return
    module, _, function = recipe["model_builder"].partition(":")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            getattr(importlib.import_module(module), function)(folder)


def prepare_data(recipe: Recipe) -> StageData:
    """Load, tokenize and audit the rows; refuse what would train something else than the recipe says.

    Raises:
        DataError: every reason at once; nothing was written.
    """
    work = ROWS_OF_STAGE[recipe.stage]
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = LOG_WIDTH
        disable_progress_bars()
        disable_progress_bar()
    tokenizer = load_tokenizer(
        recipe["model_name_or_path"],
        chat_template=recipe["chat_template"],
        pad_token=recipe["pad_token"],
        eos_token=recipe["eos_token"],
        revision=recipe["model_revision"],
        trust_remote_code=bool(recipe["trust_remote_code"]),
        supervised=recipe.stage != "rlvr",
    )
    if recipe["use_peft"]:
        _refuse_new_tokens(recipe, len(tokenizer))
    # ranks of one machine take turns, so that the first fills the cache and the others read it
    with FileLock(Path(gettempdir()) / f"tulu_recipes-{getuser()}-{recipe.fingerprint()[:12]}.lock"):
        rows, lock = _train_rows(recipe, console)
        work.check_columns(recipe, rows, _data_name(recipe))
        tokenized = work.tokenize(recipe, rows, tokenizer, _data_name(recipe))
        text = _heldout_rows(recipe)
        heldout = (
            None
            if text is None
            else work.tokenize(recipe, text, tokenizer, str(recipe["eval_dataset_name"] or _data_name(recipe)))
        )
    audit = work.audit(recipe, tokenized)
    if is_main():
        work.show(audit, console)
    kept = None if heldout is None else work.trainable(heldout, evaluation_length(recipe))
    problems = work.problems(recipe, audit, _data_name(recipe))
    if kept is not None and not len(kept):
        what = "None of the evaluation rows can be used: all are broken, too long, or have nothing to supervise."
        problems.append(Problem("no-rows", recipe.where("eval_dataset_name"), what, "name other evaluation rows."))
    problems = [problem for problem in problems if problem.slug not in recipe["allow"]]
    if problems:
        raise DataError(problems, headline=f"{recipe.path}: the data is refused, nothing was started.")
    return StageData(
        tokenizer=tokenizer,
        train=work.trainable(tokenized, recipe["over_length"]),
        heldout=kept,
        heldout_text=None if text is None else work.conversations(text),
        audit=audit,
        mix_lock=lock,
        heldout_tokenized=heldout,
    )


def evaluation_length(recipe: Recipe) -> str:
    """What becomes of evaluation rows that are too long: cut, but a score in the middle of an answer says nothing."""
    drops = recipe.stage == "reward" and recipe["over_length"] in ("drop", "as_released")
    return str(recipe["over_length"]) if drops else "truncate"


def _refuse_new_tokens(recipe: Recipe, tokens: int) -> None:
    config = AutoConfig.from_pretrained(
        recipe["model_name_or_path"],
        revision=recipe["model_revision"],
        trust_remote_code=bool(recipe["trust_remote_code"]),
    )
    embeddings = config.get_text_config().vocab_size
    if tokens > embeddings:
        raise DataError(
            Problem(
                "lora-new-tokens",
                recipe.where("pad_token"),
                f"The tokenizer has {tokens:,} tokens and the model {embeddings:,} embeddings; an adapter would "
                "neither train nor save the new ones.",
                "name a pad_token that the vocabulary has already (not EOS), or train without use_peft.",
            )
        )


def _train_rows(recipe: Recipe, console: Console) -> tuple[Dataset, Lock | None]:
    if recipe["dataset_mix"]:
        passes = LocalPasses(recipe["dataset_num_proc"] or default_workers(), console)
        return use_mix(recipe["dataset_mix"], recipe.stage, passes=passes, describe=describe_mix)
    rows = ROWS_OF_STAGE[recipe.stage].load(
        recipe["dataset_name"],
        config=recipe["dataset_config"],
        split=recipe["dataset_train_split"],
        revision=recipe["dataset_revision"],
    )
    return rows, None


def _heldout_rows(recipe: Recipe) -> Dataset | None:
    work = ROWS_OF_STAGE[recipe.stage]
    split_given = "dataset_test_split" in recipe.given
    if recipe["eval_dataset_name"]:
        return work.load(recipe["eval_dataset_name"], split=recipe["dataset_test_split"] if split_given else None)
    if split_given and recipe["dataset_name"]:
        return work.load(
            recipe["dataset_name"],
            config=recipe["dataset_config"],
            split=recipe["dataset_test_split"],
            revision=recipe["dataset_revision"],
        )
    return None


def _data_name(recipe: Recipe) -> str:
    return str(recipe["dataset_mix"] or recipe["dataset_name"])


def open_recipe_run(recipe: Recipe, data: StageData, args: TrainingArguments) -> Run:
    """The run folder of a recipe, opened by the main process first; proves the right to push before step 0.

    Raises:
        RecipeError: the folder belongs to something else, or its data has changed since the run began.
        HubError: the model could not be pushed at the end.
    """
    folder = Path(recipe["output_dir"])
    with naming_full_disk(folder), args.main_process_first(desc="opening the run folder"):
        run = open_run(
            folder,
            stage=recipe.stage,
            resolved_recipe=recipe.to_yaml(),
            fingerprint=recipe.fingerprint(),
            science=recipe.science(),
            overrides=recipe.overrides,
            process_index=args.process_index,
            num_processes=args.world_size,
        )
        if run.main:
            _keep_audit(run, data.audit)
            if data.mix_lock is not None:
                write_json(run.folder / "data.lock.json", data.mix_lock)
    if run.main and recipe["push_to_hub"] and run.status not in (FINISHED, TRAINED):
        run.update(
            hub_repo=hub.prove_write(
                hub_model_id(recipe),
                private=recipe["hub_private_repo"],
                revision=recipe["hub_revision"],
            )
        )
    return run


def _keep_audit(run: Run, audit: Audit) -> None:
    path = run.folder / "audit.json"
    if not path.is_file():
        write_json(path, asdict(audit))
        return
    before: Any = read_json(path)
    if (before["digest"], before["total"]) == (audit.digest, asdict(audit.total)):
        return
    then, now = (
        f"{total['trained_rows']:,} rows with {total['tokens']:,} tokens"
        for total in (before["total"], asdict(audit.total))
    )
    changed = f"{then} then, {now} now" if then != now else f"again {now}, but other ones or in another order"
    raise RecipeError(
        Problem(
            "data-moved",
            str(path),
            f"The rows are not those this run began with: {changed}.",
            "restore the data, pin dataset_revision, or name a new output_dir.",
        )
    )


def resume_point(recipe: Recipe, run: Run) -> str | None:
    """The run's own newest whole checkpoint; before there is one, a folder that `resume_from_checkpoint` names."""
    if run.checkpoint is not None:
        return str(run.checkpoint)
    asked = recipe["resume_from_checkpoint"]
    return asked if asked and Path(asked).is_dir() else None


def sample_before(recipe: Recipe, data: StageData, run: Run) -> None:
    """Answer `sample_rows` held-out prompts with the base model, once a run; kept in samples.json."""
    path = run.folder / "samples.json"
    if not run.main or not recipe["sample_rows"] or data.heldout_text is None or path.is_file():
        return
    prompts, expected = heldout_prompts(data.heldout_text, recipe["sample_rows"])
    run.say(f"Answering {len(prompts)} held-out prompts before training.")
    answers = answer(recipe, data, recipe["model_name_or_path"], prompts)
    samples = [
        {"prompt": prompt[-1]["content"], "expected": gold, "before": text, "after": ""}
        for prompt, gold, text in zip(prompts, expected, answers, strict=True)
    ]
    if recipe.stage == "rlvr":
        for sample, verifier in zip(samples, data.heldout_text["verifier"], strict=False):
            sample["verifier"] = verifier
    write_json(path, samples)


def heldout_prompts(rows: Dataset, limit: int) -> tuple[list[list[dict[str, str]]], list[str]]:
    """Conversations up to their last assistant turn, and what that turn says."""
    prompts, expected = [], []
    for row in rows.select(range(min(limit, len(rows)))):
        messages = row.get("messages") or (
            row["prompt"] + row["completion"]
            if isinstance(row["prompt"], list)
            else [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        )
        last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=0)
        if last:
            prompts.append(messages[:last])
            expected.append(messages[last]["content"])
    return prompts, expected


def answer(recipe: Recipe, data: StageData, folder: str, prompts: list[list[dict[str, str]]]) -> list[str]:
    """Greedy answers of the model in `folder`."""
    with outside_zero3():
        model = load_for_sampling(
            folder,
            dtype=recipe["dtype"] or "auto",
            revision=recipe["model_revision"] if folder == recipe["model_name_or_path"] else None,
        )
        return generate_answers(model, data.tokenizer, prompts, max_new_tokens=recipe["sample_max_new_tokens"])
