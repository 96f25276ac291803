"""The table of a mix's sources: planned with estimates marked, built with exact numbers, readable at 80 columns."""

import io

import pytest
from rich.console import Console

from tests.reports.mix_lock import mix_lock
from tulu_recipes.data.mix_plan import PlannedSource
from tulu_recipes.reports.mix_table import MixTableRow, mix_table_from_lock, mix_table_from_plan, print_mix_table


def printed(rows: list[MixTableRow], width: int = 100) -> str:
    out = io.StringIO()
    print_mix_table(rows, Console(file=out, width=width))
    return out.getvalue()


def words(text: str, start: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.strip().startswith(start))


def planned(name: str = "acme/chats", **keys: object) -> PlannedSource:
    known = {"config": None, "split": "train", "revision": "c" * 40, "licence": "odc-by", "rows_available": 1000}
    known |= {"rows_exact": True, "rows_taken": 3500, "repeats": 3.5, "tokens": 12345, "share": 0.75}
    return PlannedSource(name, **(known | keys))  # type: ignore[arg-type]


def test_the_table_of_a_lock_is_exact() -> None:
    rows = mix_table_from_lock(mix_lock())
    assert rows[1] == MixTableRow("acme/robots", 1, 2, 2.0, 150, 150 / 780, "CC-BY-NC-4.0", "d" * 40)
    text = printed(rows)
    assert words(text, "acme/chats (main)")[2:] == ["10", "6", "1", "210", "26.9%", "odc-by", "cccccccc"]
    assert words(text, "acme/flan (test)")[7:] == ["not", "given", "eeeeeeee"]
    assert words(text, "total") == ["total", "104", "12", "780"]
    assert "~" not in text


def test_without_tokens_the_share_is_of_characters() -> None:
    lock = mix_lock()
    lock["result"]["tokens"] = None
    for source in lock["sources"]:
        source["tokens"] = None
    rows = mix_table_from_lock(lock)
    assert rows[0].share == pytest.approx(840 / 3120)
    assert words(printed(rows), "total") == ["total", "104", "12", "~780"]  # 3,120 characters, 4 a token


def test_estimates_of_a_plan_are_marked() -> None:
    sure, stated = planned(), planned("acme/b", rows_exact=False, share=0.25, notes=("rows stated by its card",))
    text = printed(mix_table_from_plan([sure, stated]))
    assert words(text, "acme/chats")[1:6] == ["1,000", "3,500", "3.5", "~12,345", "~75.0%"]
    assert words(text, "acme/b")[1:6] == ["~1,000", "~3,500", "3.5", "~12,345", "~25.0%"]
    assert words(text, "total")[1:] == ["~2,000", "~7,000", "~24,690"]
    assert "~ estimated" in text
    assert "acme/b: rows stated by its card" in text


def test_what_is_not_known_is_not_added() -> None:
    unknown = planned(
        "x.csv", revision=None, rows_available=None, rows_taken=None, repeats=None, tokens=None, share=None
    )
    text = printed(mix_table_from_plan([planned(), unknown]))
    assert words(text, "x.csv")[1:6] == ["?"] * 5
    assert words(text, "x.csv")[-1] == "local"
    assert words(text, "total")[1:] == ["?"] * 3


@pytest.mark.parametrize("width", [80, 100, 120])
def test_numbers_are_whole_at_every_width(width: int) -> None:
    big = planned("allenai/tulu-3-sft-personas-[bold]following", rows_available=939_343, rows_taken=939_343)
    text = printed(mix_table_from_plan([big, planned("a" * 70, licence="fair-noncommercial-research-license")]), width)
    assert max(map(len, text.splitlines())) <= width
    for whole in ("939,343", "~12,345", "~75.0%", "cccccccc"):
        assert whole in text
    assert "…" not in text
    names = "".join(line.split()[0] for line in text.splitlines() if line.startswith(" ") and line.strip())
    assert "[bold]following" in names  # no markup
