"""The commands behind `make`: python -m helpers run | plan | data | doctor | ... .

Thin callers of the face: what a command does is a method of `Tutorial`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from helpers.doctor import host
from helpers.ground.words import tr
from helpers.programs import kernel

try:
    import typer
    from rich.console import Console

    from helpers.face import boundary
    from helpers.face.tutorial import Tutorial
    from helpers.ground import escaping, paths
    from helpers.inputs.settings import AUTO
except ImportError as error:  # .venv is half-made, or this is another Python
    sys.exit(host.without_packages(error, sys.argv[1:]))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# A log has no width of its own; 80 columns would break every line of the table.
console = Console(width=None if sys.stdout.isatty() else 130)

Profile = Annotated[str, typer.Option(help=tr("smoke, cpu, cuda or npu; auto: by the hardware"))]
Model = Annotated[str, typer.Option(help=tr("catalogue name, ModelScope id or folder"))]
Run = Annotated[str, typer.Option("--run", help=tr("name of the run folder"))]
Data = Annotated[
    str, typer.Option(help=tr("math10k, generated, a file, a folder, or a ModelScope id"))
]


def _say(line: str) -> None:
    print(line, flush=True)


@app.command(help=tr("Run the six notebooks and print the comparison."))
def run(profile: Profile = AUTO, model: Model = AUTO, name: Run = AUTO, data: Data = AUTO) -> None:
    tutorial = Tutorial(profile, model, name, data, say=_say)
    tutorial.print(console)
    given = {"profile": profile, "model": model, "run": name, "data": data}
    tutorial.run_notebooks({key: value for key, value in given.items() if value != AUTO})
    tutorial.report()
    comparison = tutorial.comparison
    comparison.print(console)
    comparison.verdict.print(console)
    comparison.places().print(console)


@app.command(
    help=tr("Bring the model and the data to this machine, as configs/*.yaml expect them.")
)
def data(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO, data: Data = AUTO) -> None:
    tutorial = Tutorial(profile, model, run, data, say=_say)
    tutorial.obtain().print(console)
    tutorial.prepare().print(console)


@app.command(
    help=tr("Plan every method's training: memory, time and cost; exit code 1 if none fits.")
)
def plan(
    profile: Profile = AUTO,
    model: Model = AUTO,
    run: Run = AUTO,
    data: Data = AUTO,
    card_gib: Annotated[float | None, typer.Option(envvar="CARD_GIB")] = None,
    card: Annotated[str, typer.Option(envvar="CARD", help=tr("a name of configs/cards.yaml"))] = "",
    price: Annotated[str, typer.Option(envvar="PRICE", help=tr("what an hour costs"))] = "",
) -> None:
    from helpers.machine import hardware
    from helpers.planning import cards

    chosen = profile == AUTO and not os.environ.get("TUTORIAL_PROFILE")
    if chosen and card:
        profile = cards.catalogue().cards[cards.named(card)].device
    elif chosen:
        here = hardware.detect_device()
        profile = "npu" if here == "cpu" else here  # one plans what one is going to rent
    plans = Tutorial(profile, model, run, data, say=_say).plans(card_gib, card, price)
    plans.print(console)
    raise typer.Exit(int(not plans.fits))


@app.command(help=tr("Serve models of a run one after the other and have evalscope judge them."))
def evalscope(
    profile: Profile = AUTO,
    model: Model = AUTO,
    run: Run = AUTO,
    subject: Annotated[str, typer.Option(help=tr("models of the run, one or several"))] = "",
    benchmark: Annotated[str, typer.Option(help=tr("gsm8k, held_out, or auto"))] = AUTO,
    limit: Annotated[int, typer.Option(help=tr("how many problems"), min=1)] = 20,
) -> None:
    tutorial = Tutorial(profile, model, run, say=_say)
    judged = tutorial.judge(True, subject.split(), benchmark, limit)
    judged.print(console)
    _say(tr("Its reports lie in {folder}.", folder=judged.folder))


@app.command(help=tr("Write the report of a run: one page, runs/NAME/report.html."))
def report(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    Tutorial(profile, model, run, say=_say).report().print(console)


@app.command(help=tr("List the runs: what is at work in each, and what is finished."))
def runs() -> None:
    Tutorial(say=_say).runs.print(console)


@app.command(help=tr("Stop the trainings that notebooks of a run have started, with a checkpoint."))
def stop(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    for name in Tutorial(profile, model, run, say=_say).stop():
        _say(tr("{name} has stopped; run its cell again, and it goes on.", name=name))


@app.command(help=tr("Take over the executed notebooks of a run into notebooks/, outputs and all."))
def publish(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    for file in Tutorial(profile, model, run, say=_say).publish():
        _say(paths.shown(file))


@app.command(help=tr("Check this machine; exit code 1 if a check fails."))
def doctor(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    findings = Tutorial(profile, model, run, say=_say).examine()
    findings.print(console)
    raise typer.Exit(int(findings.failed))


@app.command(help=tr("Study several models, methods and seeds; exit code 1 if a trial failed."))
def study(
    profile: Profile = AUTO,
    models: Annotated[str, typer.Option(help=tr("what MODEL= takes, several"))] = "",
    methods: Annotated[str, typer.Option(help=tr("names of recipes in configs/"))] = "",
    seeds: Annotated[str, typer.Option(help=tr("trainings of each method"))] = "",
    of: Annotated[str, typer.Option("--study", help=tr("a file under configs/studies"))] = "",
    run: Run = AUTO,
    workers: Annotated[int, typer.Option(help=tr("trials side by side"), min=0)] = 0,
    price: Annotated[str, typer.Option(envvar="PRICE", help=tr("what an hour costs"))] = "",
    address: Annotated[str, typer.Option(help=tr("of a cluster on which Ray runs"))] = "",
) -> None:
    from helpers.face import study_view

    found = study_view.run(
        of, models, methods, seeds, profile, run,
        workers=workers, price=price, address=address, say=_say, console=console,
    )  # fmt: skip
    found.print(console)
    raise typer.Exit(int(not found.complete))


@app.command(hidden=True, help=tr("Train with the run's methods and have them answer, no more."))
def trial(profile: Profile = AUTO, model: Model = AUTO, run: Run = AUTO) -> None:
    tutorial = Tutorial(profile, model, run, say=_say)
    tutorial.obtain()
    tutorial.prepare()
    for method in tutorial.methods:
        method.train()
        method.answer()


@app.command(help=tr("Try kernels and recipes on the card that is here, in ten minutes."))
def card(
    profile: Profile = AUTO,
    folder: Annotated[Path | None, typer.Option(help=tr("takes the two files"))] = None,
    what: Annotated[Path | None, typer.Option(help=tr("what to do, as configs/card.yaml"))] = None,
) -> None:
    found = Tutorial(profile, run="card", say=_say).try_card(folder, what)
    found.print(console)
    for file in found.write():
        _say(paths.shown(file))


@app.command(help=tr("Print what each of several machines runs to train together."))
def nodes(
    profile: Profile = AUTO,
    model: Model = AUTO,
    run: Run = AUTO,
    count: Annotated[str, typer.Option("--nodes", envvar="NODES", help=tr("machines"))] = "",
    address: Annotated[
        str, typer.Option(envvar="MASTER_ADDR", help=tr("address of the first machine"))
    ] = "",
    port: Annotated[
        str, typer.Option(envvar="MASTER_PORT", help=tr("port of the first machine"))
    ] = "",
) -> None:
    # Whole lines, however long: they are there to be copied.
    _say(Tutorial(profile, model, run, say=_say).node_commands(count, address, port).plain())


def _stopped() -> int:
    stopped = tr("Stopped. Finished steps are kept; the same command goes on.")
    print(f"\n{stopped}", file=sys.stderr)
    return 130


def main() -> int:
    """Run a command and return its exit code; whatever fails in it ends in one sentence."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows "?"
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    os.environ.update(kernel.cann_changes())  # of the CANN that the set-up chose, in any shell
    command = f"make {sys.argv[1]}" if sys.argv[1:] else "python -m helpers"
    try:
        code = app(standalone_mode=False) or 0
        return _stopped() if code == 130 else code  # typer makes that of Ctrl-C
    except typer.TyperException as error:
        more = tr(
            "{reason}. Run 'python -m helpers --help' to see what can be asked for.",
            reason=escaping.line(error.format_message()).rstrip("."),
        )
        print(more, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _stopped()
    except Exception as error:
        missing = error if isinstance(error, ImportError) else error.__cause__
        if isinstance(missing, ImportError):  # the doctor can say something all the same
            return host.without_packages(missing, sys.argv[1:])
        print(f"\n{boundary.explained(error, command, paths.RUNS)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
