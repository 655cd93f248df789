"""The commands behind `make`: python -m helpers run | plan | data | doctor | ...."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated

from helpers import host

try:
    import typer
    from rich.console import Console
    from rich.table import Table

    from helpers import paths
    from helpers.errors import TutorialError
    from helpers.settings import AUTO, resolve
except ImportError as error:  # .venv is half-made, or this is another Python
    sys.exit(host.without_packages(error, sys.argv[1:]))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# A log has no width of its own; 80 columns would break every line of the table.
console = Console(width=None if sys.stdout.isatty() else 130)

Profile = Annotated[str, typer.Option(help="smoke, cpu, cuda or npu; auto: by the hardware")]
Model = Annotated[str, typer.Option(help="catalogue name, ModelScope id or folder")]
Run = Annotated[str, typer.Option("--run", help="name of the run folder")]
Data = Annotated[str, typer.Option(help="math10k, generated, or a parquet file")]


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """Print a table as wide as the terminal."""
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


@app.command()
def run(profile: Profile = AUTO, model: Model = AUTO, name: Run = AUTO, data: Data = AUTO) -> None:
    """Run the six notebooks and print the comparison."""
    from helpers import compare, runner

    settings = resolve(profile, model, name, data)
    folder = settings.run
    print(f"Profile {settings.profile.name}, model {settings.model.name}, "
          f"run folder {paths.shown(folder.root)}.", flush=True)  # fmt: skip
    given = {"profile": profile, "model": model, "run": name, "data": data}
    parameters = {key: value for key, value in given.items() if value != AUTO}
    runner.run_notebooks(settings, parameters, lambda line: print(line, flush=True))
    comparison = compare.read(folder.comparison)
    header, rows = compare.table(comparison)
    where = f"{comparison.model} on {comparison.machine}; data: {comparison.data_source}"
    print_table(header, rows, where)
    console.print(comparison.verdict)
    for what, path in (
        ("executed notebooks", folder.notebooks),
        ("figures", folder.figures),
        ("comparison", folder.comparison),
    ):
        print(f"{what:20}{paths.shown(path)}")


@app.command()
def data(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO, data: Data = AUTO) -> None:
    """Bring the model and the data to this machine, as configs/*.yaml expect them."""
    from helpers import data as problems
    from helpers import models

    settings = resolve(profile, model, run, data)
    folder = models.obtain(settings.model, settings.run.logs / "model.log")
    facts = problems.prepare(settings)
    print(f"The model lies in {paths.shown(folder)}; {facts.train} training and {facts.eval} "
          f"held-out problems lie in {paths.shown(settings.run.data)}.")  # fmt: skip


@app.command()
def plan(
    profile: Profile = AUTO,
    model: Model = AUTO,
    run: Run = AUTO,
    data: Data = AUTO,
    card_gib: Annotated[float | None, typer.Option(envvar="CARD_GIB")] = None,
) -> None:
    """Plan the memory of both trainings; exit code 1 if neither fits."""
    from helpers import hardware, plan_report, planner
    from helpers.compare import LABELS
    from helpers.recipe import METHODS

    if profile == AUTO and not os.environ.get("TUTORIAL_PROFILE"):
        here = hardware.detect_device()
        profile = "npu" if here == "cpu" else here  # one plans what one is going to rent
    settings = resolve(profile, model, run, data)
    device = settings.profile.device
    room = planner.capacity(device, card_gib)
    budget = room.usable_bytes
    questions = [planner.question(each, settings, budget_bytes=budget) for each in METHODS]
    plans = dict(zip(METHODS, planner.ask(questions, settings.run.logs / "plan.log"), strict=True))
    phases = {}
    for method, planned in plans.items():
        phases[f"{LABELS[method]}, training"] = planned.training
        phases[f"{LABELS[method]}, evaluation"] = planned.evaluation
    header, rows = plan_report.rows(phases)
    print_table(header, rows, f"{settings.model.name}, profile {settings.profile.name}")
    for method, planned in plans.items():
        print(plan_report.verdict(LABELS[method], planned, room))
    raise typer.Exit(int(all(each.peak.peak_bytes > budget for each in plans.values())))


@app.command()
def evalscope(
    profile: Profile = AUTO,
    model: Model = AUTO,
    run: Run = AUTO,
    subject: Annotated[str, typer.Option(help="models of the run, one or several")] = "base lora",
    benchmark: Annotated[str, typer.Option(help="gsm8k, held_out, or auto")] = AUTO,
    limit: Annotated[int, typer.Option(help="how many problems", min=1)] = 20,
) -> None:
    """Serve models of a run one after the other and have evalscope judge them."""
    from helpers import evalscope as judge

    settings = resolve(profile, model, run)
    judge.evaluate(
        subject.split(), settings, benchmark, limit, lambda line: print(line, flush=True)
    )
    header, rows = judge.table(judge.read(settings.run))
    print_table(header, rows)
    print(f"Its reports lie in {paths.shown(settings.run.root / 'evalscope')}.")


@app.command()
def publish(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    """Take over the executed notebooks of a run into notebooks/, outputs and all."""
    from helpers import runner

    for file in runner.publish(resolve(profile, model, run).run):
        print(paths.shown(file))


@app.command()
def doctor(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    """Check this machine; exit code 1 if a check fails."""
    from helpers import doctor as checks

    found = checks.examine(resolve(profile, model, run))
    rows = [[check.name, check.status, check.finding, check.remedy] for check in found]
    print_table(["check", "", "finding", "what to do"], rows)
    raise typer.Exit(int(host.failed(found)))


def main() -> int:
    """Run a command; a failure that readers can act on ends with its sentence and exit code 1."""
    try:
        app()
    except TutorialError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        return host.without_packages(error, sys.argv[1:])
    except KeyboardInterrupt:
        print("\nStopped. Finished steps are kept; the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
