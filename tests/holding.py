"""A training that stands still at some steps until a test has seen it there.

So there is a middle in which to reload, to restart and to stop, however fast the machine is or how
much else it does: what is waited for is a condition, never a time.
"""

from __future__ import annotations

from pathlib import Path

# Python imports `sitecustomize` when it starts, in the training's process as well.
SITECUSTOMIZE = """
import os, sys, time
from pathlib import Path

if any(part.endswith("llamafactory-cli") for part in sys.orig_argv):
    from transformers.trainer_callback import DefaultFlowCallback

    def hold(self, args, state, control, **rest):
        step = f"{Path(args.output_dir).name}-{state.global_step}"
        going_on = Path(os.environ["HELD_GOING_ON"]) / step
        asked_to_stop = Path(os.environ["TUTORIAL_STOP"])
        while state.global_step in STEPS and not (going_on.exists() or asked_to_stop.exists()):
            time.sleep(0.1)

    DefaultFlowCallback.on_step_begin = hold
"""


class Held:
    """Trainings that wait before the steps after some, until they may go on or are asked to stop.

    Args:
        folder: what is needed for it is kept there.
        steps: after which optimizer steps.
    """

    def __init__(self, folder: Path, steps: tuple[int, ...]) -> None:
        self.steps = steps
        self._going_on, customize = folder / "going_on", folder / "sitecustomize"
        for made in (self._going_on, customize):
            made.mkdir(parents=True)
        text = SITECUSTOMIZE.replace("STEPS", str(steps))
        (customize / "sitecustomize.py").write_text(text)
        # What the environment of whoever starts the trainings has to hold.
        self.env = {"PYTHONPATH": str(customize), "HELD_GOING_ON": str(self._going_on)}

    def let_go_on(self, method: str, *steps: int) -> None:
        """Let a method's training go on from some steps; from all, where none is named."""
        for step in steps or self.steps:
            (self._going_on / f"{method}-{step}").touch()
