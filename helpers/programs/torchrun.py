"""How LLaMA-Factory is told to train on several cards, with a process for each.

Where each holds the whole model, it starts torchrun itself. Where they share the model out (FSDP2),
accelerate starts torchrun, and with it LLaMA-Factory.
"""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.programs import faults

HERE = "127.0.0.1"


FSDP = paths.CONFIGS / "fsdp2.yaml"


def typed(cards: int) -> str:
    """Return what stands before `llamafactory-cli train` where a reader types it."""
    return f"FORCE_TORCHRUN=1 NPROC_PER_NODE={cards}"


def sharding(cards: int, **more: object) -> list[str]:
    """Return the command that trains a recipe on cards which share its model out.

    Args:
        cards: how many there are, on all machines.
        more: further options of `accelerate launch`.
    """
    options = {"config_file": paths.in_recipe(FSDP), "num_processes": cards, **more}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["accelerate", "launch", *words, "-m", "llamafactory.launcher"]


def port_asked(asked: str) -> int:
    """Return the port that MASTER_PORT asks for; 0 for none.

    Raises:
        TutorialError: it is no port.
    """
    if asked and not (asked.isdecimal() and 0 < int(asked[:6]) < 65536):
        raise TutorialError(
            tr("MASTER_PORT={asked!r} is no port: give a number up to 65535.", asked=asked[:60])
        )
    return int(asked or 0)


def _port(asked: str) -> int:
    """Return a free port, or the one that was asked for if it is free.

    Raises:
        TutorialError: it is none, or another program has it.
    """
    wanted = port_asked(asked)
    with socket.socket() as probe:
        try:
            probe.bind((HERE, wanted))
        except OSError as error:
            raise TutorialError(faults.sentence("port in use"), fault="port in use") from error
        return int(probe.getsockname()[1])


def variables(cards: int, env: Mapping[str, str], sharded: bool = False) -> dict[str, str]:
    """Return the variables that have LLaMA-Factory train on the cards of this machine.

    Args:
        cards: how many, a process each.
        env: the call's environment otherwise. MASTER_PORT in it is the reader's own choice.
        sharded: whether accelerate starts them.

    Raises:
        TutorialError: MASTER_PORT cannot be used, or torchrun cannot be started from this folder.
    """
    # LLaMA-Factory takes torchrun's command apart at its spaces.
    if " " in sysconfig.get_path("purelib") and not sharded:
        raise TutorialError(
            tr(
                "LLaMA-Factory cannot start several processes from a folder whose path has a "
                "space: move the repository to another one and run 'make setup' there, or leave "
                "out CARDS=."
            )
        )
    return {
        "FORCE_TORCHRUN": "1",
        "NPROC_PER_NODE": str(cards),
        "NNODES": "1",
        "NODE_RANK": "0",
        "MASTER_ADDR": HERE,
        "MASTER_PORT": str(_port(env.get("MASTER_PORT", ""))),
        # Where the processes meet on a CPU: not beyond this machine.
        "GLOO_SOCKET_IFNAME": "lo",
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), env.get("PATH", "")]
        ),  # torchrun is there
    }
