"""What a mix file may say, and every way it may not: all problems at once, with their lines."""

from pathlib import Path

import pytest

from tulu_recipes.data.mixing.mix_file import load_mix
from tulu_recipes.errors import DataError, Problem
from tulu_recipes.plan import is_mix_file


def refused(folder: Path, text: str, name: str = "mix.yaml") -> list[Problem]:
    (folder / "a.jsonl").write_text("{}\n")
    path = folder / name
    path.write_text(text.replace("HERE", str(folder)))
    with pytest.raises(DataError) as refusal:
        load_mix(path)
    return refusal.value.problems


def test_every_key_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    path = tmp_path / "mix.yaml"
    path.write_text(
        f"""\
target: sft
seed: 7
order: as_given
shard_rows: 1_000
max_broken_fraction: 5e-3
sources:
  - name: {tmp_path}/a.jsonl
    label: no
    columns: {{question: problem}}
    keep_columns: [id]
    where: {{model: [gpt-4, gpt-4o], turn: 1}}
    repeat: 3.5
    filters:
      - turns: {{max: 4}}
  - name: org/data
    revision: 12345678          # a commit may look like a number
    rows: 10
    stated_rows: 12
filters:
  - characters: {{min: 1}}
  - model_mentions
"""
    )
    mix = load_mix(path)
    first, second = mix.sources
    assert (mix.seed, mix.order, mix.shard_rows, mix.max_broken_fraction) == (7, "as_given", 1000, 0.005)
    assert (first.label, second.revision, first.amount) == ("no", "12345678", {"repeat": 3.5})
    assert first.rows_where == {"model": ["gpt-4", "gpt-4o"], "turn": [1]}
    assert first.place.endswith("mix.yaml line 7")
    assert [str(call) for call in (*first.filters, *mix.filters)] == ["turns", "characters", "model_mentions"]
    assert (second.amount, second.title) == ({"rows": 10}, "org/data")


def test_ten_mistakes_are_told_in_one_go(tmp_path: Path) -> None:
    problems = refused(
        tmp_path,
        """\
target: sfd
sead: 1
shard_rows: 0
sources:
  - name: HERE/a.jsonl
    weight: 2
  - name: HERE/gone.jsonl
    rows: 5
    repeat: 2
  - fraction_of_source: 1.5
    name: HERE/a.jsonl
    label: x
  - rows: -1
    nmae: org/data
filters:
  - caracters: {min: 1}
  - characters: {min: 9, max: 3}
  - [a, b]
""",
    )
    said = {(problem.slug, problem.where.rpartition(" ")[2]) for problem in problems}
    assert said >= {
        ("unknown-choice", "1"),
        ("mix-key-unknown", "2"),
        ("out-of-range", "3"),
        ("mix-weight", "6"),
        ("mix-amount", "9"),
        ("out-of-range", "10"),
        ("out-of-range", "13"),
        ("mix-key-unknown", "14"),
        ("mix-source", "13"),
        ("mix-filter", "16"),
        ("mix-filter", "17"),
        ("mix-filter", "18"),
        ("path-missing", "7"),
    }
    weight = next(problem for problem in problems if problem.slug == "mix-weight")
    assert "fraction_of_source" in weight.mend
    assert "repeat" in weight.mend


@pytest.mark.parametrize(
    ("text", "slug", "said"),
    [
        ("target: sft\n", "mix-empty", "no `sources`"),
        ("model_name_or_path: a\nlearning_rate: 1\n", "mix-empty", "it is no mix"),
        ("sources: [\n", "yaml-syntax", ""),
        ("- a\n", "recipe-not-a-mapping", "a list"),
        ("sources: org/data\n", "mix-source", "not a list"),
        ("sources:\n  - org/data\n", "mix-source", "not keys with values"),
        ("sources:\n  - name: org/a\n    name: org/b\n", "duplicate-key", "twice"),
        ("sources:\n  - {name: org/a, repeat: 0}\n", "out-of-range", "above 0"),
        ("sources:\n  - {name: org/a, repeat: 5000}\n", "mix-amount", "over a thousand times"),
        ("sources:\n  - {name: org/a, where: gpt-4}\n", "mix-source", "where is gpt-4"),
        ("sources:\n  - {name: org/a}\nfilters:\n  - tokens: {max: 5}\n", "mix-filter", "names no tokenizer"),
        ("sources:\n  - {name: org/a}\nfilters:\n  - exact_duplicates\n  - exact_duplicates\n", "mix-filter", "twice"),
        ("sources:\n  - {name: org/a}\nfilters: exact_duplicates\n", "mix-filter", "not a list"),
        ("sources:\n  - {name: org/a}\ndecontaminate: evals.yaml\n", "mix-decontaminate", "evals.yaml"),
        ("sources:\n  - {name: org/a}\ndecontaminate: {against: no.yaml}\n", "mix-decontaminate", "no file"),
        ("sources:\n  - {name: org/a}\ndecontaminate: {agianst: no.yaml}\n", "mix-key-unknown", "Nearest: against"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(tmp_path: Path, text: str, slug: str, said: str) -> None:
    problems = refused(tmp_path, text)
    assert slug in [problem.slug for problem in problems]
    assert any(said in problem.what for problem in problems)


def test_an_overlay_changes_its_base_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "seed: 1\nsources:\n  - {name: org/a, label: A}\n  - {name: org/b}\nfilters:\n  - characters: {min: 1}\n"
    )
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("base: base.yaml\nwithout: [A]\nseed: 2\nsources:\n  - {name: org/c}\n")
    mix = load_mix(overlay)
    assert [source.name for source in mix.sources] == ["org/b", "org/c"]
    assert (mix.seed, len(mix.filters), mix.name) == (2, 1, f"{tmp_path.name}-overlay")
    assert mix.sources[0].place.endswith("base.yaml line 4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: mix.yaml\n", "leads back"),
        ("base: base.yaml\nwithout: [org/aa]\n", "no source org/aa"),
    ],
)
def test_an_overlay_of_nothing_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "base.yaml").write_text("sources:\n  - {name: org/a}\n")
    problems = refused(tmp_path, text)
    assert "mix-base" in [problem.slug for problem in problems]
    assert any(said in problem.what for problem in problems)


def test_the_meaning_is_what_counts_not_how_it_is_written(tmp_path: Path) -> None:
    def sha(text: str) -> str:
        path = tmp_path / "mix.yaml"
        path.write_text(text)
        return load_mix(path).sha256

    plain = sha("sources:\n  - {name: org/a, rows: 5}\n")
    assert plain == sha("# a comment\ntarget: sft\nseed: 42\nsources:\n  - rows: 5\n    name: org/a\n    config:\n")
    assert plain == sha("sources:\n  - {name: org/a, rows: 5, stated_rows: 9}\n")
    assert plain != sha("sources:\n  - {name: org/a, rows: 6}\n")
    assert plain != sha("seed: 43\nsources:\n  - {name: org/a, rows: 5}\n")


def test_mix_files_are_told_from_recipes(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text("sources:\n  - {name: org/a}\n")
    (tmp_path / "overlay.yaml").write_text("base: mix.yaml\n")
    (tmp_path / "sft.yaml").write_text("model_name_or_path: m\n")
    found = [is_mix_file(str(tmp_path / name)) for name in ("mix.yaml", "overlay.yaml", "sft.yaml", "gone.yaml")]
    assert found == [True, True, False, False]
