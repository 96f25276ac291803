"""docs/dpo.md says what is true: its masks are those of the tokens, its tables name every column, log and alarm."""

import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset

from tests.stage import write_pair_recipe
from tests.tiny import tiny_tokenizer
from tulu_recipes.config.load import load_recipe
from tulu_recipes.data.layouts import recognise
from tulu_recipes.data.pair_audit import COLUMNS
from tulu_recipes.data.pairs import Masking, PairRules, tokenize_pair
from tulu_recipes.trainers.pairs import pair_means
from tulu_recipes.trainers.preference_alarms import CHANCE, COLLAPSE

PAGE = (Path(__file__).parents[2] / "docs/dpo.md").read_text(encoding="utf-8")
DRAWN = {line.split()[0]: line.split()[1:] for line in PAGE.split("```\n")[3].splitlines() if line}


@pytest.mark.parametrize("masking", ["last_turn", "all_assistant_turns"])
@pytest.mark.parametrize("without_eos", [False, True])
def test_the_drawn_masks_are_those_of_the_tokens(masking: Masking, without_eos: bool) -> None:
    shared = [("user", "hello"), ("assistant", "hi"), ("user", "two?")]
    chosen, rejected = (
        [{"role": role, "content": text} for role, text in [*shared, ("assistant", answer)]]
        for answer in ("two cats", "red")
    )
    row = {"chosen": chosen, "rejected": rejected}
    layout = recognise(Dataset.from_list([row]).features, "preference", "rows")
    rules = PairRules(None, masking=masking, mask_termination_tokens=without_eos)
    tokenizer = tiny_tokenizer()
    pair = tokenize_pair(row, 0, layout, tokenizer, rules)
    marks = DRAWN[masking + ("+mask_termination_tokens" if without_eos else "")]
    pieces = [piece.replace("⏎", "\n") for piece in DRAWN["chosen"]]
    assert "".join(pieces) == tokenizer.decode(pair["chosen_ids"]).replace(" ", "")
    compared = [
        piece for token, bit in zip(pair["chosen_ids"], pair["chosen_mask"], strict=True) if bit
        for piece in [tokenizer.decode([token]).replace(" ", "")]
    ]  # fmt: skip
    drawn = [piece for piece, mark in zip(pieces, marks, strict=True) if mark == "1"]
    assert "".join(compared) == "".join(drawn)


def test_every_column_of_the_length_report_is_explained() -> None:
    for column in set(COLUMNS.values()) - {"pairs", "trained", "tokens", "EOS missing", "double BOS", "repeats"}:
        assert re.search(rf"^\| [^|]*\b{column}\b|\({column}\)", PAGE, flags=re.MULTILINE), column


def test_every_log_and_alarm_is_explained() -> None:
    sums = dict.fromkeys(("pairs", "chosen_reward", "rejected_reward", "right"), 1.0)
    for side in ("chosen", "rejected"):
        sums |= dict.fromkeys((f"{side}_tokens", f"{side}_logps", f"{side}_gain"), 1.0)
    for name in pair_means(sums):
        group, _, side = name.partition("/")
        assert f"`{name}`" in PAGE or f"`{group}/chosen`, `/{side}`" in PAGE or group == "logps", name
    for alarm in (COLLAPSE, CHANCE):
        assert f"| `{alarm}` |" in PAGE


def test_llama_s_keys_are_a_recipe(tmp_path: Path) -> None:
    keys = yaml.safe_load(PAGE.split("```yaml\n")[1].split("```")[0])
    recipe = load_recipe([str(write_pair_recipe(tmp_path, **keys))], stage="dpo")
    assert recipe.loss_types() == ["sigmoid", "sft"]
    assert recipe["mask_termination_tokens"] is True
