from pathlib import Path

import pytest

from tulu_recipes.config.yaml_lines import ParsedFile, compose_scalar, read_flat_yaml


def read(tmp_path: Path, text: str | bytes) -> ParsedFile:
    file = tmp_path / "r.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_flat_yaml(str(file))


def test_every_key_has_the_line_it_stands_in(tmp_path: Path) -> None:
    parsed = read(tmp_path, "# head\n\na: 1\nb:\n  - x\n  - y\n\nc: {k: v}\n")
    assert [(entry.key, entry.line) for entry in parsed.entries] == [("a", 3), ("b", 4), ("c", 8)]
    assert parsed.problems == ()


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    parsed = read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert [(entry.key, entry.line) for entry in parsed.entries] == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(
    ("text", "slug", "line", "said"),
    [
        ("", "recipe-empty", None, "no key"),
        ("# only a comment\n", "recipe-empty", None, "no key"),
        ("- a\n- b\n", "recipe-not-a-mapping", 1, "a list"),
        ("just words\n", "recipe-not-a-mapping", 1, "plain text"),
        ("a: 1\nb: [1, 2\nc: 3\n", "yaml-syntax", 2, "close the bracket"),
        ('a: 1\nb: "x\nc: 3\n', "yaml-syntax", 2, "close the quote"),
        ("a: 1\n\tb: 2\n", "yaml-syntax", 2, "tabs"),
        ("a: 1\nb\nc: 2\n", "yaml-syntax", 2, "key: value"),
        ("a: 1\nb = 5\nc: 2\n", "yaml-syntax", 2, "write  b: 5"),
        ("a: x: y\nc: 2\n", "yaml-syntax", 1, "quotes"),
        ("a: &x 1\nb: *x\n", "yaml-alias", 2, "*x"),
        ("a: 1\n---\nb: 2\n", "yaml-syntax", 2, "Not YAML"),
        ("a: 1\nb: 2\na: 3\n", "duplicate-key", 3, "line 1"),
        (b"a: 1\nb: \xff\n", "recipe-not-utf8", 2, "0xff"),
        ("a: " + "[" * 2_000 + "\n", "yaml-syntax", 1, "nested"),
        ("a: 1\n" * 20_000, "recipe-unreadable", None, "bytes"),
    ],
)
def test_a_file_that_is_no_flat_yaml_has_one_clear_problem(
    tmp_path: Path, text: str | bytes, slug: str, line: int | None, said: str
) -> None:
    parsed = read(tmp_path, text)
    assert [problem.slug for problem in parsed.problems] == [slug]
    problem = parsed.problems[0]
    assert problem.where.endswith(f"r.yaml line {line}" if line else "r.yaml")
    assert said in problem.render()


def test_a_broken_line_does_not_hide_the_keys_around_it(tmp_path: Path) -> None:
    parsed = read(tmp_path, 'a: 1\nb: "open\nc: 3\nd: [1\ne: 5\nlist:\n- x\n- y\n')
    assert [entry.key for entry in parsed.entries] == ["a", "c", "e", "list"]
    assert [problem.where[-6:] for problem in parsed.problems] == ["line 2", "line 4"]
    assert parsed.unreadable == {"b", "d"}


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("a: 1\n")
    problem = read_flat_yaml(str(tmp_path / "stf.yaml")).problems[0]
    assert (problem.slug, problem.mend) == ("recipe-missing", f"did you mean {tmp_path / 'sft.yaml'}?")
    problem = read_flat_yaml(str(tmp_path / "no" / "stf.yaml")).problems[0]
    assert "Neither does the folder" in problem.what


def test_a_folder_lists_the_recipes_in_it(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("a: 1\n")
    problem = read_flat_yaml(str(tmp_path)).problems[0]
    assert problem.slug == "recipe-unreadable"
    assert "sft.yaml" in problem.what


@pytest.mark.parametrize("text", ["a: b", "# note", "<pad>", "*x", "[unclosed", "@here", ""])
def test_text_on_the_command_line_is_text_even_where_yaml_would_object(text: str) -> None:
    node = compose_scalar(text)
    assert node.value == text  # type: ignore[union-attr]
