"""Every error a user can meet: what is wrong, where, and how to mend it.

    TuluError                 shown as its message, without a traceback
    ├── RecipeError           the recipe is refused; holds all problems; exit code 2
    ├── DataError             rows, files or datasets that cannot be trained on
    ├── HubError              the Hub refused or could not be reached
    └── TrainingError         a run that must not go on

Anything else that is raised is a bug and keeps its traceback. No heavy imports here: a broken file is
answered in a second.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    slug: short stable name, a literal at every call site; its page is docs/problems.md#slug.
    where: file and line, command line, row or folder; empty when the message already says it.
    what: what is wrong, with the value, and why it would hurt.
    mend: what to write or do instead, as an instruction.
    """

    slug: str
    where: str
    what: str
    mend: str

    def render(self) -> str:
        head = f"{self.slug}  {self.where}".rstrip()
        return f"{head}\n    {self.what}\n    Mend: {self.mend}"


class TuluError(Exception):
    """Base of every error that is the user's to mend. Picklable: it is built from its problems alone."""

    def __init__(self, problems: Problem | list[Problem], headline: str = "") -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        self.headline = headline
        super().__init__(self.problems, headline)

    def __str__(self) -> str:
        blocks = [problem.render() for problem in self.problems]
        return "\n\n".join([self.headline, *blocks] if self.headline else blocks)

    @property
    def slugs(self) -> list[str]:
        return [problem.slug for problem in self.problems]


class RecipeError(TuluError, ValueError):
    """A recipe is refused before anything is downloaded, trained or written."""


class DataError(TuluError, ValueError):
    """Data that would train something else than the recipe says."""


class HubError(TuluError, RuntimeError):
    """The Hub refused a request or could not be reached."""


class TrainingError(TuluError, RuntimeError):
    """A run that stops because going on would harm it; what it made so far is kept."""
