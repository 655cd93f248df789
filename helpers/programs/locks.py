"""Which lock the set-up installs on an Ascend host: that of its CANN (`make setup` asks).

`python -m helpers.programs.locks` prints its name, or nothing where there is none; with `check` it
says what is not certain, or why there is none and what to do, and then fails. Only the standard
library is imported: there are no packages yet.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.machine import generations
from helpers.programs import kernel


def main(arguments: list[str], root: Path = Path("/")) -> int:
    """Answer the Makefile; return the exit code.

    Args:
        arguments: the command line.
        root: the root of the file system.
    """
    os.environ.update(kernel.cann_changes())  # of the CANN that was chosen before, in any shell
    if arguments == ["check"]:
        try:
            doubt = generations.check(root)
        except TutorialError as error:
            print(error.message, file=sys.stderr)
            return 1
        if doubt:
            print(tr("WARN: {doubt}", doubt=doubt), file=sys.stderr)
        return 0
    lock = generations.lock(root)
    print(lock.name if lock else "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
