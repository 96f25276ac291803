"""report.md of a run folder: what was trained, on what, how it went, what it says before and after."""

from pathlib import Path
from typing import Any

from tulu_recipes.reports.curves import draw_curves
from tulu_recipes.reports.reward_report import reward_section
from tulu_recipes.reports.shown_metrics import GRADED, NUMBERS, data_markdown
from tulu_recipes.run import read_alarms, read_json, read_metrics, write_text

SHOWN_SAMPLES = 8
_ANSWER = {"sft": "expected", "rlvr": "ground truth"}
Metrics = list[dict[str, Any]]


def write_report(folder: Path) -> Path:
    """Write loss.png, samples.md and report.md from what the folder holds; returns report.md."""
    record = read_json(folder / "run.json")
    metrics, alarms = read_metrics(folder), read_alarms(folder)
    if metrics:
        draw_curves(metrics, folder / "loss.png", folder.name, record["stage"], alarms)
    samples = read_json(folder / "samples.json") if (folder / "samples.json").is_file() else []
    if samples:
        write_text(folder / "samples.md", render_samples(samples, record["stage"]))
    path = folder / "report.md"
    lines = [
        *_head(folder.name, record),
        *_alarms(alarms),
        *_numbers(metrics, record),
        *reward_section(folder),
        *_data(folder, record["stage"]),
        *_samples(samples, record["stage"]),
        *_recipe(folder),
    ]
    write_text(path, "\n".join(lines))
    return path


def _head(name: str, record: dict[str, Any]) -> list[str]:
    facts = [
        f"Status **{record['status']}**",
        f"stage {record['stage']}",
        f"commit {record['git_commit'] or 'unknown'}",
        f"{record['num_processes']} process(es)",
    ]
    if "seconds" in record:
        facts.append(f"{record['seconds']:,.0f} s")
    lines = [f"# {name}", "", " · ".join(facts), ""]
    if record["overrides"]:
        given = " ".join(f"--{key} {value}" for key, value in record["overrides"].items())
        lines += [f"Overridden on the command line: `{given}`", ""]
    if "error" in record:
        lines += ["```text", record["error"], "```", ""]
    return lines


def _alarms(alarms: list[dict[str, Any]]) -> list[str]:
    if not alarms:
        return []
    shown = [f"- **{alarm['alarm']}** at step {alarm['step']:,}. {alarm['message']}" for alarm in alarms]
    return ["## Alarms", "", *shown, ""]


def _numbers(metrics: Metrics, record: dict[str, Any]) -> list[str]:
    if not metrics:
        return []
    lines = ["## Training", "", "![curves](loss.png)", "", *_first_and_last(metrics, record["stage"]), ""]
    samples = record.get("samples")
    if samples:
        name, prefix = GRADED.get(record["stage"], GRADED["sft"])
        before, after = samples[f"{prefix}_before"], samples[f"{prefix}_after"]
        # free answers to preference prompts are never the chosen one word for word
        if record["stage"] in GRADED or after:
            lines += [f"Held-out {name}: **{before:.3f} → {after:.3f}** on {samples['rows']} rows.", ""]
    return lines


def _first_and_last(metrics: Metrics, stage: str) -> list[str]:
    held_out = any("eval_loss" in line for line in metrics)
    prefixes = ("", "eval_") if held_out else ("",)
    lines = ["| training, and held-out | first | last | held-out first | last |", "|---|---:|---:|---:|---:|"]
    if not held_out:
        lines = ["| training | first | last |", "|---|---:|---:|"]
    for name, label in NUMBERS[stage].items():
        cells = []
        for prefix in prefixes:
            values = [line[prefix + name] for line in metrics if prefix + name in line]
            cells += [_number(values[0]), _number(values[-1])] if values else ["", ""]
        if any(cells):
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _data(folder: Path, stage: str) -> list[str]:
    if not (folder / "audit.json").is_file():
        return []
    title = {"sft": "Supervision", "rlvr": "Prompts"}.get(stage, "Length report")
    return [f"## {title}", "", *data_markdown(read_json(folder / "audit.json"), stage), ""]


def _samples(samples: list[dict[str, str]], stage: str) -> list[str]:
    if not samples:
        return []
    shown = render_samples(samples[:SHOWN_SAMPLES], stage)
    return ["## Samples", "", shown, "All of them: [samples.md](samples.md)", ""]


def _recipe(folder: Path) -> list[str]:
    resolved = (folder / "recipe.resolved.yaml").read_text(encoding="utf-8").rstrip()
    return ["## Recipe", "", "```yaml", resolved, "```", ""]


def render_samples(samples: list[dict[str, str]], stage: str = "sft") -> str:
    """Prompt, expected answer, answer before and answer after training, as a person would read them."""
    blocks = []
    for number, sample in enumerate(samples, start=1):
        right = sample["after"].strip() == sample["expected"].strip()
        mark = (" (right)" if right else " (wrong)") if stage == "sft" else ""
        blocks.append(
            f"**{number}.** {_quote(sample['prompt'])}\n\n"
            f"- {_ANSWER.get(stage, 'chosen')}: {_code(sample['expected'])}\n"
            f"- before: {_code(sample['before'])}\n- after: {_code(sample['after'])}{mark}\n"
        )
    return "\n".join(blocks)


def _quote(text: str) -> str:
    return text.replace("\n", " ⏎ ")


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence} {text.replace(chr(10), ' ⏎ ')[:300]} {fence}" if text.strip() else "(nothing)"
