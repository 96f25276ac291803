"""Which training rows hold evaluation items: the table, a report with samples, and the set without them.

    python -m tulu_recipes.decontaminate org/dataset --against data_mixes/evals.yaml
    python -m tulu_recipes.decontaminate rows.jsonl --against data_mixes/evals.yaml --output_dir clean/rows --workers 2
    python -m tulu_recipes.decontaminate data_mixes/my-mix.yaml --against data_mixes/evals.yaml

A mix is judged source by source: a YAML file with `sources:`, or the folder of a built mix by its `source` column.
--output_dir receives contamination.json, contamination.md and the remaining rows as parquet under data/. The rule, and
what each action does: docs/decontamination.md.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from rich.console import Console

from tulu_recipes.config.entry import run_cli
from tulu_recipes.data.contamination.evals_file import load_evals
from tulu_recipes.errors import Problem, RecipeError


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    if options.workers < 1:
        raise RecipeError(
            Problem("bad-argument", "command line", f"--workers is {options.workers}.", "write a number above 0.")
        )
    evals = load_evals(options.against)  # a broken file is answered before the libraries load
    from datasets import disable_progress_bars

    from tulu_recipes.data.contamination.clean import check_output_dir, judge, open_targets, write_output
    from tulu_recipes.data.contamination.index import EvalIndex
    from tulu_recipes.data.contamination.items import load_items
    from tulu_recipes.data.contamination.report import rich_table
    from tulu_recipes.data.mixing.workers import progress_bar

    if not sys.stderr.isatty():
        disable_progress_bars()
    if options.output_dir:
        check_output_dir(Path(options.output_dir))
    targets = open_targets(
        options.dataset, config=options.config, split=options.split, revision=options.revision, columns=options.column
    )
    loaded = load_items(evals)
    index = EvalIndex.build(loaded.items, evals.ngram_size, evals.match_threshold)
    all_rows, bar = sum(len(t.rows) for t in targets), progress_bar(Console(stderr=True))
    with tempfile.TemporaryDirectory(prefix="tulu-evals-") as folder, bar:
        index.save(Path(folder))
        advance = partial(bar.advance, bar.add_task("Comparing", total=all_rows))
        result = judge(targets, evals, index.compared, Path(folder), workers=options.workers, advance=advance)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if any(line["overlapped"] for line in result.decision.table):
        console.print(rich_table(result.decision.table))
    removed = sum(map(len, result.decision.removed.values()))
    console.print(
        f"{removed:,} of {all_rows:,} rows are removed under these rules; {len(result.decision.dropped_sources)} of "
        f"{len(result.decision.removed)} sources as a whole. Evaluations without a line matched nothing.",
        highlight=False,
    )
    if options.output_dir:
        write_output(Path(options.output_dir), targets, evals, loaded, index.compared, result)
        console.print(f"Written: {options.output_dir}", highlight=False, soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tulu_recipes.decontaminate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="MIX_OR_DATASET", help="Hub id, file or folder; or a mix")
    parser.add_argument("--against", metavar="EVALS.yaml", required=True, help="evaluations and what a match leads to")
    parser.add_argument("--output_dir", metavar="DIR", help="folder for the report and the remaining rows")
    parser.add_argument("--config", help="configuration of the dataset")
    parser.add_argument("--split", help="split of the dataset [train, or the only one]")
    parser.add_argument("--revision", help="commit, tag or branch of the dataset [main]")
    parser.add_argument("--workers", type=int, default=1, help="processes that compare rows [1]")
    parser.add_argument(
        "--column", action="append", default=[], help="column with text or messages; may be repeated [recognised]"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(sys.argv[1:])))
