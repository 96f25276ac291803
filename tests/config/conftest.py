import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tulu_recipes.config.load import load_recipe
from tulu_recipes.config.recipe import Recipe
from tulu_recipes.errors import Problem, RecipeError

MARKED = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small model's files and a data file."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    return tmp_path


@pytest.fixture
def new_model() -> Callable[..., Path]:
    """new_model(path, **changes): see write_model."""
    return write_model


def write_model(path: Path, **changes: Any) -> Path:
    """The small files of a model; config, tokenizer_config or chat_template may be given; None leaves it out."""
    path.mkdir(exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048, "eos_token_id": 1}
    tokenizer = {"eos_token": "<eos>", "pad_token": "<pad>"}
    files: dict[str, Any] = {"config": config, "tokenizer_config": tokenizer, "chat_template": MARKED} | changes
    for name, content in files.items():
        if content is None:
            continue
        if name == "chat_template":
            (path / "chat_template.jinja").write_text(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (path / f"{name}.json").write_text(text)
    return path


BASE = "model_name_or_path: ./model\ndataset_name: rows.jsonl\n"


@pytest.fixture
def load(folder: Path) -> Callable[..., Recipe]:
    """load(text, *arguments, stage="sft"): the base recipe's two lines (model, data) and `text` from line 3 on."""

    def load_text(text: str = "", *arguments: str, base: str = BASE, stage: str = "sft", **options: Any) -> Recipe:
        (folder / f"{stage}.yaml").write_text(base + text)
        return load_recipe([f"{stage}.yaml", *arguments], stage, **{"environ": {}} | options)

    return load_text


@pytest.fixture
def refused(load: Callable[..., Recipe]) -> Callable[..., SimpleNamespace]:
    """refused(text, *arguments): the refusal's problems, its first one's parts, and the whole text."""

    def refused_text(text: str = "", *arguments: str, **options: Any) -> SimpleNamespace:
        with pytest.raises(RecipeError) as caught:
            load(text, *arguments, **options)
        return SimpleNamespace(
            problems=caught.value.problems,
            slugs=caught.value.slugs,
            first=caught.value.problems[0],
            text=str(caught.value),
        )

    return refused_text


@pytest.fixture
def one(refused: Callable[..., SimpleNamespace]) -> Callable[..., Problem]:
    """one(text, *arguments): the only problem of a refusal."""

    def only(text: str = "", *arguments: str, **options: Any) -> Problem:
        refusal = refused(text, *arguments, **options)
        assert len(refusal.problems) == 1, refusal.text
        problem: Problem = refusal.first
        return problem

    return only
