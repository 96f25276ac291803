"""TRL's keys as recorded are TRL's keys as installed, and each has a place here."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tulu_recipes.config.keys import OURS
from tulu_recipes.config.schema import NOT_SCIENCE, keys_for
from tulu_recipes.config.trl_keys import REFUSED, RENAMED, SET_BY_US, set_by_us
from tulu_recipes.trainers.surface import RECORD, STAGES, load_record

pytestmark = pytest.mark.integration


def test_the_recorded_surface_equals_the_installed_one() -> None:
    from tulu_recipes.trainers.surface import record_surface, render

    installed = json.loads(render(record_surface()))
    recorded = load_record()
    for part in ("stages", "methods"):
        assert installed[part] == recorded[part], "python -m tulu_recipes.trainers.surface shows the difference"


def test_the_record_is_the_text_that_the_writer_makes() -> None:
    from tulu_recipes.trainers.surface import record_surface, render

    surface = record_surface() | {"versions": load_record()["versions"]}
    assert render(surface) == RECORD.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_trl_key_is_passed_set_by_us_or_refused_with_a_reason(stage: str) -> None:
    recorded = load_record()["stages"][stage]
    for name, key in keys_for(stage).items():
        assert key.use in ("passed", "ours_sets", "refused")
        assert (key.use == "passed") == (key.reason == "" and key.mend == ""), name
        assert key.source == OURS or name in recorded
    assert set(recorded) <= set(keys_for(stage))


def test_no_classification_names_a_key_that_trl_does_not_have() -> None:
    by_stage = load_record()["stages"]
    recorded = {name for keys in by_stage.values() for name in keys}
    assert set(REFUSED) | set(SET_BY_US) | (NOT_SCIENCE - {"eval_dataset_name"}) <= recorded
    assert not set(REFUSED) & set(SET_BY_US)
    assert not set(RENAMED) & recorded
    for stage, keys in by_stage.items():
        assert set(set_by_us(stage)) - set(SET_BY_US) <= set(keys)


def test_what_the_stage_sets_are_values_that_trl_takes() -> None:
    for stage, keys in load_record()["stages"].items():
        for name in set_by_us(stage).keys() & keys.keys():
            kind = {type(None): "null", bool: "bool", str: "str", float: "float"}[type(set_by_us(stage)[name].value)]
            assert kind in keys[name]["kinds"], (stage, name)


def test_the_losses_a_recipe_may_name_are_those_of_trl() -> None:
    import inspect

    from trl import DPOTrainer

    from tulu_recipes.config.our_keys import DPO_LOSSES

    listed = re.search(r"Should be one of (\[[^\]]*\])", "".join(inspect.getsource(DPOTrainer).split('"')))
    assert listed is not None
    named = set(re.findall(r"'([a-z_]+)'", listed[1]))
    assert named == set(DPO_LOSSES) - {"simpo"}


def test_every_value_a_recipe_passes_is_accepted_by_trl_s_own_dataclasses(tmp_path: Path) -> None:
    import trl

    values = {name: key.default for name, key in keys_for("sft").items() if key.use != "refused"}

    def of(*origins: str) -> dict[str, Any]:
        return {
            name: values[name] for name, key in keys_for("sft").items() if key.source in origins and name in values
        }

    arguments = of("SFTConfig", "TrainingArguments") | {"use_cpu": True, "bf16": False, "output_dir": str(tmp_path)}
    assert trl.SFTConfig(**arguments).learning_rate == 2e-5
    assert trl.ModelConfig(**of("ModelConfig")).dtype == "float32"
    assert trl.ScriptArguments(**of("ScriptArguments")).dataset_train_split == "train"
