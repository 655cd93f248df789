"""One training on several machines: the recipe, and the command that each of them is given.

No step of a run does this: each machine's command is the reader's to start, and what comes of it is
an adapter in a folder of its own, without a record.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

from helpers.calls import factory
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.inputs import recipes, sharing
from helpers.inputs.settings import Settings
from helpers.programs import torchrun

PORT = 29500  # torchrun's own
_MOST = 512


def _asked(nodes: str, address: str, port: str) -> tuple[int, int]:
    """Return the number of machines and the port.

    Raises:
        TutorialError: one of the three cannot be.
    """
    if not nodes.isdecimal() or not 2 <= int(nodes[:5]) <= _MOST:
        raise TutorialError(
            tr("NODES={asked!r} is no number of machines: say 2 or more.", asked=nodes[:60])
        )
    if not re.fullmatch(r"[\w.:-]{1,253}", address):
        raise TutorialError(
            tr(
                "MASTER_ADDR={asked!r} is no address: give the one under which the other machines "
                "reach the first, as in MASTER_ADDR=192.168.1.10.",
                asked=address[:60],
            )
        )
    return int(nodes), torchrun.port_asked(port) or PORT


def commands(settings: Settings, nodes: str, address: str, port: str = "") -> str:
    """Write the recipes of trainings on several machines, and return what each machine runs.

    A step's batch is that of one card, shared by the cards of all machines.

    Args:
        settings: the run's settings; the model must be there. Each machine has `cards` cards.
        nodes: how many machines, as NODES= says.
        address: under which they reach the first one.
        port: of the first one; "" for torchrun's own.

    Returns:
        Lines of a shell: a comment, and a command a machine, for each method.

    Raises:
        TutorialError: one of these cannot be, or the cards cannot share the batch.
    """
    count, where = _asked(nodes, address, port)
    together = replace(settings, cards=count * settings.cards)
    lines = []
    for method in settings.methods:
        output = settings.run.root / "nodes" / method.name
        recipe = {
            **recipes.for_training(method.name, together),
            **sharing.between(together.cards, together.profile.device),
            "output_dir": paths.in_recipe(output),
        }
        file = settings.run.recipes / f"{method.name}_nodes.yaml"
        for rank in range(count):
            says = tr(
                "{method}, machine {place} of {count}",
                method=method.label, place=rank + 1, count=count,
            )  # fmt: skip
            typed = _typed(settings, count, rank, address, where)
            if rank == 0:
                recipes.write(recipe, typed, file)
            lines += [f"# {says}", f"{typed} {shlex.quote(paths.in_recipe(file))}"]
    return "\n".join(lines)


def _typed(settings: Settings, count: int, rank: int, address: str, port: int) -> str:
    """Return what one of the machines types before the recipe."""
    if settings.sharded:
        return shlex.join(
            torchrun.sharding(
                count * settings.cards, num_machines=count, machine_rank=rank,
                main_process_ip=address, main_process_port=port,
            )
        )  # fmt: skip
    variables = {
        "FORCE_TORCHRUN": 1, "NNODES": count, "NODE_RANK": rank,
        "NPROC_PER_NODE": settings.cards, "MASTER_ADDR": address, "MASTER_PORT": port,
    }  # fmt: skip
    typed = " ".join(f"{name}={value}" for name, value in variables.items())
    return f"{typed} {factory.words('train')}"


def needed(settings: Settings) -> str:
    """Return what the machines need for these commands, in a sentence or two."""
    return tr(
        "Each machine starts its command in its own copy of this repository, made with 'make "
        "setup', with {model}, {data} and {recipes} in the same places; they reach one another on "
        "every port, so have only these machines in their network. The adapter comes to {output} "
        "on the first machine, and no comparison takes it.",
        model=paths.shown(settings.model.path),
        data=paths.shown(settings.run.data),
        recipes=paths.shown(settings.run.recipes),
        output=paths.shown(settings.run.root / "nodes"),
    )
