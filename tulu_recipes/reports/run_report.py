"""report.md of a run folder: what was trained, on what, how it went, what it says before and after."""

from pathlib import Path
from typing import Any

from tulu_recipes.reports.curves import draw_curves
from tulu_recipes.reports.reward_report import reward_section
from tulu_recipes.run import read_json, read_metrics, write_text

SHOWN_SAMPLES = 8


def write_report(folder: Path) -> Path:
    """Write loss.png, samples.md and report.md from what the folder holds; returns report.md."""
    record = read_json(folder / "run.json")
    metrics = read_metrics(folder)
    if metrics:
        draw_curves(metrics, folder / "loss.png", folder.name)
    samples = read_json(folder / "samples.json") if (folder / "samples.json").is_file() else []
    if samples:
        write_text(folder / "samples.md", render_samples(samples))
    path = folder / "report.md"
    write_text(path, _render(folder, record, metrics, samples))
    return path


def _render(folder: Path, record: dict[str, Any], metrics: list[dict[str, Any]], samples: list[dict[str, str]]) -> str:
    lines = _head(folder.name, record)
    if metrics:
        lines += ["![curves](loss.png)", "", *_first_and_last(metrics), ""]
    if "samples" in record:
        before, after = record["samples"]["exact_match_before"], record["samples"]["exact_match_after"]
        lines += [f"Held-out exact match: **{before:.3f} → {after:.3f}** on {record['samples']['rows']} rows.", ""]
    lines += reward_section(folder)
    if (folder / "audit.json").is_file():
        lines += ["## Supervision", "", *audit_rows_markdown(read_json(folder / "audit.json")), ""]
    if samples:
        lines += [
            "## Samples",
            "",
            render_samples(samples[:SHOWN_SAMPLES]),
            "All of them: [samples.md](samples.md)",
            "",
        ]
    resolved = (folder / "recipe.resolved.yaml").read_text(encoding="utf-8").rstrip()
    lines += ["## Recipe", "", "```yaml", resolved, "```", ""]
    return "\n".join(lines)


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


def _first_and_last(metrics: list[dict[str, Any]]) -> list[str]:
    lines = ["| | first | last |", "|---|---|---|"]
    for name in ("loss", "eval_loss", "mean_token_accuracy", "grad_norm", "num_supervised_tokens"):
        values = [line[name] for line in metrics if name in line]
        if values:
            lines.append(f"| {name} | {values[0]:,.6g} | {values[-1]:,.6g} |")
    return lines


def audit_rows_markdown(audit: dict[str, Any]) -> list[str]:
    """The audit table as Markdown, sources first, total last."""
    columns = [
        "rows",
        "trained_rows",
        "tokens",
        "supervised_tokens",
        "rows_cut",
        "answers_cut",
        "unsupervised",
        "broken",
    ]
    lines = ["| source | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, counts in [*audit["sources"].items(), ("total", audit["total"])]:
        cell = name.replace("|", "\\|")
        lines.append(f"| {cell} | " + " | ".join(f"{counts[column]:,}" for column in columns) + " |")
    return lines


def render_samples(samples: list[dict[str, str]]) -> str:
    """Prompt, expected answer, answer before and answer after training, as a person would read them."""
    blocks = []
    for number, sample in enumerate(samples, start=1):
        mark = "right" if sample["after"].strip() == sample["expected"].strip() else "wrong"
        blocks.append(
            f"**{number}.** {_quote(sample['prompt'])}\n\n- expected: {_code(sample['expected'])}\n"
            f"- before: {_code(sample['before'])}\n- after: {_code(sample['after'])} ({mark})\n"
        )
    return "\n".join(blocks)


def _quote(text: str) -> str:
    return text.replace("\n", " ⏎ ")


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence} {text.replace(chr(10), ' ⏎ ')[:300]} {fence}" if text.strip() else "(nothing)"
