"""Matches against an oracle of lists and loops; planted questions; what chunks and collisions may not do."""

import random
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.contamination_oracle import all_matches
from tulu_recipes.data.contamination import match, tokens
from tulu_recipes.data.contamination.explain import explain
from tulu_recipes.data.contamination.index import EvalIndex, EvaluationItems
from tulu_recipes.data.contamination.match import find_matches

Evaluations = list[tuple[str, list[tuple[str, ...]]]]
GSM = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes 4 muffins for friends. "
    "She sells the remainder at the farmers' market daily for $2 per fresh duck egg. How much does she make?"
)


def build(evaluations: Evaluations, n: int = 8, threshold: float = 0.5) -> EvalIndex:
    items = [EvaluationItems(f"e{i}", rows, tokenization) for i, (tokenization, rows) in enumerate(evaluations)]
    return EvalIndex.build(items, n, threshold)


def found(index: EvalIndex, rows: Sequence[list[str]] | pa.Array) -> list[tuple[int, int, int, float]]:
    columns = find_matches(index, rows).to_pydict().values()
    return [(row, which, item, round(score, 9)) for row, which, item, score in zip(*columns, strict=True)]


def random_case(seed: int) -> tuple[Evaluations, list[list[str]], int, Fraction]:
    """Short and long items, several fields and turns, few words so that much repeats, shared sentences."""
    draw = random.Random(seed)
    words = draw.choice(
        [list("ab"), list("abcd"), "the cat Ä é 12 3.5 x-y don't".split(), [f"w{i}" for i in range(30)]]
    )
    n = draw.choice([2, 3, 4, 8])
    separators = draw.choice([[" "], [" ", ", ", "-", "\n", " … "]])

    def text(length: int) -> str:
        return "".join(draw.choice(words) + draw.choice(separators) for _ in range(length))

    shared = [text(draw.randint(1, 2 * n)) for _ in range(3)]

    def piece() -> str:
        start = draw.choice(shared) if draw.random() < 0.4 else ""
        end = draw.choice(shared) if draw.random() < 0.2 else ""
        return start + text(draw.choice([0, 0, 1, 2, n - 1, n, n + 1, 2 * n, 3 * n])) + end

    evaluations: Evaluations = []
    for _ in range(draw.randint(1, 3)):
        fields = draw.choice([1, 1, 2, 3])
        items = [tuple(piece() for _ in range(fields)) for _ in range(draw.randint(1, 6))]
        evaluations.append((draw.choice(["as_released", "words"]), items))
    whole = [field for _, items in evaluations for item in items for field in item]

    def turn() -> str:
        item = draw.choice(draw.choice(evaluations)[1])
        made = draw.choice(
            [piece(), draw.choice(whole), piece() + draw.choice(whole).upper() + piece(), " ".join(item)]
        )
        at = draw.randrange(len(made) + 1)
        return f"{made[:at]}zz{made[at:]}" if draw.random() < 0.3 else made

    rows = [[turn() for _ in range(draw.randint(0, 3))] for _ in range(draw.randint(0, 12))]
    return evaluations, rows, n, draw.choice([Fraction(1, 2), Fraction(1, 2), Fraction(1, 3), Fraction(4, 5)])


@pytest.mark.parametrize("part", range(6))
def test_every_match_and_no_other(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 0
    for seed in range(part * 40, part * 40 + 40):
        evaluations, rows, n, threshold = random_case(seed)
        if seed % 3 == 0:
            monkeypatch.setattr(tokens, "HASH_BITS", 3)  # eight hashes for everything: only the bytes can tell
        if seed % 2 == 0:
            monkeypatch.setattr(match, "CHUNK_CHARACTERS", 7)
            monkeypatch.setattr(match, "MAX_PAIRS", 5)
        expected = all_matches(evaluations, rows, n, threshold)
        assert found(build(evaluations, n, float(threshold)), rows) == expected, seed
        total += len(expected)
        monkeypatch.undo()
    assert total > 100


def test_half_is_no_match_and_a_token_more_is() -> None:
    item = " ".join(f"t{i}" for i in range(16))
    index = build([("as_released", [(item,)])])
    assert found(index, [[" ".join(f"t{i}" for i in range(8))]]) == []
    assert found(index, [[" ".join(f"t{i}" for i in range(9))]]) == [(0, 0, 0, 9 / 16)]
    # two halves in two rows are two halves; in two turns of one row they are that row's
    first, second = " ".join(f"t{i}" for i in range(8)), " ".join(f"t{i}" for i in range(8, 16))
    assert found(index, [[first], [second]]) == []
    assert found(index, [[first, second]]) == [(0, 0, 0, 1.0)]
    # an n-gram over the border between turns is none
    assert found(index, [[" ".join(f"t{i}" for i in range(5)), " ".join(f"t{i}" for i in range(5, 12))]]) == []


def test_short_items_match_only_a_turn_that_equals_them() -> None:
    index = build([("as_released", [("Paris", "capital of", "France"), ("", ""), ("Who won?",)])])
    assert index.compared == {"e0": 2}
    rows = [["paris capital OF france!"], ["tell me: Paris capital of France"], ["x", "who won"], ["who won it"]]
    assert found(index, rows) == [(0, 0, 0, 1.0), (2, 0, 2, 1.0)]


def test_a_short_field_counts_as_a_phrase_beside_a_long_one() -> None:
    passage = " ".join(f"p{i}" for i in range(10))
    index = build([("as_released", [(passage, "Who won?"), ("", passage)])])
    half = " ".join(f"p{i}" for i in range(9))
    assert found(index, [[passage]]) == [(0, 0, 1, 1.0)]  # the question is missing: 0.5; an empty field is left out
    assert found(index, [[half, "so, who won then"]]) == [(0, 0, 0, 0.95), (0, 0, 1, 0.9)]
    assert found(index, [["so, who won then"]]) == []


def test_a_question_with_other_numbers_casing_and_punctuation_is_found() -> None:
    changed = GSM.replace("16", "1,250").replace("$2", "3.75 $").replace(".", " --").upper()
    assert found(build([("words", [(GSM,)])]), [["Solve: " + changed]]) == [(0, 0, 0, 1.0)]
    other = GSM.replace("ducks", "hens").replace("muffins", "pies").replace("market", "shop").replace("eats", "has")
    assert found(build([("words", [(GSM,)])]), [[other.replace("day", "week").replace("fresh", "old")]]) == []


def test_composed_and_decomposed_twins_are_found() -> None:
    text = "Où est né le café crème à Genève cet été déjà passé"
    index = build([("as_released", [(unicodedata.normalize("NFD", text),)])])
    assert found(index, [[unicodedata.normalize("NFC", text)]]) == [(0, 0, 0, 1.0)]


def test_a_saved_index_finds_the_same_in_lists_and_in_arrow(tmp_path: Path) -> None:
    evaluations, rows, n, threshold = random_case(11)
    index = build(evaluations, n, float(threshold))
    expected = found(index, rows)
    assert expected
    index.save(tmp_path)
    loaded = EvalIndex.load(tmp_path)
    assert (loaded.names, loaded.compared) == (index.names, index.compared)
    assert found(loaded, rows) == expected
    assert found(loaded, pa.array(rows, pa.list_(pa.string()))) == expected
    assert find_matches(loaded, []).num_rows == 0


def test_nothing_to_compare_matches_nothing() -> None:
    assert found(build([("words", []), ("as_released", [("",)])]), [["a b c d e f g h i"], [], [""]]) == []


def test_rows_that_share_only_what_all_items_share_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "answer the following question and give only the letter of it"
    items = [(f"{shared} " + " ".join(f"w{i}x{k}" for k in range(20)),) for i in range(200)]
    compared: list[int] = []
    scores = match._Hits.scores
    monkeypatch.setattr(
        match._Hits, "scores", lambda hits, row, item: compared.append(len(row)) or scores(hits, row, item)
    )
    index = build([("as_released", items)])
    assert found(index, [[shared]] * 50 + [[items[7][0]]]) == [(50, 0, 7, 1.0)]
    assert sum(compared) == 1  # of 51 × 200 pairs that share an 8-gram


def test_a_match_is_explained_in_both_texts() -> None:
    shown = explain(
        ("Who, indeed, was the first man on the dark moon today?",), ["x WAS the first man on the dark moon"]
    )
    assert shown.fields[0].render() == "Who, indeed, ⟦was the first man on the dark moon⟧ today?"
    assert shown.turns[0].render("[", "]") == "x [WAS the first man on the dark moon]"
    short = explain(("Paris", "France"), ["paris: FRANCE", "paris"])
    assert [turn.render() for turn in short.turns] == ["⟦paris: FRANCE⟧", "paris"]
    words = explain((GSM,), [GSM.replace("16", "17")], tokenization="words")
    assert words.turns[0].spans == ((0, len(GSM) - 1),)
