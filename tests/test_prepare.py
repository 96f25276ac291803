"""Which rows a stage evaluates on."""

from pathlib import Path

from datasets import Dataset, DatasetDict

from tests.stage import write_pair_recipe
from tests.tiny import pair
from tulu_recipes.config.load import load_recipe
from tulu_recipes.prepare import _heldout_rows


def test_the_split_of_an_evaluation_set_is_the_one_that_the_recipe_names(tmp_path: Path) -> None:
    splits = {name: Dataset.from_list([pair(i) for i in range(rows)]) for name, rows in (("train", 3), ("prefs", 2))}
    DatasetDict(splits).save_to_disk(tmp_path / "judged")
    path = str(write_pair_recipe(tmp_path, eval_dataset_name=str(tmp_path / "judged")))

    def heldout(*overrides: str) -> int:
        rows = _heldout_rows(load_recipe([path, *overrides], "reward", num_processes=1))
        assert rows is not None
        return len(rows)

    assert heldout() == 3
    assert heldout("--dataset_test_split", "prefs") == 2
