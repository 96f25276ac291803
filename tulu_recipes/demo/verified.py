"""What RLVR did to the answers of the demo: the same held-out prompts after SFT, after DPO and after RLVR."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tulu_recipes.run import read_json
from tulu_recipes.verifiers import Question, default_pool

Sample = dict[str, str]
COLUMNS = ("SFT", "DPO", "RLVR")
SHOWN = 3


def compare(folder: Path, heldout: Path) -> str:
    """The table of a finished RLVR run: verified shares by verifier, and prompts whose answer it made right.

    The answers of DPO and RLVR are the run's own samples; the SFT model, from which DPO started, answers here.
    `heldout` are the prompts that the samples were drawn from, and is not read again.
    """
    samples: list[Sample] = read_json(folder / "samples.json")
    sft = start_of(start_of(folder))
    said = [answer_with(sft, samples), *([sample[key] for sample in samples] for key in ("before", "after"))]
    return render(samples, said, [grade(samples, answers) for answers in said])


def start_of(folder: Path) -> Path:
    """The model folder that the run in `folder` began with."""
    recipe: dict[str, Any] = yaml.safe_load((folder / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    return Path(recipe["model_name_or_path"])


def answer_with(folder: Path, samples: list[Sample]) -> list[str]:
    """Greedy answers of the model in `folder` to the prompts of `samples`."""
    from transformers import AutoTokenizer  # here, so that --help loads no torch

    from tulu_recipes.sampling import generate_answers, load_for_sampling

    model, tokenizer = load_for_sampling(str(folder), dtype="float32"), AutoTokenizer.from_pretrained(folder)
    prompts = [[{"role": "user", "content": sample["prompt"]}] for sample in samples]
    return generate_answers(model, tokenizer, prompts, max_new_tokens=16, batch_size=len(prompts))


def grade(samples: list[Sample], answers: Iterable[str]) -> list[bool]:
    asked = [Question(s["verifier"], text, s["expected"]) for s, text in zip(samples, answers, strict=True)]
    return [verdict.outcome == "correct" for verdict in default_pool().verify_all(asked, "fixed")]


def render(samples: list[Sample], said: list[list[str]], right: list[list[bool]]) -> str:
    """said, right: one list for each of COLUMNS, in the order of `samples`."""
    lines = [f"{'held-out prompts':<46}" + "".join(f" {name:>8}" for name in COLUMNS)]
    verifiers = [sample["verifier"] for sample in samples]
    for name in ("", *sorted(set(verifiers))):
        places = [place for place, verifier in enumerate(verifiers) if name in ("", verifier)]
        title = f"verified{': ' + name if name else ''} ({len(places)})"
        shares = [sum(column[place] for place in places) / len(places) for column in right]
        lines.append(f"{title:<46}" + "".join(f" {share:8.2f}" for share in shares))
    mended = [place for place in range(len(samples)) if right[-1][place] and not right[-2][place]]
    for place in mended[:SHOWN]:
        lines.append(f"{samples[place]['prompt']:<46}" + "".join(f" {text[place].strip():>8}" for text in said))
    return "\n".join(lines)
