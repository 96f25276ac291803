"""The tests of this folder notice when a launch is not what it claims: these launches are not."""

import json
from pathlib import Path

import pytest

from tests.distributed.evidence import FallbackError, parallelism, require
from tests.distributed.launch import ROOT, launch
from tests.layouts import token_rows, trainer_for
from tests.tiny import save_base, tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ONE_STEP = {"step": {"per_device_train_batch_size": 4}}


def test_fsdp2_without_the_shim_is_found_to_be_ddp(tmp_path: Path) -> None:
    """When this fails, accelerate runs FSDP2 on CPU itself: delete tests/distributed/shim.py."""
    save_base(tmp_path / "base")
    (tmp_path / "cases.json").write_text(json.dumps(ONE_STEP), encoding="utf-8")
    done = launch("fsdp2", str(ROOT / "tests/distributed/worker.py"), "fsdp2-unshimmed", str(tmp_path))
    assert done.returncode != 0
    assert "FallbackError: asked for fsdp2-unshimmed on 2 processes, ran ddp on 2" in done.stdout
    assert not (tmp_path / "results.json").exists()


def test_one_process_is_found_to_be_one(tmp_path: Path) -> None:
    trainer = trainer_for(tiny_model(), tmp_path, token_rows(8))
    trainer.train()
    assert parallelism(trainer) == "single"
    with pytest.raises(FallbackError, match="asked for ddp on 2 processes, ran single on 1"):
        require(trainer, "ddp", processes=2)
