"""Made-up text, the same for the same seed on every machine, and no two rows alike."""

import random

NOUNS = (
    "anchor basin candle desert engine falcon garden harbour island jacket kettle lantern meadow needle orchard "
    "pebble quarry ribbon saddle tunnel umbrella valley whistle barrel canyon drawer feather glacier hammer insect "
    "journal ladder magnet notebook oyster pillow rocket shelter thimble violin window bridge"
).split()
VERBS = "carries follows measures paints repairs counts hides borrows lifts trades draws cools folds guards".split()
ADJECTIVES = "amber brittle calm distant eager fragile gentle hollow narrow patient quiet rusty silver tall".split()


class Text:
    """Draws words from one seed; the seed is a dataset's id, so that two datasets share no sentence."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def noun(self) -> str:
        return self.random.choice(NOUNS)

    def number(self, low: int = 2, high: int = 999) -> int:
        return self.random.randint(low, high)

    def hex(self, length: int = 16) -> str:
        return f"{self.random.getrandbits(4 * length):0{length}x}"

    def clause(self) -> str:
        """Six words, of which there are billions."""
        adjectives = self.random.choice(ADJECTIVES), self.random.choice(ADJECTIVES)
        verb = self.random.choice(VERBS)
        return f"the {adjectives[0]} {self.noun()} {verb} {self.number()} {adjectives[1]} {self.noun()}s"

    def sentence(self) -> str:
        return f"{self.clause()} near {self.clause()}.".capitalize()

    def paragraph(self, sentences: int = 3) -> str:
        return " ".join(self.sentence() for _ in range(sentences))

    def question(self) -> str:
        """No eight words of it are a fixed phrase, or every question would look contaminated by every other."""
        return f"{self.clause()} while {self.clause()}: why?".capitalize()

    def code(self) -> str:
        name, number = self.noun(), self.number()
        return f"def {name}_{number}(values):\n    return [value + {number} for value in values]\n"
