"""One call of llamafactory-cli: its recipe on disk, its log, its progress, its memory.

The two steps for which llamafactory-cli has no command are called in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import frozen_weights, paths, process
from helpers.errors import TutorialError
from helpers.memory import MemoryTrace, Sampler, reader
from helpers.progress import Display, read_trainer_log
from helpers.recipe import Recipe, write
from helpers.settings import Settings

CLI = str(Path(sys.executable).with_name("llamafactory-cli"))


@dataclass(frozen=True)
class Call:
    """What a call left besides its outputs."""

    seconds: float  # wall time
    memory: MemoryTrace
    log: Path


def words(command: str) -> str:
    """Return a command of `call` as readers type it in the repository, its recipe left out."""
    own = command.startswith("helpers.")
    return f".venv/bin/python -m {command}" if own else f"llamafactory-cli {command}"


# What is reckoned with here; the rest of a recipe is LLaMA-Factory's to check.
_COUNTS = ("max_samples", "per_device_train_batch_size", "gradient_accumulation_steps",
           "num_train_epochs")  # fmt: skip


def _check_counts(recipe: Recipe) -> None:
    for key in _COUNTS:
        value = recipe.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise TutorialError(f"{key}={value!r} must be a number above zero: correct it.")


def call(
    command: str,
    name: str,
    recipe: Recipe,
    settings: Settings,
    *,
    arguments: Sequence[str] = (),
    on_tick: Callable[[MemoryTrace], None] | None = None,
) -> Call:
    """Run `llamafactory-cli COMMAND` with a recipe and show how it goes on.

    Args:
        command: train or export; or a module of this package, as in "helpers.divergence".
        name: the step's name; its recipe goes to recipes/NAME.yaml, its log to logs/NAME.log.
        recipe: complete, as helpers/recipe.py composes it.
        settings: the run's settings; the profile decides which device is shown to the process.
        arguments: key=value words that this call alone takes besides its recipe.
        on_tick: called with the memory samples, twice a second.

    Raises:
        TutorialError: the call failed; the sentence gives cause and remedy.
    """
    _check_counts(recipe)
    run = settings.run
    own = command.startswith("helpers.")
    program = [sys.executable, "-m", command] if own else [CLI, command]
    file = write(recipe, words(command), run.recipes / f"{name}.yaml")
    log = run.logs / f"{name}.log"
    folder = paths.ROOT / str(recipe.get("output_dir", run.root))
    trainer_log = folder / "trainer_log.jsonl"
    device = settings.profile.device
    env = process.environment(device, run.cache, settings.environment)
    if recipe.get("do_train"):
        env[frozen_weights.VARIABLE] = str(folder / frozen_weights.FILE)
    sampler = Sampler(reader(device))
    batch = int(recipe.get("per_device_train_batch_size", 0))
    samples_a_step = batch * int(recipe.get("gradient_accumulation_steps", 1))
    display = Display(log, trainer_log, samples_a_step, sampler.trace)

    def tick() -> None:
        display.tick()
        if on_tick:
            on_tick(sampler.trace)

    try:
        seconds = process.run(
            [*program, paths.in_recipe(file), *arguments],
            log,
            env=env,
            on_start=sampler.start,
            on_tick=tick,
        )
    finally:
        memory = sampler.stop()
        display.close()
    peaks = [
        row["vram_allocated"] for row in read_trainer_log(trainer_log) if "vram_allocated" in row
    ]
    if peaks:
        memory.allocator_peak_bytes = int(max(peaks) * 2**30)
    return Call(seconds, memory, log)
