"""The main job, whole: base model and rows come from a Hub, the trained model goes there, and a stranger loads it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub.fixtures import RunningHub
from tests.stage import QUIET, sft_command, write_recipe
from tests.tiny import conversation, save_base, write_rows
from tulu_recipes.run import read_json

pytestmark = pytest.mark.e2e

PUSH = {"push_to_hub": True, "hub_model_id": "alice/tiny-sft", "hub_strategy": "end"}


@pytest.fixture
def recipe(hub: RunningHub, tmp_path: Path) -> Path:
    """A recipe whose model and rows are on the Hub."""
    save_base(tmp_path / "base")
    card = "---\nlicense: llama3.1\n---\n"
    (tmp_path / "base" / "README.md").write_text(card)
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", [conversation(i, 1 + i % 3, 9) for i in range(24)])
    (tmp_path / "data" / "README.md").write_text("---\nlicense: odc-by\n---\n")
    hub.add_repo("model", "alice/base", tmp_path / "base")
    hub.add_repo("dataset", "alice/rows", tmp_path / "data")
    return write_recipe(
        tmp_path / "work", model_name_or_path="alice/base", dataset_name="alice/rows", num_train_epochs=1, **PUSH
    )


def sft(hub: RunningHub, recipe: Path, *overrides: str, token: str = "write") -> subprocess.CompletedProcess[str]:
    quiet = {key: value for key, value in QUIET.items() if key != "HF_HUB_OFFLINE"}
    return subprocess.run(
        sft_command(recipe, *overrides), env=hub.env(token) | quiet, capture_output=True, text=True, timeout=300
    )


def pushed(hub: RunningHub, name: str) -> str:
    return hub.files("alice/tiny-sft")[name].decode()


def test_a_model_is_pulled_trained_pushed_and_pulled_again(hub: RunningHub, recipe: Path) -> None:
    # every_save, transformers' default: it pushes in between, we push and verify at the end
    done = sft(hub, recipe, "--hub_private_repo", "true", "--hub_strategy", "every_save")
    assert done.returncode == 0, done.stderr
    assert "pushed: http" in done.stderr
    record = read_json(recipe.parent / "run" / "run.json")
    assert record["status"] == "finished"
    files = set(hub.files("alice/tiny-sft"))
    assert {"model.safetensors", "README.md", "recipe.resolved.yaml", "loss.png", "metrics.jsonl"} <= files
    assert not [name for name in files if name.startswith("checkpoint-") or "lock" in name]
    assert hub.repo("alice/tiny-sft").private

    card = pushed(hub, "README.md")
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "alice/base"
    assert front["license"] == "llama3.1"
    assert front["datasets"] == ["alice/rows"]
    assert "dataset `alice/rows`: odc-by" in card
    assert "loss_reduction: sum" in card
    assert "trl 1." in card

    answer = hub.run("""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained("alice/tiny-sft")
        model = AutoModelForCausalLM.from_pretrained("alice/tiny-sft")
        generation = model.generation_config
        from huggingface_hub import HfApi
        result = {
            "commits": [HfApi().dataset_info("alice/rows").sha, HfApi().model_info("alice/base").sha],
            "eos": [generation.eos_token_id, tokenizer.eos_token_id],
            "pad": [generation.pad_token_id, tokenizer.pad_token_id],
            "template": tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False),
        }
    """)
    trained, saved = answer["eos"][1], answer["eos"][0]
    assert saved in (trained, [trained])
    assert answer["pad"][0] == answer["pad"][1] != trained
    assert all(commit in card for commit in answer["commits"])
    assert answer["template"] == "<|user|>\nhello\n"


def test_a_push_that_fails_at_the_end_loses_nothing_and_the_same_command_resumes_the_push(
    hub: RunningHub, recipe: Path
) -> None:
    hub.fail_next(r"/commit/", times=None, status=403)  # final: outages are retried for minutes, see test_hub_push
    failed = sft(hub, recipe)
    assert failed.returncode == 1
    assert f"python -m tulu_recipes.sft {recipe}" in failed.stderr
    run = recipe.parent / "run"
    assert read_json(run / "run.json")["status"] == "trained"
    assert (run / "model.safetensors").is_file()
    assert "model.safetensors" not in hub.files("alice/tiny-sft")
    trained = (run / "metrics.jsonl").read_bytes()

    hub.heal()
    resumed = sft(hub, recipe)
    assert resumed.returncode == 0, resumed.stderr
    assert "step 1/" not in resumed.stderr  # nothing is trained again
    assert (run / "metrics.jsonl").read_bytes() == trained
    assert "model.safetensors" in hub.files("alice/tiny-sft")


@pytest.mark.parametrize(
    ("keys", "token", "slugs"),
    [
        ({"model_name_or_path": "alice/nowhere"}, "write", {"hub-repo-not-found"}),
        ({"model_name_or_path": "alice/gated"}, "stranger", {"hub-gated", "hub-namespace"}),
        ({"dataset_revision": "no-such-branch"}, "write", {"hub-revision-not-found"}),
        ({}, "expired", {"hub-token-refused"}),
        ({}, "read", {"hub-token-read-only"}),
        ({"hub_model_id": "bob/other"}, "write", {"hub-namespace"}),
    ],
    ids=["missing", "gated", "revision", "expired", "read-token", "foreign-namespace"],
)
def test_the_hub_s_refusal_comes_before_anything_is_written(
    hub: RunningHub, recipe: Path, tmp_path: Path, keys: dict[str, Any], token: str, slugs: set[str]
) -> None:
    hub.add_repo("model", "alice/gated", tmp_path / "base", gated=True)
    overrides = [part for key, value in keys.items() for part in (f"--{key}", str(value))]
    refused = sft(hub, recipe, *overrides, token=token)
    assert refused.returncode == 2, refused.stderr
    found = {line.split()[0] for line in refused.stderr.splitlines() if line.startswith("hub-")}
    assert slugs <= found, refused.stderr
    assert not (recipe.parent / "run").exists()
    assert not hub.has_repo("alice/tiny-sft")
    assert hub.tokens[token] not in refused.stderr
