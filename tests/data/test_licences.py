"""The order of licences, and what a mix of several must say."""

import pytest

from tulu_recipes.data.licences import LicenceClass, licence_class, licence_ids, most_restrictive

# Licences as the Tülu 3 card states them [SFTcard]; None: not given there.
TULU = {
    "hardcoded": "CC-BY-4.0",
    "oasst1": "Apache-2.0",
    "no_robots": "CC-BY-NC-4.0",
    "wildchat": "ODC-BY-1.0",
    "table_gpt": "MIT",
}


@pytest.mark.parametrize(
    ("stated", "ids", "kind"),
    [
        ("CC0-1.0", ["cc0-1.0"], LicenceClass.PUBLIC_DOMAIN),
        ("MIT", ["mit"], LicenceClass.PERMISSIVE),
        ("Apache 2.0", ["apache-2.0"], LicenceClass.PERMISSIVE),
        ("ODC-BY-1.0", ["odc-by"], LicenceClass.ATTRIBUTION),
        ("CC-BY-4.0", ["cc-by-4.0"], LicenceClass.ATTRIBUTION),
        ("cc-by-sa-4.0", ["cc-by-sa-4.0"], LicenceClass.SHARE_ALIKE),
        ("CC-BY-NC-4.0", ["cc-by-nc-4.0"], LicenceClass.NON_COMMERCIAL),
        ("cc-by-nc-sa-4.0", ["cc-by-nc-sa-4.0"], LicenceClass.NON_COMMERCIAL),
        ("cc-by-nd-4.0", ["cc-by-nd-4.0"], LicenceClass.NO_DERIVATIVES),
        ("llama3.1", ["llama3.1"], LicenceClass.CUSTOM_TERMS),
        ("gemma", ["gemma"], LicenceClass.CUSTOM_TERMS),
        ("openrail", ["openrail"], LicenceClass.CUSTOM_TERMS),
        ("Acme Terms", ["acme-terms"], LicenceClass.CUSTOM_TERMS),
        (None, ["unknown"], LicenceClass.UNKNOWN),
        ("", ["unknown"], LicenceClass.UNKNOWN),
        ("not given", ["unknown"], LicenceClass.UNKNOWN),
        ("mit, cc-by-4.0", ["mit", "cc-by-4.0"], LicenceClass.PERMISSIVE),
    ],
)
def test_licences_are_read_as_people_write_them(stated: str | None, ids: list[str], kind: LicenceClass) -> None:
    assert licence_ids(stated) == ids
    assert licence_class(ids[0]) is kind


@pytest.mark.parametrize(
    ("licences", "hub_id", "name"),
    [
        (["mit"], "mit", None),
        (["mit", "apache-2.0"], "apache-2.0", None),
        (["odc-by", "cc-by-4.0", "mit"], "cc-by-4.0", None),
        (["odc-by", "cc-by-sa-4.0"], "cc-by-sa-4.0", None),
        (["cc-by-nc-4.0", "cc-by-nc-nd-4.0"], "cc-by-nc-nd-4.0", None),
        (["cc-by-nc-4.0", "cc-by-nc-sa-4.0"], "cc-by-nc-sa-4.0", None),
        (["llama3.1", "odc-by"], "llama3.1", None),
        ([None, None], "unknown", None),
        (["cc-by-sa-4.0", "odbl"], "other", "several-licences"),  # each wants the whole under itself
        (["cc-by-sa-4.0", "cc-by-nc-4.0"], "other", "several-licences"),
        (["cc-by-sa-4.0", "cc-by-nc-sa-4.0"], "other", "several-licences"),
        (["cc-by-nc-4.0", "cc-by-nd-4.0"], "other", "several-licences"),
        (["llama3.1", "gemma"], "other", "several-licences"),
        (["llama3.1", "cc-by-nc-4.0"], "other", "several-licences"),
        (["mit", None], "other", "several-licences"),  # nobody allowed the second
        (["Acme Terms!", "mit"], "other", "acme-terms"),
        (["other", "mit"], "other", "custom-terms"),
    ],
)
def test_one_licence_stands_for_all_only_where_it_covers_them(
    licences: list[str | None], hub_id: str, name: str | None
) -> None:
    for order in (licences, licences[::-1]):
        summary = most_restrictive({f"s{i}": licence for i, licence in enumerate(order)})
        assert (summary.hub_id, summary.hub_name) == (hub_id, name)


def test_the_licences_of_tulu_3() -> None:
    summary = most_restrictive(TULU)
    assert summary.hub_id == summary.most_restrictive == "cc-by-nc-4.0"
    assert list(summary.by_licence) == ["cc-by-nc-4.0", "cc-by-4.0", "odc-by", "apache-2.0", "mit"]
    assert summary.non_commercial == {"cc-by-nc-4.0": ["no_robots"]}
    with_flan = most_restrictive(TULU | {"flan_v2": None})
    assert with_flan.hub_id == "other"
    assert with_flan.most_restrictive == "cc-by-nc-4.0"
    assert with_flan.unknown == ["flan_v2"]
    without = most_restrictive({name: licence for name, licence in TULU.items() if name != "no_robots"})
    assert without.hub_id == "cc-by-4.0"
    assert without.non_commercial == {}


def test_a_source_with_two_licences_is_bound_by_both() -> None:
    summary = most_restrictive({"a": "mit, fair-noncommercial-research-license", "b": "cc-by-sa-4.0"})
    assert summary.non_commercial == {"fair-noncommercial-research-license": ["a"]}
    assert summary.custom == {"fair-noncommercial-research-license": ["a"]}
    assert summary.share_alike == {"cc-by-sa-4.0": ["b"]}
    assert summary.hub_id == "other"
