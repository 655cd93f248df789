"""Whether there is memory and disk for a run, and a way to what it downloads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from helpers.doctor.host import Check, fail, ok, warn
from helpers.ground import paths
from helpers.ground.words import series, tr
from helpers.inputs import sources
from helpers.inputs.settings import Settings
from helpers.machine import container

GB = 1e9
# Beside the merged models: adapters, checkpoints with optimizer state, caches, logs.
SPARE_BYTES = 0.3 * GB
# Python with torch and LLaMA-Factory, resident [seen with the tiny model: 1.1 GB].
PROGRAM_BYTES = 1.5 * GB


def weights_bytes(settings: Settings) -> float | None:
    """Return what the model's 16-bit weights take, in bytes; None if nothing says so.

    From the catalogue, else from the files if the model lies in its folder already.
    """
    model = settings.model
    if model.weights_gb is not None:
        return model.weights_gb * GB
    files = list(model.path.glob("*.safetensors")) if model.path.is_dir() else []
    return float(sum(file.stat().st_size for file in files)) or None


def available_memory(root: Path) -> int:
    """Return the memory that can still be taken, in bytes: the machine's, or the container's."""
    free: int = psutil.virtual_memory().available
    left = container.left_bytes(root)
    return free if left is None else min(free, left)


def check_memory(settings: Settings, root: Path) -> Check:
    """Is there host memory: to train in on a CPU, to load and merge in otherwise."""
    name = tr("memory")
    free, model = available_memory(root), settings.model.name
    weights = weights_bytes(settings)
    if weights is None:
        return ok(
            name,
            tr("{free:.1f} GB free; what {model} needs is not known", free=free / GB, model=model),
        )
    # [an estimate] Merging holds the weights twice for a moment; training on a CPU adds gradients
    # and activations of about the weights' size again.
    copies = 3 if settings.profile.device == "cpu" else 2
    if settings.precision == "float32":
        copies *= 2
    needed = copies * weights + PROGRAM_BYTES
    if free >= needed:
        return ok(
            name,
            tr(
                "{free:.1f} GB free, about {needed:.1f} GB needed",
                free=free / GB,
                needed=needed / GB,
            ),
        )
    return warn(
        name,
        tr(
            "{free:.1f} GB free, and {model} needs about {needed:.1f} GB",
            free=free / GB,
            model=model,
            needed=needed / GB,
        ),
        tr("Close other programs, or choose a smaller model with MODEL=."),
    )


def _existing(path: Path) -> Path:
    """Return the folder itself or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _lacking(settings: Settings, weights: float) -> dict[Path, float]:
    """Return how many bytes a run has still to write under MODELS and under RUNS."""
    model, run = settings.model, settings.run
    there = model.folder or any(model.path.glob("*.safetensors"))
    merged = [run.merged(s.name) for s in settings.subjects.values() if s.kind == "merged"]
    missing = sum(not any(folder.glob("*.safetensors")) for folder in merged)
    return {
        paths.MODELS: 0.0 if there else weights,
        paths.RUNS: missing * weights + 0.1 * weights + SPARE_BYTES,
    }


def _check_disk(folders: list[Path], needed: float, unsized: str) -> Check:
    """One disk.

    Args:
        folders: what will lie on it.
        needed: bytes that a run has still to write there.
        unsized: the model, if its size is not known; else empty.
    """
    shown = [paths.shown(folder).rstrip("/") for folder in folders]
    name = tr("disk for {folders}", folders=series(shown))
    free = shutil.disk_usage(_existing(folders[0])).free
    locked = [folder for folder in folders if not os.access(_existing(folder), os.W_OK)]
    if locked:
        return fail(
            name,
            tr("{folder} cannot be written", folder=paths.shown(locked[0])),
            tr(
                "Change its permissions, or set TUTORIAL_MODELS and TUTORIAL_RUNS to folders that "
                "can be written."
            ),
        )
    finding = tr("{free:.1f} GB free, {needed:.1f} GB needed", free=free / GB, needed=needed / GB)
    if free < needed:
        return fail(
            name,
            finding,
            tr(
                "Make room (old runs lie in runs/, models in models/), or set TUTORIAL_MODELS and "
                "TUTORIAL_RUNS to folders on another disk."
            ),
        )
    if unsized:
        return warn(
            name,
            tr(
                "{free:.1f} GB free; the size of {model} is not known",
                free=free / GB,
                model=unsized,
            ),
            tr("Make sure that three times the size of its weights is free."),
        )
    return ok(name, finding)


def check_disks(settings: Settings) -> list[Check]:
    """Is there room where models and runs lie, and may they be written; one line a disk."""
    weights = weights_bytes(settings)
    needs = _lacking(settings, weights or 0.0)
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    unsized = settings.model.name if weights is None else ""
    return [
        _check_disk(folders, sum(needs[folder] for folder in folders), unsized)
        for folders in disks.values()
    ]


def check_proxy(settings: Settings) -> Check | None:
    """AutoDL's network_turbo sets a proxy that ModelScope is better reached without.

    None where nothing comes from ModelScope, or no proxy is set. A proxy's address may hold a
    password and is not shown.
    """
    names = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy")]
    set_ones = sorted(name for name in names if os.environ[name])
    hub = settings.model.modelscope or sources.from_hub(settings.profile.data.source)
    if not hub or not set_ones:
        return None
    return warn(
        tr("proxy"),
        tr(
            "set, perhaps by network_turbo, which slows ModelScope down: {variables}",
            variables=series(set_ones),
        ),
        tr(
            "Run 'unset {variables}' before downloading from ModelScope, unless this is the only "
            "way out of your network.",
            variables=" ".join(set_ones),
        ),
    )
