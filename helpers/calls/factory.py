"""One call of llamafactory-cli: its recipe on disk, its log, its progress, its memory.

Steps for which llamafactory-cli has no command are called in the same way.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.calls.progress import Display
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.inputs.recipes import Recipe, write
from helpers.inputs.settings import Settings
from helpers.machine.memory import MemoryTrace, Sampler, reader
from helpers.programs import process, torchrun
from helpers.programs.making import Making
from helpers.records import schema
from helpers.worker import events

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
            raise TutorialError(
                tr("{key}={value!r} must be a number above zero: correct it.", key=key, value=value)
            )


# The keys that say where a call's outputs go: the first that a recipe has counts, for that of an
# adapter's answers can be taken for another purpose.
_OUTPUTS = ("export_dir", "result", "output_dir")


def _written(
    typed: str, name: str, recipe: Recipe, settings: Settings, making: Making | None
) -> tuple[Recipe, Path]:
    """Write the recipe of a call; return it as the call takes it, and the file that holds that.

    The one that readers find names the final places, so that its command repeats the step; it gets
    its place with the step's outputs.
    """
    final = settings.run.recipes / f"{name}.yaml"
    if making is None:
        return recipe, write(recipe, typed, final)
    write(recipe, typed, making.place(final), named=final)
    key = next(key for key in _OUTPUTS if key in recipe)
    taken = recipe | {key: paths.in_recipe(making.place(paths.ROOT / str(recipe[key])))}
    return taken, write(taken, typed, making.folder / f"{name}.yaml")


def call(
    command: str,
    name: str,
    recipe: Recipe,
    settings: Settings,
    *,
    making: Making | None = None,
    arguments: Sequence[str] = (),
    on_tick: Callable[[MemoryTrace], None] | None = None,
    cards: int = 1,
) -> Call:
    """Run `llamafactory-cli COMMAND` with a recipe and show how it goes on.

    Args:
        command: train (which predicts as well) or export; or a module of this package, as in
            "helpers.worker.divergence".
        name: the step's name; its recipe goes to recipes/NAME.yaml, its log to logs/NAME.log.
        recipe: complete, as helpers/inputs/recipes.py composes it.
        settings: the run's settings; the profile decides which device is shown to the process.
        making: the place of the step that the call is for: outputs that the recipe has go where
            they are made. None leaves them where the recipe says.
        arguments: key=value words that this call alone takes besides its recipe.
        on_tick: called with the memory samples, twice a second.
        cards: a training runs on so many, with a process for each.

    Raises:
        TutorialError: the call failed; the sentence gives cause and remedy.
    """
    _check_counts(recipe)
    run = settings.run
    own = command.startswith("helpers.")
    program = [sys.executable, "-m", command] if own else [CLI, command]
    sharded = cards > 1 and settings.sharded
    typed = words(command) if cards == 1 else f"{torchrun.typed(cards)} {words(command)}"
    if sharded:
        typed = shlex.join(torchrun.sharding(cards))
    used, file = _written(typed, name, recipe, settings, making)
    log = run.logs / f"{name}.log"
    folder = paths.ROOT / str(used.get("output_dir", run.root))
    device = settings.profile.device
    env = process.environment(device, run.cache, settings.environment, cards)
    if cards > 1:
        env |= torchrun.variables(cards, env, sharded)
    if sharded:
        _, *options = torchrun.sharding(cards, main_process_port=env["MASTER_PORT"])
        program = [str(Path(sys.executable).with_name("accelerate")), *options]
    told = None
    # A module of ours may take the recipe of an answering, and must leave what that told alone.
    if not own and (recipe.get("do_train") or recipe.get("do_predict")):
        told = folder / events.FILE
        env[events.VARIABLE] = str(told)
        if not recipe.get("do_train"):
            env[events.UNMEASURED] = "1"
    sampler = Sampler(reader(device))
    batch = int(recipe.get("per_device_train_batch_size", 0))
    samples_a_step = batch * int(recipe.get("gradient_accumulation_steps", 1)) * cards
    origin = schema.origin(run.name).note()
    display = Display(told, samples_a_step, sampler.trace, origin)

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
    return Call(seconds, memory, log)
