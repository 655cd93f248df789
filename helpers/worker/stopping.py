"""A training that is asked to stop leaves a checkpoint first, and goes on from it another time.

llamafactory-cli knows no such thing: a signal ends it where it is, and all steps since the last
checkpoint are lost. TUTORIAL_STOP names a file; once that is there, the training saves a checkpoint
at the end of the step, or of the evaluation, that is going on, and ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from helpers.worker import ranks

VARIABLE = "TUTORIAL_STOP"
STOPPED = 130  # the exit code of what Ctrl-C ended


def callback() -> type[Any]:
    """Return the callback for transformers' Trainer."""
    from transformers import TrainerCallback

    class Stopping(TrainerCallback):
        """Saves and ends once the file is there."""

        def __init__(self) -> None:
            self.file = Path(os.environ[VARIABLE])
            self.stopping = False

        def look(self, control: Any) -> None:
            # All processes must end at the same step: the file may come between two looks.
            if any(ranks.gathered(self.file.exists())):
                self.stopping = control.should_save = True

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.look(control)

        def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.look(control)

        def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if self.stopping:
                ranks.gathered(None)  # one that ended sooner would take the others with it
                sys.exit(STOPPED)  # the checkpoint is whole: nothing is written after this

    return Stopping
