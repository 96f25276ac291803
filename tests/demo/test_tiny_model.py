"""The tiny base model: the same bytes on every build, a tokenizer that behaves like Llama's."""

import hashlib
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tulu_recipes.demo import tiny_model


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("tiny") / "base"
    tiny_model.build(built)
    return built


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


def test_two_builds_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    tiny_model.build(tmp_path / "again")
    assert digests(tmp_path / "again") == digests(folder)
    assert "model.safetensors" in digests(folder)


def test_weights_and_vocabulary_are_the_recorded_ones_on_this_machine_too(folder: Path) -> None:
    # Recorded once. They move when the rows, the sizes or the weight stream change, and the demo's figures with them.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = "\n".join(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__))
    weights = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    assert hashlib.sha256(vocabulary.encode()).hexdigest()[:16] == "c58b23a7999658d3"
    assert weights.hexdigest()[:16] == "3e39e5edff5f4a44"


def test_a_folder_that_exists_is_left_alone_and_nothing_is_left_beside_it(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    tiny_model.build(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_build_takes_under_two_seconds_of_processor_time(tmp_path: Path) -> None:
    start = time.process_time()
    tiny_model.build(tmp_path / "timed")
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("text", ["plain", "  two  spaces\n\n", "Tülu 3: ünïcödé", "日本語 🐪", "<|user|>\n1 + 2"])
def test_any_text_comes_back_as_it_went_in(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text


def test_plain_text_gets_one_bos_and_pad_is_neither_bos_nor_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("What is 1 + 2?")
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert tokenizer.chat_template is None


def test_model_and_tokenizer_agree_and_stay_under_a_million_parameters(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.num_parameters() < 1_000_000
