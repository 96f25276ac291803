"""Report and card of a DPO and a reward run, from folders made by hand: what a reader finds in them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from tests.stage import write_pair_recipe
from tests.tiny import tiny_tokenizer
from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.data.pair_audit import PairCounts
from tulu_recipes.reports.model_card import write_model_card
from tulu_recipes.reports.run_report import write_report
from tulu_recipes.scoring.evaluation import evaluate_scores

COUNTS = asdict(
    PairCounts(
        rows=12, trained_rows=10, tokens=4321, supervised_tokens=700, over_length=3, rows_cut=3, answers_cut=2,
        over_length_dropped=0, unsupervised=0, broken=0, eos_missing=0, double_bos=0, duplicates=0, odd_order=0,
        chosen_tokens=400, rejected_tokens=300, chosen_cut=2, rejected_cut=1, identical=2, prefix_only=1, early=0,
        chosen_shorter=4, chosen_longer=6,
    )
)  # fmt: skip
DPO_LINES = [
    {"step": 0, "eval_loss": 0.6931, "eval_rewards/accuracies": 0.0, "eval_kl/chosen": 0.0},
    {"step": 1, "loss": 0.6931, "rewards/accuracies": 0.0, "rewards/margins": 0.0, "kl/chosen": 0.0},
    {"step": 2, "loss": 0.4, "rewards/accuracies": 0.75, "rewards/margins": 1.5, "kl/chosen": -1.25},
    {"step": 2, "eval_loss": 0.5, "eval_rewards/accuracies": 0.625, "eval_kl/chosen": -1.5},
]
REWARD_LINES = [
    {"step": 1, "loss": 0.7, "accuracy": 0.5, "margin": 0.1, "rewards/chosen": 0.2, "rewards/rejected": 0.1},
    {"step": 1, "eval_loss": 0.6, "eval_accuracy": 0.8125, "eval_margin": 0.3},
]
SAMPLE = {"prompt": "how many\nlegs", "expected": "four", "before": "", "after": "four `or` so"}
ALARM = {"step": 2, "alarm": "chosen-collapse", "value": -1.25, "window": 1, "message": "They collapsed."}


def folder_of(folder: Path, stage: str, lines: list[dict[str, float]], **keys: Any) -> tuple[Path, Recipe]:
    """A finished run folder, and its recipe."""
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "held.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    path = write_pair_recipe(folder, eval_dataset_name=str(folder / "held.jsonl"), **keys)
    recipe = load_recipe([str(path)], stage=stage)
    run = folder / "run"
    run.mkdir()
    record = {
        "status": "finished", "stage": stage, "git_commit": None, "num_processes": 1, "overrides": {},
        "saved_model_difference": 0.0, "seconds": 3.0,
        "final_metrics": {key: value for key, value in lines[-1].items() if key != "step"},
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "audit.json").write_text(json.dumps({"total": COUNTS, "sources": {"a|b": COUNTS}}))
    (run / "recipe.resolved.yaml").write_text(recipe.to_yaml())
    return run, recipe


def test_a_dpo_report_shows_held_out_beside_training_lengths_alarms_and_samples(tmp_path: Path) -> None:
    run, _ = folder_of(tmp_path, "dpo", DPO_LINES)
    (run / "samples.json").write_text(json.dumps([SAMPLE]))
    (run / "alarms.jsonl").write_text(json.dumps(ALARM) + "\n")
    report = write_report(run).read_text(encoding="utf-8")
    assert "- **chosen-collapse** at step 2. They collapsed." in report
    assert "| accuracy: pairs ranked rightly | 0 | 0.75 | 0 | 0.625 |" in report
    assert "| log-ratio to the reference per token, chosen | 0 | -1.25 | 0 | -1.5 |" in report
    assert "| margin: reward of chosen less rejected | 0 | 1.5 |  |  |" in report
    assert "log-prob per token" not in report  # nothing was logged of it
    headings = (
        "| source | pairs | trained | tokens | chosen | rejected | chosen shorter | chosen longer | too long | cut "
    )
    assert f"{headings}| chosen cut | rejected cut | identical | shared prefix only |" in report
    assert "| a\\|b | 12 | 10 | 4,321 | 400 | 300 | 4 | 6 | 3 | 3 | 2 | 1 | 2 | 1 |" in report
    assert "No pair is or has: dropped, part early, no answer left, broken," in report
    assert "- chosen: ` four `\n- before: (nothing)\n- after: `` four `or` so ``\n" in report
    with Image.open(run / "loss.png") as image:
        assert image.size == (2 * 5.5 * 110, 2 * 3.5 * 110)  # four of the six panels have data


def test_a_dpo_card_says_how_pairs_became_a_loss_and_what_came_out(tmp_path: Path) -> None:
    run, recipe = folder_of(
        tmp_path, "dpo", DPO_LINES, loss_type=["sigmoid_norm", "sft"], loss_weights=[1.0, 0.2], beta=5.0,
        masking="all_assistant_turns", precompute_ref_log_probs=True,
    )  # fmt: skip
    (run / "alarms.jsonl").write_text(json.dumps(ALARM) + "\n")
    card = write_model_card(run, recipe).read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["pipeline_tag"], front["tags"]) == ("text-generation", ["tulu-recipes", "trl", "dpo"])
    assert "after preference tuning (DPO) on the pairs of" in card
    assert "1 × `sigmoid_norm` + 0.2 × `sft`, normalised by the length of each answer" in card
    assert "| compared tokens | `all_assistant_turns`: every assistant turn" in card
    assert "| reference | the base model, its log-probs computed once before training |" in card
    assert "| accuracy: pairs ranked rightly | 0.625 |" in card
    assert "- alarm at step 2: chosen-collapse" in card
    assert "accelerate launch -m tulu_recipes.dpo recipe.yaml" in card
    assert "2305.18290" in card
    assert "2411.15124" in card
    results = ModelCard(card).data.eval_results
    assert [(found.metric_type, found.metric_value) for found in results or []] == [("accuracy", 0.625), ("loss", 0.5)]
    assert results is not None
    assert results[0].dataset_name == "held-out pairs (held.jsonl)"


def test_a_simpo_card_names_no_reference(tmp_path: Path) -> None:
    run, recipe = folder_of(
        tmp_path, "dpo", DPO_LINES[1:2], loss_type="simpo", beta=2.0, simpo_gamma=1.0, alarm_chosen_drop=0.5
    )
    card = write_model_card(run, recipe).read_text(encoding="utf-8")
    assert "| gamma | 1.0 |" in card
    assert "| reference | none |" in card
    assert "arXiv 2405.14734" in card
    assert "No held-out pairs were evaluated." in card
    assert "model-index" not in card


def test_a_reward_card_says_how_to_score_and_its_lines_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import LlamaForSequenceClassification

    from tests.tiny import tiny_model

    run, recipe = folder_of(tmp_path, "reward", REWARD_LINES)
    tokenizer = tiny_tokenizer()
    config = tiny_model(len(tokenizer)).config
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    LlamaForSequenceClassification(config).save_pretrained(run)
    tokenizer.save_pretrained(run)
    evaluation = evaluate_scores([1.0, 0.0], [0.0, 1.0], [4, -4], ["a", "b"])
    (run / "reward_evaluation.json").write_text(json.dumps(evaluation))
    card = write_model_card(run, recipe).read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "text-classification"
    assert "Always preferring the longer answer would be right in 0.500." in card
    assert "it is no chat model" in card
    assert "| accuracy: pairs ranked rightly | 0.8125 |" in card
    capsys.readouterr()
    exec(card.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    scores = [float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(set(scores)) == 2
    report = write_report(run).read_text(encoding="utf-8")
    assert "| margin: score of chosen less rejected | 0.1 | 0.1 | 0.3 | 0.3 |" in report
