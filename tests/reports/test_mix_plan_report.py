"""The plan of a mix against its build: the same numbers, and the same refusals before anything is downloaded."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.data.mixing.mixes import build, chats, write_mix
from tulu_recipes.data.mix_plan import plan_mix
from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.errors import DataError
from tulu_recipes.reports.mix_plan_report import print_mix_plan
from tulu_recipes.reports.mix_table import mix_table_from_lock, mix_table_from_plan

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("amount", ["", "rows: 3", "fraction_of_source: 0.25", "repeat: 3.5", "where: {kind: [a]}"])
def test_plan_and_build_agree_on_rows_repeats_and_share(tmp_path: Path, amount: str) -> None:
    rows = [row | {"kind": "ab"[n % 2]} for n, row in enumerate(chats(10))]
    mix = write_mix(tmp_path, {"a.jsonl": rows})
    if amount:
        mix.write_text(mix.read_text().replace("- name:", f"- {amount}\n  name:"))
    (planned,) = mix_table_from_plan(plan_mix(load_mix(mix)).sources)
    (built,) = mix_table_from_lock(build(mix, tmp_path / "out").lock or {})
    assert (planned.rows_available, planned.rows_taken) == (built.rows_available, built.rows_taken)
    assert planned.repeats == pytest.approx(built.repeats)
    assert planned.share == built.share == 1
    assert planned.tokens is not None
    assert planned.tokens == pytest.approx(built.tokens, rel=0.1)


@pytest.mark.parametrize(
    ("before", "after", "slug"),
    [
        ("- name:", "- split: validation\n  name:", "split-unknown"),
        ("- name:", "- fraction_of_source: 0.01\n  name:", "mix-amount"),
        ("- name:", "- rows: 11\n  name:", "mix-amount"),
        ("target: sft", "target: sft\nfilters: ['no_such_module:keep']", "filter-function"),
    ],
)
def test_what_the_build_would_refuse_the_plan_refuses(tmp_path: Path, before: str, after: str, slug: str) -> None:
    mix = write_mix(tmp_path, {"a.jsonl": chats(10)})
    mix.write_text(mix.read_text().replace(before, after))
    with pytest.raises(DataError) as refused:
        print_mix_plan(load_mix(mix), Console(quiet=True))
    assert slug in refused.value.slugs or "mix-source" in refused.value.slugs
