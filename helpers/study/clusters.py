"""A study on several machines: Ray runs there already, and ADDRESS= says where its first one is.

And what is said where Ray takes no trials, there or here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from helpers.ground.errors import TutorialError
from helpers.ground.words import tr

TOKEN = ".ray/auth_token"  # below one's home, where Ray looks for it by itself
_OWN_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def check(address: str) -> str:
    """Return the address of a cluster as Ray takes it; "" for none.

    Raises:
        TutorialError: it is none, or this machine has no token for any cluster.
    """
    if not address.strip():
        return ""
    found = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9.-]*):([0-9]{1,5})", address.strip())
    if not found or not 0 < int(found[2]) < 2**16:
        raise TutorialError(
            tr(
                "ADDRESS={address!r} is not understood: give the first machine of the cluster and "
                "its port, as in ADDRESS=192.168.1.10:6379.",
                address=address[:60],
            )
        )
    if not any(map(os.environ.get, _OWN_TOKEN)) and not (Path.home() / TOKEN).is_file():
        raise TutorialError(
            tr(
                "This machine has no token for the cluster at {address}: copy ~/{token} from its "
                "first machine into your home here.",
                address=address.strip(),
                token=TOKEN,
            )
        )
    return address.strip()


def environment(address: str) -> dict[str, str]:
    """Return this process's environment for on_ray.py.

    Without what would set Ray otherwise; of a cluster its token stays.
    """
    kept = _OWN_TOKEN if address else ()
    return {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or k in kept}


def refusal(event: Mapping[str, str], address: str, log: Path) -> TutorialError:
    """Return the error for what on_ray.py told of a Ray that takes no trials.

    Args:
        event: what was told.
        address: the cluster's; "" for this machine.
        log: what Ray said; of a token that is refused it speaks there alone.
    """
    why = event["why"]
    if why == "silent" and "InvalidAuthToken" in log.read_text(encoding="utf-8", errors="replace"):
        why = "token"
    sentences = {
        "slow": tr(
            "Ray did not start in ten minutes, for which this machine is too busy: run the same "
            "command again once there is less to do here."
        ),
        "silent": tr(
            "No Ray answers at ADDRESS={address}: start it there, as README.md says, on a machine "
            "that this one reaches.",
            address=address,
        ),
        "token": tr(
            "The cluster at ADDRESS={address} refuses this machine's token: copy ~/{token} from "
            "its first machine into your home here.",
            address=address,
            token=TOKEN,
        ),
        "versions": tr(
            "The cluster at ADDRESS={address} runs another Ray or Python than this repository "
            "asks for: start it with .venv-study/bin/ray of this commit on every machine.",
            address=address,
        ),
        "cards": tr(
            "The cluster at ADDRESS={address} has none of the cards or cores that the profile "
            "asks for: choose another PROFILE=, or start Ray on a machine that has them.",
            address=address,
        ),
        "folder": tr(
            "The machine {node} of the cluster does not see {file}: lay the repository, its .venv, "
            "runs and models in a folder that all machines share, at the same path.",
            node=event.get("node", ""),
            file=event.get("file", ""),
        ),
    }
    return TutorialError(sentences[why], log=log)
