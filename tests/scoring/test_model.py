"""Scores in batches are those of each row alone, whatever its tokens, the padding token and the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.tiny import save_base, tiny_tokenizer
from tulu_recipes.scoring.model import load_reward_model, score_tokens

pytestmark = pytest.mark.integration
PAD, EOS = 1, 0
ROWS = [[5, 6, 7, EOS], [9, EOS], [5, PAD, 6, 11, 12, 13, PAD], [PAD], [20, 21, 22, 23, 24, EOS, PAD, PAD]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    save_base(folder / "base", tiny_tokenizer())
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=1)
    model.save_pretrained(folder / "scorer")
    return folder / "scorer"


@pytest.mark.parametrize("pad", [PAD, EOS, None])  # of the model's configuration: also EOS, as many models have it
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_score_is_the_head_s_output_at_the_last_token(saved: Path, batch_size: int, pad: int | None) -> None:
    model: Any = load_reward_model(str(saved))
    with torch.no_grad():
        hidden = [model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] for ids in ROWS]
        alone = [float(state @ model.score.weight[0]) for state in hidden]
    model.config.pad_token_id = pad
    told: list[int] = []
    assert score_tokens(model, ROWS, batch_size=batch_size, advance=told.append) == pytest.approx(alone, abs=1e-5)
    assert sum(told) == len(ROWS)
    assert max(told) == min(batch_size, len(ROWS))
    assert len({round(value, 4) for value in alone}) == len(ROWS)


def test_no_rows_have_no_scores(saved: Path) -> None:
    assert score_tokens(load_reward_model(str(saved)), [], batch_size=4) == []
