"""docs/sft.md says what is true: its Python runs, and its tables name every column, file and reduction there is."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tests.tiny import conversation, save_base, write_rows
from tulu_recipes.algorithms.reductions import Reduction
from tulu_recipes.data.audit import COLUMNS

PAGE = (Path(__file__).parents[2] / "docs/sft.md").read_text(encoding="utf-8")


def test_every_audit_column_is_explained():
    for column in set(COLUMNS.values()) - {"rows", "tokens", "supervised"}:
        assert re.search(rf"^\| [^|]*\b{column}\b", PAGE, flags=re.MULTILINE), column


def test_every_reduction_is_explained():
    for reduction in get_args(Reduction):
        assert f"| `{reduction}` |" in PAGE


@pytest.mark.integration
def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_base(tmp_path / "base")
    write_rows(tmp_path / "rows.jsonl", [conversation(number, turns=2) for number in range(8)])
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        # the tiny model in place of SmolLM2, three steps instead of ten, no tracker
        code = block.replace("HuggingFaceTB/SmolLM2-135M", str(tmp_path / "base")).replace("<|im_start|>", "<pad>")
        code = code.replace("max_steps=10,", "max_steps=3, report_to=[], bf16=False, use_cpu=True, logging_steps=1,")
        exec(compile(code, "docs/sft.md", "exec"), names)  # noqa: S102  # the page's own examples
    trainer, audit = names["trainer"], names["audit"]
    assert trainer.state.global_step == 3
    assert trainer.args.loss_reduction == "sum"
    assert len(names["rows"]) == audit.total.trained_rows == 8

    # both ways of preparing rows give the same labels
    theirs = [row["labels"] for row in trainer.train_dataset]
    ours = [row["labels"] for row in names["rows"]]
    assert theirs == ours

    second = type(trainer)(
        model=trainer.model, args=names["args"], train_dataset=names["rows"], processing_class=names["tokenizer"]
    )
    second.train()
    logged = {key for line in second.state.log_history for key in line}
    for key in re.findall(r"`(loss|grad_norm|num_\w+|row_order_crc32|mean_token_accuracy|entropy)`", PAGE):
        assert key in logged, key
