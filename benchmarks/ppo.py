"""Reward and seconds a completion of our PPO beside TRL 1.12's PPOTrainer, the last there was.

    python -m benchmarks.ppo                       about 6 minutes on two quiet cores
    python -m benchmarks.ppo --quick               does it run at all

Same tiny model (the demo's, untrained), value model, prompts, programmatic score, batch, epochs and settings. TRL 1.12
runs in an environment of its own, `.cache/trl-1.12`, made at the first run; everything but trl comes from this one, so
that both sides have the same torch and transformers. The peer is untouched.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.sft import ROOT
from tulu_recipes.data.template import TULU_TEMPLATE
from tulu_recipes.demo import rows, tiny_model
from tulu_recipes.trainers.reward import init_score_head

PEER = "1.12.0"
ENVIRONMENT = ROOT / ".cache" / "trl-1.12"
SHOWN = 5  # points of a reward curve
WARM_UP = 3  # rollouts


@dataclass(frozen=True)
class Run:
    """scores: the mean of each rollout. seconds, cpu_seconds: of a completion, from sampling to the last epoch."""

    scores: list[float]
    seconds: float
    cpu_seconds: float

    def curve(self) -> list[float]:
        """Means over as many equal parts of the run."""
        size = len(self.scores) // SHOWN
        return [statistics.mean(self.scores[part * size : (part + 1) * size]) for part in range(SHOWN)]


def peer_python() -> Path:
    """The interpreter of an environment that has TRL 1.12 and sees the other packages of this one."""
    python = ENVIRONMENT / "bin" / "python"
    marker = ENVIRONMENT / "complete"
    if marker.is_file():
        return python
    venv.create(ENVIRONMENT, clear=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, f"trl=={PEER}"], check=True)
    ours = sysconfig.get_path("purelib")
    # its own site-packages comes first, and with it its trl
    theirs = sysconfig.get_path("purelib", vars={"base": str(ENVIRONMENT)})
    (Path(theirs) / "the-rest.pth").write_text(ours + "\n", encoding="utf-8")
    marker.touch()
    return python


def build_models(folder: Path) -> dict[str, str]:
    base, value = folder / "base", folder / "value"
    tiny_model.build(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TULU_TEMPLATE.read_text(encoding="utf-8")
    tokenizer.save_pretrained(base)
    torch.manual_seed(0)
    scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    init_score_head(scorer)
    scorer.save_pretrained(value)
    tokenizer.save_pretrained(value)
    return {"base": str(base), "value": str(value)}


def prompts(base: str) -> list[dict[str, Any]]:
    """The demo's questions of the commonest length: TRL 1.12's reward model must know where a completion starts."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    by_length: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows.build_rows()[0]:
        question = row["messages"][0]
        text = tokenizer.apply_chat_template([question], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        by_length.setdefault(len(ids), {})[text] = {"messages": [question], "input_ids": ids}
    return list(max(by_length.values(), key=len).values())


def measure(side: str, job: dict[str, Any], folder: Path) -> Run:
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    python = str(peer_python()) if side == "trl" else sys.executable
    result = folder / "result.json"
    command = [python, "-m", "benchmarks.timed_ppo", side, str(folder / "job.json"), str(result)]
    environ = {"OMP_NUM_THREADS": "1"} | os.environ  # a tiny model's threads wait for each other
    environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    figures = json.loads(result.read_text(encoding="utf-8"))
    if (side == "trl") != (figures["trl"] == PEER):
        raise SystemExit(f"{side} ran on trl {figures['trl']}.")
    wall, cpu, scores = zip(*figures["scored"], strict=True)
    return Run(list(scores), _middle(wall) / job["batch"], _middle(cpu) / job["batch"])


def _middle(times: Sequence[float]) -> float:
    """Median length of a round: one that another job held up says nothing of either side."""
    return statistics.median(after - before for before, after in pairwise(times[WARM_UP:]))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ppo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rollouts", type=int, default=40, help="rollouts of a run [40]")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side [3]")
    parser.add_argument("--batch", type=int, default=32, help="completions of a rollout, and of a step [32]")
    parser.add_argument("--micro_batch", type=int, default=32, help="completions of a forward and backward [32]")
    parser.add_argument("--length", type=int, default=16, help="tokens of a completion at most [16]")
    parser.add_argument("--learning_rate", type=float, default=2e-3, help="of both models [2e-3]")
    parser.add_argument("--grpo", action="store_true", help="TRL's GRPOTrainer too: what the value network costs")
    parser.add_argument("--quick", action="store_true", help="one short run of each side")
    options = parser.parse_args(argv)
    if options.quick:
        options.rollouts, options.seeds, options.batch, options.micro_batch, options.length = 6, 1, 4, 4, 4
    return options


def run_all(options: argparse.Namespace, folder: Path) -> dict[str, list[Run]]:
    """Each seed on every side in turn, so that whatever else the machine does meets all of them alike."""
    job = {key: vars(options)[key] for key in ("rollouts", "batch", "micro_batch", "length", "learning_rate")}
    job |= {"epochs": 4, "kl": 0.05} | build_models(folder)
    job["rows"] = prompts(job["base"])
    print(f"{len(job['rows'])} prompts of {len(job['rows'][0]['input_ids'])} tokens")
    found: dict[str, list[Run]] = {"trl": [], "ours": []} | ({"grpo": []} if options.grpo else {})
    for seed in range(1, options.seeds + 1):
        for side, runs in found.items():
            start = time.perf_counter()
            run = measure(side, job | {"seed": seed}, folder / f"{seed}-{side}")
            times = f"{1e3 * run.seconds:>8.1f} ms a completion, {1e3 * run.cpu_seconds:.1f} of CPU"
            print(f"  seed {seed}  {side:<6}{times}  ({time.perf_counter() - start:.0f} s)")
            print("    score" + "".join(f"{point:>7.2f}" for point in run.curve()), flush=True)
            runs.append(run)
    return found


def print_ratio(found: dict[str, list[Run]], peer: str) -> None:
    print(f"completions a second, ours / {peer}, min – median – max")
    for name in ("seconds", "cpu_seconds"):
        pairs = zip(found["ours"], found[peer], strict=True)
        ratios = sorted(getattr(theirs, name) / getattr(ours, name) for ours, theirs in pairs)
        print(f"  {name:<14}{ratios[0]:.2f} – {statistics.median(ratios):.2f} – {ratios[-1]:.2f}")


def main(argv: list[str]) -> int:
    options = parse(argv)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPU cores · load {load:.1f} · torch {torch.__version__} · trl {PEER} as the peer")
    with tempfile.TemporaryDirectory() as name:
        found = run_all(options, Path(name))
    print("\nscore: mean (of 0 to 10) over each fifth of a run")
    lead = [ours.curve()[-1] - trl.curve()[-1] for ours, trl in zip(found["ours"], found["trl"], strict=True)]
    print(f"last fifth, ours - trl: {min(lead):+.2f} to {max(lead):+.2f}, mean {statistics.mean(lead):+.2f}")
    for peer in found:
        if peer != "ours":
            print_ratio(found, peer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
