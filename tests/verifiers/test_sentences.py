"""Sentences counted by hand."""

import pytest

from tulu_recipes.verifiers.sentences import count_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("... !!! ?", 0),
        ("no end", 1),
        ("One. Two! Three? four", 4),
        ("one. two. three.", 3),  # small letters start sentences too
        ("He said: “Stop!” Then he left.", 2),
        ("“Really?” he asked.", 1),
        ("(This is one.) This is two.", 2),
        ("**Bold end.** Next.", 2),
        ("Mr. and Mrs. Li met Dr. No. Then they left.", 2),
        ("We left at 5 p.m. and slept. We woke at 6 a.m. He did not.", 3),
        ("J. R. R. Tolkien wrote. So do I. You?", 3),
        ("The U.S. economy grew. It did.", 2),
        ("Fruit, e.g. apples, etc. are fine. Really.", 2),
        ("See No. 5 and Fig. 3. I said no. Then I left.", 3),
        ("It costs 3.50 or 1,000.25. Visit example.com. Now.", 3),
        ("Wait... what? Well... Nothing.", 3),
        ("1. Milk.\n2. Eggs.\na. Tea.", 3),
        ("A heading\n\nA text.", 1),  # line breaks end no sentence
        ("今天很好。我们走吧！好吗？", 3),
        ("שלום. מה שלומך?", 2),
        ("x\x00y. z.", 2),
    ],
)
def test_count(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences
