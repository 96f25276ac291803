"""One optimizer step of our preference trainers in a given layout; what `layouts.py` is to SFT."""

from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from tests.layouts import ONE_STEP
from tests.tiny import pair, save_base, tiny_tokenizer
from tulu_recipes.data.pairs import Masking, PairRules, tokenize_pairs, trainable_pairs
from tulu_recipes.trainers.dpo import DPOConfig, DPOTrainer
from tulu_recipes.trainers.reward import RewardConfig, RewardTrainer, load_scorer
from tulu_recipes.trainers.simpo import CPOConfig, SimPOTrainer

ALL_TURNS: Masking = "all_assistant_turns"


@cache
def _tokenizer() -> PreTrainedTokenizerBase:
    return tiny_tokenizer()


@cache
def pair_rows(count: int, first: int = 0) -> Dataset:
    """Tokenized pairs of one to three turns, whose lengths and compared parts differ."""
    return pair_rows_of([pair(i, 1 + i % 3) for i in range(first, first + count)], ALL_TURNS)


def pair_rows_of(rows: list[dict[str, Any]], masking: Masking = "last_turn") -> Dataset:
    tokenized = tokenize_pairs(Dataset.from_list(rows), _tokenizer(), PairRules(128, masking=masking))
    return trainable_pairs(tokenized, over_length="truncate")


def save_models(folder: Path) -> None:
    """What a step starts from: base, reference (another one), scorer (a reward model)."""
    save_base(folder / "base")
    save_base(folder / "reference", seed=1)
    scorer = load_scorer(str(folder / "base"))
    scorer.save_pretrained(folder / "scorer")


def pair_config(stage: str, folder: Path, **keys: Any) -> Any:
    settings = ONE_STEP | {"max_length": 128} | keys
    if stage == "reward":
        return RewardConfig(str(folder), **settings)
    if stage == "simpo":
        return CPOConfig(str(folder), **{"loss_type": "simpo", "cpo_alpha": 0.0} | settings)
    return DPOConfig(str(folder), **{"masking": ALL_TURNS} | settings)


def pair_trainer(
    stage: str, model: PreTrainedModel, args: Any, rows: Dataset, eval_rows: Dataset | None = None, **others: Any
) -> DPOTrainer | SimPOTrainer | RewardTrainer:
    """`stage`: dpo, simpo or reward. others: ref_model, peft_config, callbacks, tokenizer."""
    tokenizer = others.pop("tokenizer", None) or _tokenizer()
    build: Any = {"dpo": DPOTrainer, "simpo": SimPOTrainer, "reward": RewardTrainer}[stage]
    return build(
        model,
        args=args,
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        **others,
    )


def read_scorer(folder: Path) -> Any:
    """As anybody loads a reward model, for the oracle."""
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32")
