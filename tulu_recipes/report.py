"""Write a run's report again from its folder: report.md, loss.png, samples.md.

python -m tulu_recipes.report runs/tiny-sft
"""

import argparse
import sys
from pathlib import Path

from tulu_recipes.config.entry import run_cli
from tulu_recipes.errors import Problem, RecipeError


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tulu_recipes.report", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of a run, as in  runs/tiny-sft")
    folder = Path(parser.parse_args(argv).run_dir)
    if not (folder / "run.json").is_file():
        raise RecipeError(
            Problem(
                "not-a-run",
                str(folder),
                "The folder holds no run.json, so it is no run.",
                "name a folder under runs/.",
            )
        )
    from tulu_recipes.reports.run_report import write_report

    sys.stdout.write(f"{write_report(folder)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(lambda: main(sys.argv[1:])))
