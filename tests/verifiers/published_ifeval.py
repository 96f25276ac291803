"""IFEval's published checkers as lm-eval ships them: the oracle of our rules for the official instruction ids."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Check = Callable[[str, str, dict[str, Any]], bool]


@contextmanager
def published_checks() -> Iterator[Check]:
    """(id, completion, kwargs) → followed. Loads the two files alone: lm-eval's own import takes seconds.

    Importing them would download NLTK's sentence data, which is taken for there; what needs it is not asked.
    """
    nltk = importlib.import_module("nltk")  # a second, for this test alone
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
            patch.delitem(sys.modules, name)
        for name, folder in (("lm_eval", root), ("lm_eval.tasks", root / "tasks")):
            package = ModuleType(name)
            package.__path__ = [str(folder)]
            patch.setitem(sys.modules, name, package)
        patch.setattr(nltk.data, "find", lambda *_: None)
        registry = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry").INSTRUCTION_DICT
        patch.setattr(importlib.import_module("langdetect").DetectorFactory, "seed", 0)

        def follows(name: str, completion: str, arguments: dict[str, Any]) -> bool:
            checker = registry[name](name)
            checker.build_description(**arguments)
            return bool(completion.strip() and checker.check_following(completion))

        yield follows
        for name in [name for name in sys.modules if name.startswith("lm_eval.tasks.ifeval")]:
            del sys.modules[name]
