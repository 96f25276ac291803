"""What a mix would take, as `plan` prints it: every source before its download, and how sure each number is."""

from rich.console import Console

from tulu_recipes.data.contamination.evals_file import load_evals
from tulu_recipes.data.mix_plan import plan_mix
from tulu_recipes.data.mixing.mix_file import Mix
from tulu_recipes.errors import DataError
from tulu_recipes.reports.mix_table import mix_table_from_plan, print_mix_table


def print_mix_plan(mix: Mix, console: Console) -> None:
    """Ask for every source what is there, and print what the mix would take of it; nothing large is downloaded.

    Raises:
        DataError: every source that cannot be read, after the table of the others.
    """
    many = len(mix.sources)
    with console.status("asking") as status:
        plan = plan_mix(mix, lambda number, source: status.update(f"source {number} of {many}: {source.title}"))
    console.print(f"{mix.path}: {many} source{'s' if many > 1 else ''} for {mix.target}.")
    if plan.sources:
        print_mix_table(mix_table_from_plan(plan.sources), console)
    steps = [str(call) for call in mix.filters]
    if mix.decontaminate is not None:
        evaluations = load_evals(mix.decontaminate["against"]).evaluations
        steps.append(f"decontaminate against {len(evaluations)} evaluations of {mix.decontaminate['against']}")
    if steps:
        console.print(f"Steps of all sources: {', '.join(steps)}.", soft_wrap=True)
    for caveat in plan.caveats if plan.sources else ():
        console.print(caveat, soft_wrap=True)
    if plan.problems:
        raise DataError(plan.problems, headline=f"{mix.path}: sources that cannot be read.")
