"""The doctor: is everything here that a run needs, and what to do about what is not.

Nothing in this process imports torch, which may be missing or die on import; probe.py does, in a
process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from helpers.doctor import ascend, device, host, kernels, packages, probe, resources
from helpers.doctor.host import Check, Status
from helpers.doctor.probe import Probe
from helpers.inputs.settings import Settings
from helpers.machine import cards, npu_smi


def _only_warn(check: Check) -> Check:
    """Return a check of something that this run does not use: what it finds is no failure."""
    return replace(check, status=Status.WARN) if check.status is Status.FAIL else check


def _device_checks(
    settings: Settings, seen: Probe, answer: npu_smi.Info | Exception | None
) -> list[Check]:
    """Return the checks of the device that the profile trains on, once torch can be imported."""
    kind = settings.profile.device
    if kind == "cpu":
        return [device.check_processor(settings.precision), device.check_nf4(kind, seen)]
    checks = [device.check_device(kind, seen)]
    # [an estimate] LLaMA-Factory's README says 16 GB for LoRA on a 7B model, batch 1 and short
    # texts; the tutorial's are longer.
    weights = resources.weights_bytes(settings)
    needed = None if weights is None else 1.25 * weights + 2 * resources.GB
    if kind == "npu" and answer is not None:
        checks.append(ascend.check_npu_memory(seen, answer, needed))
    elif seen.cards:
        checks.append(device.check_device_memory(seen.free, seen.total, needed))
    if seen.cards and not seen.device_fault:
        checks.append(device.check_bf16(seen))
    if seen.cards:
        checks.append(device.check_nf4(kind, seen))
    if seen.kernels:
        checks.append(kernels.check(seen.kernels))
    return checks


def examine(
    settings: Settings,
    *,
    root: Path = Path("/"),
    ask: Callable[[str], Probe] = probe.ask,
) -> list[Check]:
    """Check this machine for a run and return what was found, causes before consequences.

    It starts one Python process that imports torch, which takes most of the time (5 to 15 s).

    Args:
        settings: the run's settings; its profile's device decides what must be there.
        root: the root of the file system (tests give a made-up one).
        ask: looks at torch and the device (tests give made-up answers).
    """
    kind = settings.profile.device
    seen = ask(kind)
    pinned, found = packages.pins(packages.lock_of(root)), packages.all_installed()
    checks = [
        host.check_python(),
        *packages.check_packages(pinned, {name: found.get(name) for name in packages.PACKAGES}),
        packages.check_lock(pinned, found),
        packages.check_deepspeed(),
    ]
    answer = None
    if kind == "npu" or cards.is_ascend_host():
        answer = host.ask_npu_smi()
        below = ascend.checks(root, seen, answer)
        checks += below if kind == "npu" else [_only_warn(check) for check in below]
    checks.append(device.check_torch(seen))
    if seen.torch:
        checks += _device_checks(settings, seen, answer)
    checks += [resources.check_memory(settings, root), *resources.check_disks(settings)]
    others = (
        host.check_data_disk(root),
        resources.check_proxy(settings),
        packages.check_namesakes(os.environ.get("PYTHONPATH", "")),
    )
    checks += [check for check in others if check]
    checks.append(packages.check_swanlab())
    return checks
