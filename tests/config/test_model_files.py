import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.config.check import check_recipe
from tulu_recipes.config.model_files import ModelFiles, has_generation_markers
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.errors import Problem

NewModel = Callable[..., Path]
Load = Callable[..., Recipe]
One = Callable[..., Problem]

MARKED = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048, "eos_token_id": 1}
TOKENS = {"eos_token": "<eos>", "pad_token": "<pad>"}


def test_a_max_length_above_the_model_s_positions_is_refused(
    one: One, load: Load, folder: Path, new_model: NewModel
) -> None:
    problem = one("max_length: 4096\n")
    assert (problem.slug, problem.where) == ("max-length", "sft.yaml line 3")
    assert "4,096, but the model has 2,048 positions" in problem.what
    assert problem.mend == "write  max_length: 2048  or less."
    assert load("max_length: 2048\n")["max_length"] == 2048
    assert load("max_length: null\n")["max_length"] is None
    new_model(folder / "model", config={"text_config": {"max_position_embeddings": 512}})
    assert "1,024 (the default), but the model has 512" in one().what


@pytest.mark.parametrize(
    ("tokenizer", "text", "slug", "said"),
    [
        ({"eos_token": "<eos>"}, "", "pad-missing", 'pad_token: "<pad>"'),
        ({"eos_token": "<eos>", "pad_token": None}, "", "pad-missing", "never supervised"),
        ({"eos_token": {"content": "<e>"}, "pad_token": "<e>"}, "", "pad-is-eos", "are both <e>"),
        (TOKENS, "pad_token: <eos>\n", "pad-is-eos", "are both <eos>"),
        (TOKENS, "eos_token: <pad>\n", "pad-is-eos", "are both <pad>"),
        ({"eos_token": None, "pad_token": "<pad>"}, "", "eos-missing", "learn to stop"),
    ],
)
def test_special_tokens_that_would_train_wrongly_are_refused(
    tokenizer: dict[str, Any], text: str, slug: str, said: str, folder: Path, one: One, new_model: NewModel
) -> None:
    new_model(folder / "model", tokenizer_config=tokenizer)
    problem = one(text)
    assert problem.slug == slug
    assert problem.where == ("sft.yaml line 3" if "pad_token" in text else "sft.yaml line 1")
    assert said in problem.render()


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        ({"eos_token": "<eos>"}, 'pad_token: "<pad>"\n'),
        ({"eos_token": "<e>", "pad_token": "<e>"}, 'pad_token: "<pad>"\n'),
        ({"eos_token": None, "pad_token": "<pad>"}, "eos_token: <end>\n"),
        ({"pad_token": "<pad>"}, ""),  # the class brings EOS of its own: config.json has its id
    ],
)
def test_a_recipe_can_mend_the_tokenizer(
    tokenizer: dict[str, Any], text: str, folder: Path, load: Load, new_model: NewModel
) -> None:
    new_model(folder / "model", tokenizer_config=tokenizer)
    assert load(text).broken == frozenset()


def test_tokens_may_stand_in_the_special_tokens_map(folder: Path, load: Load, new_model: NewModel) -> None:
    new_model(folder / "model", tokenizer_config={}, special_tokens_map=TOKENS)
    assert load().broken == frozenset()


def test_a_model_without_chat_template_is_refused_unless_one_is_named(folder: Path, one: One, load: Load) -> None:
    (folder / "model" / "chat_template.jinja").unlink()
    problem = one()
    assert (problem.slug, problem.where) == ("template-missing", "sft.yaml line 1")
    assert problem.mend == "write  chat_template: tulu"
    assert load("chat_template: tulu\n")["chat_template"] == "tulu"


def test_a_template_that_does_not_mark_answers_is_refused(folder: Path, one: One, load: Load) -> None:
    (folder / "plain.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    problem = one("chat_template: plain.jinja\n")
    assert (problem.slug, problem.where) == ("template-without-generation", "sft.yaml line 3")
    assert "plain.jinja does not mark" in problem.what
    (folder / "marked.jinja").write_text(MARKED)
    assert load("chat_template: marked.jinja\n")["chat_template"] == "marked.jinja"


@pytest.mark.parametrize(
    "stored",
    [
        {"tokenizer_config": TOKENS | {"chat_template": MARKED}},
        {"tokenizer_config": TOKENS | {"chat_template": [{"name": "default", "template": MARKED}]}},
    ],
)
def test_a_template_is_found_where_tokenizers_keep_it(
    stored: dict[str, Any], folder: Path, load: Load, new_model: NewModel
) -> None:
    (folder / "model" / "chat_template.jinja").unlink()
    new_model(folder / "model", chat_template=None, **stored)
    assert load().broken == frozenset()
    new_model(folder / "other", **({"chat_template": None, "config": None} | stored))
    assert load("chat_template: ./other\n").broken == frozenset()


def test_a_named_folder_without_template_is_refused(folder: Path, one: One, new_model: NewModel) -> None:
    new_model(folder / "other", chat_template=None)
    assert one("chat_template: ./other\n").slug == "template-missing"


@pytest.mark.parametrize("text", ["{% generation %}", "{%- generation -%}", "{%generation%}", "{%+ generation %}"])
def test_generation_markers_are_seen_with_any_whitespace_control(text: str) -> None:
    assert has_generation_markers(text)
    assert not has_generation_markers("{% if add_generation_prompt %}{% endgeneration %}")


def test_a_reward_model_is_no_start_for_sft(folder: Path, one: One, new_model: NewModel) -> None:
    new_model(folder / "model", config=CONFIG | {"architectures": ["LlamaForSequenceClassification"]})
    problem = one()
    assert (problem.slug, problem.where) == ("wrong-architecture", "sft.yaml line 1")


def test_a_folder_without_model_or_tokenizer_is_refused(folder: Path, one: One) -> None:
    (folder / "empty").mkdir()
    data = "dataset_name: rows.jsonl\n"
    assert one(base="model_name_or_path: ./empty\n" + data).slug == "model-incomplete"
    (folder / "empty" / "config.json").write_text(json.dumps(CONFIG))
    assert one(base="model_name_or_path: ./empty\n" + data).slug == "tokenizer-missing"


def test_a_broken_json_file_is_reported_once(folder: Path, one: One, new_model: NewModel) -> None:
    for content in ("{oops", "[1]"):
        new_model(folder / "model", config=content)
        assert one().slug == "model-files-broken"


def test_the_stored_dtype_counts_where_the_recipe_says_auto(
    folder: Path, one: One, load: Load, new_model: NewModel
) -> None:
    text = "dtype: auto\nlearning_rate: 5e-6\n"
    for stored in ({"dtype": "bfloat16"}, {"torch_dtype": "torch.bfloat16"}):
        new_model(folder / "model", config=CONFIG | stored)
        problem = one(text)
        assert (problem.slug, problem.where) == ("bf16-weights", "sft.yaml line 3")
    new_model(folder / "model", config=CONFIG | {"dtype": "float32"})
    assert load(text)["dtype"] == "auto"


def test_a_hub_model_is_read_only_through_the_given_reader(load: Load) -> None:
    recipe = load(
        "model_revision: v2\nmax_length: 4096\n", base="model_name_or_path: some/model\ndataset_name: rows.jsonl\n"
    )
    files = {
        "config.json": json.dumps(CONFIG),
        "tokenizer_config.json": json.dumps({"eos_token": "<e>", "pad_token": "<e>"}),
    }
    asked = []

    def read_text(repo_id: str, filename: str, *, revision: str | None = None) -> str | None:
        asked.append((repo_id, filename, revision))
        return files.get(filename)

    assert check_recipe(recipe) == []
    slugs = [problem.slug for problem in check_recipe(recipe, read_text=read_text)]
    assert slugs == ["max-length", "pad-is-eos", "template-missing"]
    assert ("some/model", "config.json", "v2") in asked


def test_a_template_named_by_hub_id_is_read_from_there(load: Load) -> None:
    recipe = load("chat_template: other/tokenizer\n")

    def read_text(repo_id: str, filename: str, *, revision: str | None = None) -> str | None:
        return "no markers" if (repo_id, filename) == ("other/tokenizer", "chat_template.jinja") else None

    assert [problem.slug for problem in check_recipe(recipe, read_text=read_text)] == ["template-without-generation"]


def test_a_model_still_to_be_built_is_not_read(folder: Path, load: Load) -> None:
    base = "model_name_or_path: tiny\nmodel_builder: tulu_recipes.data.tiny:build\ndataset_name: rows.jsonl\n"

    def read_text(repo_id: str, filename: str, *, revision: str | None = None) -> str | None:
        raise AssertionError(f"{repo_id} is no Hub id")

    assert check_recipe(load(base=base), read_text=read_text) == []


def test_files_are_read_in_utf8(folder: Path) -> None:
    (folder / "model" / "chat_template.jinja").write_text("tülü", encoding="utf-8")
    assert ModelFiles(str(folder / "model")).chat_template() == "tülü"
