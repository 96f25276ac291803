"""The shipped mixes against the published facts, which are written out here by hand a second time."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data_mixes"
FILES = sorted(FOLDER.glob("**/*.yaml"))
HEADER = ("Version", "Status", "Needs", "Run", "Try first", "Sources", "Deviates", "Next")
STATUS = r"unproven|smoke|reproduced \S+|retired .+"

# Table 7 of the paper: label in the mixture, rows. Where its name was given by hand, so is the part's licence.
SFT_PARTS = {
    "ai2-adapt-dev/tulu_hard_coded_repeated_10": (240, "cc-by-4.0"),
    "ai2-adapt-dev/oasst1_converted": (7_132, "apache-2.0"),
    "ai2-adapt-dev/no_robots_converted": (9_500, "cc-by-nc-4.0"),
    "ai2-adapt-dev/tulu_v3.9_wildchat_100k": (100_000, "odc-by"),
    "ai2-adapt-dev/flan_v2_converted": (89_982, "unknown"),
    "ai2-adapt-dev/tulu_v3.9_sciriff_10k": (10_000, "odc-by"),
    "ai2-adapt-dev/tulu_v3.9_table_gpt_5k": (5_000, "mit"),
    "ai2-adapt-dev/personahub_math_v5_regen_149960": (149_960, "odc-by"),
    "allenai/tulu-3-sft-personas-math-grade": (49_980, "odc-by"),
    "ai2-adapt-dev/tulu_v3.9_personahub_math_interm_algebra_20k": (20_000, "odc-by"),
    "ai2-adapt-dev/tulu_v3.9_open_math_2_gsm8k_50k": (50_000, "unknown"),
    "ai2-adapt-dev/numinamath_tir_math_decontaminated": (64_312, "apache-2.0"),
    "ai2-adapt-dev/personahub_code_v2_34999": (34_999, "odc-by"),
    "ai2-adapt-dev/evol_codealpaca_heval_decontaminated": (107_276, "apache-2.0"),
    "ai2-adapt-dev/coconot_converted": (10_983, "odc-by"),
    "ai2-adapt-dev/tulu_v3.9_wildjailbreak_decontaminated_50k": (50_000, "odc-by"),
    "ai2-adapt-dev/tulu_v3.9_synthetic_finalresp_wildguardmixtrain_decontaminated_50k": (50_000, "apache-2.0"),
    "ai2-adapt-dev/tulu_v3.9_aya_100k": (100_000, "apache-2.0"),
    "ai2-adapt-dev/personahub_ifdata_manual_seed_v3_29980": (29_980, "odc-by"),
}
# What the card of the mixture, or the paper, names as upstream of each part that is a slice of the mixture.
UPSTREAM = (
    "OpenAssistant/oasst1", "allenai/WildChat-1M", "allenai/SciRIFF", "LipengCS/Table-GPT",
    "nvidia/OpenMathInstruct-2", "allenai/coconot", "allenai/wildjailbreak", "allenai/wildguardmix",
    "CohereForAI/aya_dataset", "AI-MO/NuminaMath-TIR", "theblackcat102/evol-codealpaca-v1",
    "ise-uiuc/Magicoder-Evol-Instruct-110K", "allenai/tulu-3-personas-math",
)  # fmt: skip
# Table 15.
PREFERENCE_8B = {
    "allenai/tulu-3-sft-reused-on-policy-8b": 19_444,
    "allenai/tulu-3-sft-reused-off-policy": 96_911,
    "allenai/tulu-3-IF-augmented-on-policy-8b": 65_530,
    "allenai/tulu-3-wildchat-if-on-policy-8b": 10_792,
    "allenai/tulu-3-wildchat-reused-on-policy-8b": 17_207,
    "allenai/tulu-3-ultrafeedback-cleaned-on-policy-8b": 41_635,
    "allenai/tulu-3-pref-personas-instruction-following": 19_890,
}
PREFERENCE_70B = {
    "allenai/tulu-3-sft-reused-on-policy-70b": 19_444,
    "allenai/tulu-3-sft-reused-off-policy": 96_911,
    "allenai/tulu-3-IF-augmented-on-policy-70b": 65_551,
    "allenai/tulu-3-wildchat-if-on-policy-70b": 10_792,
    "allenai/tulu-3-wildchat-reused-on-policy-70b": 17_207,
    "allenai/tulu-3-wildchat-unused": 82_783,
    "allenai/tulu-3-ultrafeedback-cleaned-on-policy-70b": 41_635,
}
PUBLISHED = {
    "tulu3-sft-published.yaml": ("allenai/tulu-3-sft-mixture", 939_344),
    "tulu3-preference-8b-published.yaml": ("allenai/llama-3.1-tulu-3-8b-preference-mixture", 272_898),
    "tulu3-preference-70b-published.yaml": ("allenai/llama-3.1-tulu-3-70b-preference-mixture", 337_186),
    "tulu3-preference-405b.yaml": ("allenai/llama-3.1-tulu-3-405b-preference-mixture", 360_924),
    "tulu3-rlvr.yaml": ("allenai/RLVR-GSM-MATH-IF-Mixed-Constraints", 7_473 + 7_500 + 14_973),
    "tulu3-rlvr-math.yaml": ("allenai/RLVR-MATH", 7_500),
}
# Rows left by the ablations, by hand: 939,344 less the parts.
ABLATIONS = {"wildchat": 839_344, "safety": 828_361, "persona": 654_425, "math": 605_092}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


MIXES = [path for path in FILES if "sources" in read(path) or "base" in read(path)]


def stated(mix: str) -> dict[str, int]:
    return {source["name"]: source["stated_rows"] for source in read(FOLDER / mix)["sources"]}


def test_the_mixes_are_these():
    ablations = {f"tulu3-sft-without-{part}.yaml" for part in ABLATIONS}
    parts = {"tulu3-sft.yaml", "tulu3-sft-upstream.yaml", "tulu3-preference-8b.yaml", "tulu3-preference-70b.yaml"}
    tiny = {"tiny/sft.yaml", "tiny/preference.yaml", "tiny/rlvr.yaml"}
    assert {name(path) for path in MIXES} == {*PUBLISHED, *parts, *ablations, *tiny}


def header_of(path: Path) -> dict[str, str]:
    """The comment block at the top: field -> text, continued lines joined."""
    fields: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"# ([A-Z][a-z]+(?: first)?) {2,}(\S.*)", line)
        if not line.startswith("# ") and fields:
            break
        if match:
            fields[match[1]] = match[2]
        elif fields:
            fields[next(reversed(fields))] += " " + line.lstrip("# ")
    return fields


@pytest.mark.parametrize("path", MIXES, ids=name)
def test_header_says_what_a_reader_needs(path):
    header = header_of(path)
    assert [field for field in HEADER if field not in header] == []
    assert re.match(r"\d+\b", header["Version"])
    assert re.match(STATUS, header["Status"])
    assert f"data_mixes/{name(path)} " in header["Run"], "the command runs this very file"
    for file in re.findall(r"\b(?:data_mixes|recipes)/[\w/.-]+\.yaml", " ".join(header.values())):
        assert (ROOT / file).is_file(), f"{file} does not exist"


def tags_in(line: str) -> list[str]:
    return re.findall(r"\[([A-Za-z]\w*)(?::[^\]]+)?\]", line.partition("#")[2])


def source_tags() -> set[str]:
    text = (ROOT / "docs/sources.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", MIXES, ids=name)
def test_every_number_has_a_source_and_every_tag_is_explained(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    numbers = [line for line in lines if re.match(r"[ -]*(stated_rows|rows|repeat|fraction_of_source|seed): ", line)]
    assert [line for line in numbers if not set(tags_in(line)) & source_tags()] == []
    assert sorted({tag for line in lines for tag in tags_in(line)} - source_tags()) == []


@pytest.mark.parametrize("path", MIXES, ids=name)
def test_hub_sources_have_a_revision_and_at_most_one_amount(path):
    for source in read(path).get("sources", []):
        assert ("revision" in source) != source["name"].startswith("data_mixes/"), source["name"]
        assert len(source.keys() & {"rows", "fraction_of_source", "repeat"}) <= 1, source["name"]


def test_the_parts_of_the_sft_mixture_have_the_published_labels_counts_and_licences():
    sources = read(FOLDER / "tulu3-sft.yaml")["sources"]
    assert {s["label"]: (s["stated_rows"], s["licence"]) for s in sources} == SFT_PARTS
    assert len(sources) == 19
    assert sum(s["stated_rows"] for s in sources) == 939_344


def test_a_part_without_a_repository_is_its_own_slice_of_the_mixture_and_names_its_upstream():
    sources = read(FOLDER / "tulu3-sft.yaml")["sources"]
    slices = [source for source in sources if source["name"] == "allenai/tulu-3-sft-mixture"]
    assert len(slices) == 9
    assert all(source["where"] == {"source": source["label"]} for source in slices)
    assert all("where" not in source for source in sources if source not in slices)
    text = (FOLDER / "tulu3-sft.yaml").read_text(encoding="utf-8")
    assert [upstream for upstream in UPSTREAM if upstream not in text] == []


def test_hard_coded_prompts_are_repeated_ten_times_and_nothing_else_is_sampled():
    sources = read(FOLDER / "tulu3-sft.yaml")["sources"]
    amounts = {s["label"]: s["repeat"] for s in sources if "repeat" in s}
    assert amounts == {"ai2-adapt-dev/tulu_hard_coded_repeated_10": 10}
    assert not any({"rows", "fraction_of_source"} & source.keys() for source in sources)


def test_what_the_sources_leave_open_is_marked_unverified():
    text = (FOLDER / "tulu3-sft.yaml").read_text(encoding="utf-8")
    marked = [line for line in text.splitlines() if "unverified:" in line]
    for fact in ("7,131", "licence: unknown", "CC-BY-NC-4.0"):
        assert [line for line in marked if fact in line], fact
    assert "unverified: the parts" in (FOLDER / "tulu3-preference-405b.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("mix", PUBLISHED)
def test_a_published_set_is_one_source_as_it_is(mix):
    content = read(FOLDER / mix)
    assert stated(mix) == dict([PUBLISHED[mix]])
    assert content["order"] == "as_given"
    assert not {"filters", "decontaminate"} & content.keys()
    assert not {"filters", "where", "rows", "repeat", "fraction_of_source"} & content["sources"][0].keys()


def test_the_preference_mixtures_have_the_published_parts():
    assert stated("tulu3-preference-8b.yaml") == PREFERENCE_8B
    assert sum(PREFERENCE_8B.values()) == 271_409
    assert stated("tulu3-preference-70b.yaml") == PREFERENCE_70B
    assert sum(PREFERENCE_70B.values()) == 334_302 + (65_551 - 65_530)


@pytest.mark.parametrize("part", ABLATIONS)
def test_an_ablation_leaves_out_sources_that_its_base_has(part):
    overlay = read(FOLDER / f"tulu3-sft-without-{part}.yaml")
    assert overlay.keys() == {"base", "without"}
    counts = {s["label"]: s["stated_rows"] for s in read(FOLDER / overlay["base"])["sources"]}
    assert set(overlay["without"]) <= counts.keys()
    left = sum(rows for label, rows in counts.items() if label not in overlay["without"])
    assert left == ABLATIONS[part]
    text = (FOLDER / f"tulu3-sft-without-{part}.yaml").read_text(encoding="utf-8")
    assert f"{left:,} left of 939,344" in text


def test_the_upstream_overlay_puts_back_what_it_leaves_out():
    overlay = read(FOLDER / "tulu3-sft-upstream.yaml")
    counts = {s["label"]: s["stated_rows"] for s in read(FOLDER / overlay["base"])["sources"]}
    assert set(overlay["without"]) <= counts.keys()
    back = [source.get("rows", source.get("stated_rows")) for source in overlay["sources"]]
    assert sorted(back) == sorted(counts[label] for label in overlay["without"])
    assert not {source["label"] for source in overlay["sources"]} & counts.keys()


def test_a_mix_that_is_put_together_for_sft_is_decontaminated():
    assert read(FOLDER / "tulu3-sft.yaml")["decontaminate"] == {"against": "data_mixes/evals.yaml"}


@pytest.mark.parametrize("stage", ["sft", "preference", "rlvr"])
def test_a_tiny_mix_takes_every_bundled_row(stage):
    content = read(FOLDER / "tiny" / f"{stage}.yaml")
    (source,) = content["sources"]
    rows = (ROOT / source["name"]).read_text(encoding="utf-8").splitlines()
    assert (content["target"], source["stated_rows"]) == (stage, len(rows))
    evaluations = read(ROOT / content["decontaminate"]["against"])["evaluations"]
    assert [(ROOT / evaluation["dataset"]).is_file() for evaluation in evaluations] == [True]


def test_the_readme_lists_every_mix_with_its_rows():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name(path) for path in FILES if f"`{name(path)}`" not in readme] == []
    for mix, (_, rows) in PUBLISHED.items():
        assert re.search(rf"^\| `{mix}` .* {rows:,} \|", readme, flags=re.MULTILINE), mix
    for part, rows in ABLATIONS.items():
        assert re.search(rf"^\| `tulu3-sft-without-{part}.yaml` .* {rows:,} \|", readme, flags=re.MULTILINE), part


@pytest.mark.parametrize("size", ["8b", "70b", "405b"])
def test_the_recipes_train_on_the_release_row_for_row(size):
    assert read(ROOT / f"recipes/tulu3/{size}/sft.yaml")["dataset_mix"] == "data_mixes/tulu3-sft-published.yaml"
