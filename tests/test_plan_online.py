"""What `plan` says of a recipe of RLVR."""

from pathlib import Path

import pytest

from tests.tiny import save_base
from tulu_recipes import plan

RECIPE = """\
model_name_or_path: {base}
dataset_name: rows.jsonl
chat_template: tulu
max_prompt_length: 64
max_completion_length: 16
global_batch_size: 4
total_episodes: 8
num_iterations: 2
"""


def test_prompts_completions_memory_and_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    (tmp_path / "rlvr.yaml").write_text(RECIPE.format(base=save_base(tmp_path / "base")))
    assert plan.main(["rlvr.yaml", "--rows", "100", "--tokens_per_row", "20", "--gpu", "H100"]) == 0
    shown = capsys.readouterr().out
    assert "prompts 100 · 2,000 tokens (as stated)" in shown
    assert "steps   4 · 8 completions of at most 16 tokens, 1 of a prompt: each prompt 0.08 times" in shown
    assert "Memory per device, GiB · prompt and completion of 80 tokens" in shown
    assert "value model" in shown
    assert "generation comes on top" in shown
    assert "Disk: " in shown
