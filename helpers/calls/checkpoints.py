"""Going on with an interrupted training: its last whole checkpoint, and what its parts took."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from helpers.ground.files import refusals_explained, sha256_json, write_bytes
from helpers.ground.words import tr
from helpers.machine.memory import MemoryTrace
from helpers.worker import events

# How often the memory samples are put aside: what a kill can lose of them.
KEEP_SECONDS = 5.0
_NEEDED = ("trainer_state.json", "scheduler.pt")
# And one of these: what cards have written that share the model out goes by other names.
_STATES = (("optimizer.pt",), ("optimizer.bin", "pytorch_model_fsdp.bin"))


class Parts(BaseModel):
    """A training that has begun: its inputs, and what the parts before the present one took.

    A part counts up to the checkpoint from which the next one went on; what it did after that was
    lost and is done again, so it counts once.
    """

    inputs: str
    began: float  # the present part, in seconds since 1970
    resumed_at: list[int] = []  # the steps from which parts went on
    seconds: float = 0.0  # whole calls
    train_seconds: float = 0.0  # training loops
    memory: MemoryTrace | None = None  # of all parts


def _is_whole(checkpoint: Path) -> bool:
    """Return whether everything in a checkpoint can be read to its end.

    transformers writes trainer_state.json last, but a power cut keeps to no order.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        if checkpoint.name != f"checkpoint-{state['global_step']}":
            return False
        weights = list(checkpoint.glob("*.safetensors"))
        for file in weights:
            with safe_open(file, framework="numpy"):  # compares the header with the file's size
                pass
        named = {name for names in _STATES for name in names}
        pickles = [*checkpoint.glob("*.pt"), *checkpoint.glob("rng_state*.pth")]
        pickles += [file for file in checkpoint.glob("*.bin") if file.name in named]
        for file in pickles:
            with zipfile.ZipFile(file) as archive:
                if archive.testzip():
                    return False
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile):
        return False
    return (
        bool(weights)
        and all((checkpoint / name).is_file() for name in _NEEDED)
        and any(all((checkpoint / name).is_file() for name in names) for names in _STATES)
        and any(checkpoint.glob("rng_state*.pth"))
    )


def last_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint in a training's output folder that is whole, or None."""
    found = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(found, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def joined(first: MemoryTrace | None, second: MemoryTrace, offset: float) -> MemoryTrace:
    """Return the samples of two parts of one training, the second ones `offset` seconds later."""
    if first is None or first.measure != second.measure:
        return second
    taken = [
        pair for pair in zip(first.seconds, first.bytes_used, strict=False) if pair[0] < offset
    ]
    taken += [
        (round(at + offset, 2), used)
        for at, used in zip(second.seconds, second.bytes_used, strict=False)
    ]
    return second.model_copy(
        update={"seconds": [at for at, _ in taken], "bytes_used": [used for _, used in taken]}
    )


class Attempt:
    """One attempt at a training; it goes on where one with the same inputs was interrupted.

    Args:
        folder: the training's output folder. It is emptied where there is nothing to go on from.
        inputs: everything that decides the training, as for steps.done_once.
        discard: removes what lies in the place where the training is made.
        say: takes one line if the training goes on.

    Raises:
        TutorialError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        discard: Callable[[Path], None],
        say: Callable[[str], None] = print,
    ) -> None:
        self._folder, self._file, self._discard = folder, folder / "parts.json", discard
        self._kept_at = time.monotonic()
        fingerprint = sha256_json(inputs)
        before = self._read(fingerprint)
        self.checkpoint = last_whole(folder) if before else None
        with refusals_explained(folder):
            if before and self.checkpoint:
                step = _step(self.checkpoint)
                say(
                    tr(
                        "Going on with the interrupted training {name} from step {step}.",
                        name=folder.name,
                        step=step,
                    )
                )
                self.parts = self._resumed(before, self.checkpoint, step)
            else:
                discard(folder)
                self.parts = Parts(inputs=fingerprint, began=time.time())
            write_bytes(self._file, self.parts.model_dump_json().encode())

    def _read(self, fingerprint: str) -> Parts | None:
        try:
            parts = Parts.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return None
        return parts if parts.inputs == fingerprint else None

    def _resumed(self, before: Parts, checkpoint: Path, step: int) -> Parts:
        for other in self._folder.glob("checkpoint-*"):
            if other != checkpoint:  # half-written, or half-removed
                self._discard(other)
        told = self._folder / events.FILE
        kept = events.until(events.read(told), step)
        write_bytes(told, "".join(json.dumps(event) + "\n" for event in kept).encode())
        saved = (checkpoint / "trainer_state.json").stat().st_mtime
        # A part that saved nothing before it was interrupted as well adds nothing.
        own = saved > before.began
        return Parts(
            inputs=before.inputs,
            began=time.time(),
            resumed_at=[*before.resumed_at, step],
            seconds=round(before.seconds + (saved - before.began if own else 0), 2),
            train_seconds=events.loop_seconds(kept),
            memory=before.memory,
        )

    @property
    def arguments(self) -> list[str]:
        """What llamafactory-cli is told besides the recipe, so that it goes on."""
        if self.checkpoint is None:
            return []
        # With overwrite_output_dir LLaMA-Factory would remove its log of the earlier parts.
        return [f"resume_from_checkpoint={self.checkpoint}", "overwrite_output_dir=false"]

    def keep(self, memory: MemoryTrace) -> None:
        """Put the memory samples aside, if it is time to."""
        if time.monotonic() - self._kept_at >= KEEP_SECONDS:
            self._kept_at = time.monotonic()
            trace = joined(self.parts.memory, memory, self.parts.seconds)
            kept = self.parts.model_copy(update={"memory": trace})
            write_bytes(self._file, kept.model_dump_json().encode())
