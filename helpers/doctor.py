"""The doctor: is everything here that a run needs, and what to do about what is not.

Nothing in this process imports torch, which may be missing or die on import; helpers/probe.py does
in a process of its own.

Where figures and version tables come from is said beside them; the Ascend ones are from public
material (Ascend/pytorch's COMPATIBILITY.md, users' reports), none was taken on an NPU.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers import cann, cards, faults, host, npu_smi, paths, probe, process
from helpers.errors import TutorialError
from helpers.host import Check, Status, fail, ok, warn
from helpers.probe import Probe, installed
from helpers.settings import Settings

GB = 1e9


# NF4 with blocks of 64 leaves a relative error (root mean square) of 0.092 on normal weights, FP4
# one of 0.122 [measured with bitsandbytes 0.48.2]; a kernel that mixes weights up, one above 1.
NF4_ERROR_BOUND = 0.10


def _fault(text: str) -> tuple[str, str]:
    """Return a finding and a remedy for what a program printed when it failed."""
    lines = [line.strip() for line in process.redacted(text).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b.*:", line)]
    finding = (errors or lines or ["it ended without a word"])[-1]
    remedy = faults.recognise(text) or (
        "Make the environment anew with 'rm -rf .venv' and 'make setup', and if that does not "
        "help report this message with your versions."
    )
    return finding[:300], remedy


# ---- Python and packages -------------------------------------------------------------------------

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "llamafactory",
    "bitsandbytes",
    "modelscope",
    "swanlab",
)
LOCK = paths.ROOT / "requirements.lock"
NPU_LOCK = paths.ROOT / "requirements-npu.lock"


def pins(lock: Path) -> dict[str, str]:
    """Return the versions that a lock pins for this machine, by package.

    Raises:
        TutorialError: there is no such file.
    """
    try:
        text = lock.read_text("utf-8")
    except FileNotFoundError as error:
        raise TutorialError(f"{paths.shown(lock)} is missing: restore it with git.") from error
    lines = re.findall(r"^[a-z0-9][^\\\n]*", text, re.MULTILINE)
    found = [Requirement(line) for line in lines]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate()
    }


def all_installed() -> dict[str, str]:
    """Return the version of every installed package, by its name as the lock spells it."""
    return {canonicalize_name(one.name): one.version for one in metadata.distributions()}


def check_packages(pinned: Mapping[str, str], found: Mapping[str, str | None]) -> list[Check]:
    """Compare installed versions with the lock: one line for all that agree, one for each other.

    Args:
        pinned: the version each package is pinned at.
        found: the version each package is installed at, or None.
    """
    checks = []
    agreeing = []
    for package, version in found.items():
        wanted = pinned.get(package, "")
        if version is None:
            checks.append(
                fail(package, "not installed", f"Run 'make setup': it installs {wanted}.")
            )
        elif version.split("+")[0] == wanted:  # "+cpu" and the like name a build, not a version
            agreeing.append(f"{package} {version}")
        elif package == "bitsandbytes" and (0, 49) <= _release(version)[:2] <= (0, 50):
            checks.append(
                fail(
                    package,
                    f"{version} damages 4-bit weights on CPUs with AVX512-BF16 when a checkpoint "
                    "is saved",
                    f"Run 'make setup' to get {wanted}.",
                )
            )
        else:
            checks.append(
                warn(
                    package,
                    f"{version}, and the lock has {wanted}",
                    "Run 'make setup' to get the version that this was tested with.",
                )
            )
    if agreeing:
        checks.insert(0, ok("packages", ", ".join(agreeing)))
    return checks


def check_lock(pinned: Mapping[str, str], found: Mapping[str, str]) -> Check:
    """Compare the rest of what is installed with the lock: what those packages need in turn.

    Args:
        pinned: the version each package is pinned at.
        found: the version of every package that is installed.
    """
    name = "the rest of the lock"
    # torch's CPU build, which the README offers, does without the CUDA libraries.
    cuda = ("nvidia-", "cuda-", "triton") if "+cpu" in found.get("torch", "") else ()
    rest = [one for one in pinned if one not in PACKAGES and not one.startswith(cuda)]
    missing = [one for one in rest if one not in found]
    other = [one for one in rest if one in found and found[one].split("+")[0] != pinned[one]]
    if missing:
        return fail(name, f"not installed: {_some(missing)}", "Run 'make setup'.")
    if other:
        return warn(
            name,
            f"other versions than the lock's: {_some([f'{one} {found[one]}' for one in other])}",
            "Run 'make setup' to get the versions that this was tested with.",
        )
    return ok(name, f"{len(rest)} packages, each at its pinned version")


def _some(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def check_deepspeed() -> Check:
    """DeepSpeed is not used here, and the article found that it breaks training on an NPU."""
    version = installed("deepspeed")
    if version is None:
        return ok("deepspeed", "not installed, as it should be")
    return warn(
        "deepspeed",
        f"{version} is installed; it is not used, and it has been seen to break training on NPUs",
        "Run '.venv/bin/python -m uv pip uninstall deepspeed'.",
    )


def check_swanlab() -> Check:
    """SwanLab logs to its cloud if a key is set, else to local files. The key is never shown."""
    if os.environ.get("SWANLAB_API_KEY"):
        return ok("SwanLab", "cloud: SWANLAB_API_KEY is set")
    return ok("SwanLab", "local mode: no key is set and none is needed")


# ---- torch and the device ------------------------------------------------------------------------


def check_torch(seen: Probe) -> Check:
    """Can torch be imported at all."""
    if seen.torch is None:
        return fail("import torch", *_fault(seen.output))
    beside = f", torch_npu {seen.torch_npu}" if seen.torch_npu else ""
    return ok("import torch", f"torch {seen.torch}{beside}")


_NO_CARD = {
    "npu": "Correct what the checks above found (driver, CANN, set_env.sh, torch_npu, "
    "ASCEND_RT_VISIBLE_DEVICES), or use PROFILE=cpu.",
    "cuda": "Make sure that nvidia-smi shows a card and that CUDA_VISIBLE_DEVICES names one, or "
    "use PROFILE=cpu.",
}


def check_device(device: str, seen: Probe) -> Check:
    """Does torch see the device that the profile trains on."""
    name = f"{device.upper()} in torch"
    if seen.cards is None:
        return fail(name, *_fault(seen.device_fault or seen.output))
    if seen.cards == 0:
        known = faults.recognise(seen.output)
        return fail(name, "torch sees no card", known or _NO_CARD[device])
    if seen.device_fault:
        return fail(name, *_fault(seen.device_fault))
    if seen.cards > 1:
        return ok(name, f"{seen.cards} cards are visible, and only the first is used: {seen.name}")
    return ok(name, seen.name or "one card")


def check_bf16(seen: Probe) -> Check:
    """The recipes compute in bf16."""
    if seen.bf16:
        return ok("bf16", "supported")
    return fail(
        "bf16",
        "this card does not support it",
        "Use a card that does (Ascend 910B, NVIDIA Ampere or later), or train in fp16 with the "
        "overrides bf16=false fp16=true.",
    )


def check_nf4(device: str, seen: Probe) -> Check:
    """Does bitsandbytes quantise to 4 bits and back on the device that QLoRA trains on."""
    name = "4-bit (NF4) round trip"
    if seen.nf4_error is None:
        return fail(name, *_fault(seen.nf4_fault or seen.output))
    # Written so that NaN fails as well.
    if not seen.nf4_error <= NF4_ERROR_BOUND:
        return fail(
            name,
            f"relative error {seen.nf4_error:.3f} on {device}, more than {NF4_ERROR_BOUND}",
            "Do not trust QLoRA here: run 'make setup' to get the pinned bitsandbytes, and report "
            "this with the versions above.",
        )
    fallen = faults.cpu_fallbacks(seen.output)
    if fallen:
        return warn(
            name,
            f"{', '.join(fallen)} fell back from the NPU to the CPU, which is slow",
            "Install the CANN and torch_npu versions that the README names.",
        )
    return ok(name, f"relative error {seen.nf4_error:.3f} on {device} (at most {NF4_ERROR_BOUND})")


def check_device_memory(
    free: int | None, total: int | None, needed: float | None, holders: str = ""
) -> Check:
    """Is there free memory on the card.

    Args:
        free: bytes, or None if that is not known.
        total: bytes, likewise.
        needed: bytes that training needs at the least, or None if that is not known.
        holders: which processes hold memory, as a phrase; empty if none or not known.
    """
    name = "free device memory"
    if free is None or total is None:
        return warn(name, "not known", "Correct what the checks above found, and run this again.")
    finding = f"{free / GB:.1f} of {total / GB:.1f} GB"
    if holders:
        return warn(name, f"{finding}; held by {holders}", "End those processes, or wait for them.")
    if needed is not None and free < needed:
        return warn(
            name,
            f"{finding}, and LoRA needs about {needed / GB:.1f} GB",
            "Choose a smaller model with MODEL=, free the card, or train with QLoRA only.",
        )
    return ok(name, finding)


# ---- driver, CANN, torch_npu ---------------------------------------------------------------------

# CANN -> the torch_npu versions that go with it: Ascend/pytorch, COMPATIBILITY.md (2026-08).
COMPATIBLE = {
    "9.1.0": ("2.12.0", "2.11.0", "2.10.0", "2.10.0.post2", "2.10.0.post4", "2.9.0.post3",
              "2.9.0.post6", "2.7.1.post5", "2.7.1.post8"),
    "9.0.0": ("2.9.0.post2", "2.8.0.post4", "2.7.1.post4"),
    "8.5.0": ("2.9.0", "2.8.0.post2", "2.7.1.post2", "2.6.0.post5"),
    "8.3.RC1": ("2.8.0", "2.7.1", "2.6.0.post3", "2.1.0.post17"),
    "8.2.RC1": ("2.6.0", "2.5.1.post1", "2.1.0.post13"),
    "8.1.RC1": ("2.5.1", "2.4.0.post4", "2.3.1.post6", "2.1.0.post12"),
    "8.0.0": ("2.4.0.post2", "2.3.1.post4", "2.1.0.post10"),
    "8.0.RC1": ("2.2.0", "2.1.0.post4"),
}  # fmt: skip


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version that matter between torch and torch_npu: (2, 10, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def check_compatibility(
    torch: str | None, torch_npu: str | None, cann: str | None, pinned: str
) -> Check:
    """Do torch, torch_npu and CANN go together.

    Args:
        torch: the installed version, or None.
        torch_npu: the installed version, or None.
        cann: the version of the CANN in use, or None.
        pinned: the torch_npu version of the lock.
    """
    name = "torch, torch_npu, CANN"
    if torch_npu is None:
        return fail(name, "torch_npu is not installed", f"Run 'make setup': it adds {pinned}.")
    together = f"torch {torch}, torch_npu {torch_npu}, CANN {cann or 'unknown'}"
    if torch is None or _release(torch) != _release(torch_npu):
        return fail(
            name,
            f"{together}: torch and torch_npu differ",
            "Run 'make setup': it installs the two versions that go together.",
        )
    if cann is None:
        return warn(name, together, "Find out CANN's version and compare it with the README's.")
    listed = COMPATIBLE.get(cann.upper())
    if listed is None:
        return warn(
            name,
            f"{together}: this CANN is not in the table of tested versions",
            "Compare the versions with COMPATIBILITY.md of github.com/Ascend/pytorch.",
        )
    public = torch_npu.split("+")[0]
    if public in listed:
        return ok(name, f"{together}: they go together")
    wanted = [known for known, versions in COMPATIBLE.items() if public in versions]
    remedy = f"Use an image with CANN {' or '.join(wanted) or '9.1.0'}, which goes with it."
    if _release(public) in {_release(version) for version in listed}:
        return warn(name, f"{together}: another post release is listed for this CANN", remedy)
    return fail(name, f"{together}: they do not go together", remedy)


def _card_in_use(answer: npu_smi.Info | Exception) -> npu_smi.Card | None:
    """Return the card that training would use, or None if npu-smi does not show it."""
    if isinstance(answer, Exception):
        return None
    try:
        return npu_smi.card_in_use(answer)
    except npu_smi.UnreadableOutput:
        return None  # the check of ASCEND_RT_VISIBLE_DEVICES says what is wrong


def _holders(info: npu_smi.Info, card: npu_smi.Card) -> str:
    """Return who holds memory of a card, as a phrase."""
    return ", ".join(
        f"process {held.pid}{f' ({held.name})' if held.name else ''} with {held.memory_mb} MB"
        for held in info.processes
        if (held.npu_id, held.chip_id) == (card.npu_id, card.chip_id)
    )


def _npu_memory_check(seen: Probe, answer: npu_smi.Info | Exception, needed: float | None) -> Check:
    """Return the check of an NPU's memory: torch's figures, else npu-smi's, and its holders.

    A card that is full keeps torch from asking it, which is when the holders matter most.
    """
    free, total, holders = seen.free, seen.total, ""
    card = _card_in_use(answer)
    if card and isinstance(answer, npu_smi.Info):
        holders = _holders(answer, card)
        if free is None and card.hbm_used_mb is not None and card.hbm_total_mb is not None:
            free = (card.hbm_total_mb - card.hbm_used_mb) * npu_smi.MEGABYTE
            total = card.hbm_total_mb * npu_smi.MEGABYTE
    return check_device_memory(free, total, needed, holders)


def _npu_checks(root: Path, seen: Probe, answer: npu_smi.Info | Exception) -> list[Check]:
    """Return what there is to say about an Ascend host below torch."""
    in_use = next(iter(cann.installations(root).values()), seen.cann)
    return [
        host.check_driver(root, answer),
        host.check_cann(root),
        host.check_set_env(root),
        check_compatibility(
            seen.torch or installed("torch"),
            seen.torch_npu or installed("torch-npu"),
            in_use,
            pins(NPU_LOCK).get("torch-npu", ""),
        ),
        host.check_visible_devices(os.environ.get("ASCEND_RT_VISIBLE_DEVICES")),
    ]


# ---- memory, disks, network ----------------------------------------------------------------------

# Beside two merged models: adapters, checkpoints with optimizer state, caches, logs.
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


def _cgroup_left(folder: Path, limit: str, used: str) -> int | None:
    """Return what a container's memory limit leaves, in bytes; None where there is no limit.

    Cached files count as used there, and are given back when memory is short.
    """
    try:
        left = int((folder / limit).read_text()) - int((folder / used).read_text())
        stat = (folder / "memory.stat").read_text()
    except (OSError, ValueError):  # another version of cgroups, or "max": no limit
        return None
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
    return left + (int(cached[1]) if cached else 0)


def _available_memory(root: Path) -> int:
    """Return the memory that can still be taken, in bytes: the machine's, or the container's."""
    group = root / "sys/fs/cgroup"
    limits = (
        _cgroup_left(group, "memory.max", "memory.current"),
        _cgroup_left(group / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    )
    return min([psutil.virtual_memory().available, *(left for left in limits if left is not None)])


def check_memory(settings: Settings, root: Path) -> Check:
    """Is there host memory: to train in on a CPU, to load and merge in otherwise."""
    name = "memory"
    available = _available_memory(root)
    finding = f"{available / GB:.1f} GB free"
    weights = weights_bytes(settings)
    if weights is None:
        return ok(name, f"{finding}; what {settings.model.name} needs is not known")
    # [an estimate] Merging holds the weights twice for a moment; training on a CPU adds gradients
    # and activations of about the weights' size again.
    copies = 3 if settings.profile.device == "cpu" else 2
    needed = copies * weights + PROGRAM_BYTES
    if available >= needed:
        return ok(name, f"{finding}, about {needed / GB:.1f} GB needed")
    return warn(
        name,
        f"{finding}, and {settings.model.name} needs about {needed / GB:.1f} GB",
        "Close other programs, or choose a smaller model with MODEL=.",
    )


def _existing(path: Path) -> Path:
    """Return the folder itself or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _lacking(settings: Settings, weights: float) -> dict[Path, float]:
    """Return how many bytes a run has still to write under MODELS and under RUNS."""
    model = settings.model
    there = model.folder or any(model.path.glob("*.safetensors"))
    merged = [settings.run.merged(subject) for subject in paths.MERGED]
    missing = sum(not any(folder.glob("*.safetensors")) for folder in merged)
    return {
        paths.MODELS: 0.0 if there else weights,
        paths.RUNS: missing * weights + 0.1 * weights + SPARE_BYTES,
    }


def check_disks(settings: Settings) -> list[Check]:
    """Is there room where models and runs lie, and may they be written; one line a disk."""
    weights = weights_bytes(settings)
    needs = _lacking(settings, weights or 0.0)
    disks: dict[int, list[Path]] = {}
    for folder in needs:
        disks.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    checks = []
    for folders in disks.values():
        name = "disk for " + " and ".join(paths.shown(folder).rstrip("/") for folder in folders)
        place = _existing(folders[0])
        free = shutil.disk_usage(place).free
        needed = sum(needs[folder] for folder in folders)
        finding = f"{free / GB:.1f} GB free"
        locked = [folder for folder in folders if not os.access(_existing(folder), os.W_OK)]
        remedy = (
            "Make room (old runs lie in runs/, models in models/), or set TUTORIAL_MODELS and "
            "TUTORIAL_RUNS to folders on another disk."
        )
        if locked:
            checks.append(
                fail(
                    name,
                    f"{paths.shown(locked[0])} cannot be written",
                    "Change its permissions, or set TUTORIAL_MODELS and TUTORIAL_RUNS to folders "
                    "that can be written.",
                )
            )
        elif free < needed:
            checks.append(fail(name, f"{finding}, {needed / GB:.1f} GB needed", remedy))
        elif weights is None:
            checks.append(
                warn(
                    name,
                    f"{finding}; the size of {settings.model.name} is not known",
                    "Make sure that three times the size of its weights is free.",
                )
            )
        else:
            checks.append(ok(name, f"{finding}, {needed / GB:.1f} GB needed"))
    return checks


def check_proxy(settings: Settings) -> Check | None:
    """AutoDL's network_turbo sets a proxy that ModelScope is better reached without.

    None where nothing comes from ModelScope, or no proxy is set. A proxy's address may hold a
    password and is not shown.
    """
    names = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy")]
    set_ones = sorted(name for name in names if os.environ[name])
    hub = settings.model.modelscope or settings.profile.data.source == "math10k"
    if not hub or not set_ones:
        return None
    return warn(
        "proxy",
        f"{', '.join(set_ones)} set, perhaps by network_turbo, which slows ModelScope down",
        f"Run 'unset {' '.join(set_ones)}' before downloading from ModelScope, unless this is "
        "the only way out of your network.",
    )


# ---- all of it -----------------------------------------------------------------------------------


def _only_warn(check: Check) -> Check:
    """Return a check of something that this run does not use: what it finds is no failure."""
    return replace(check, status=Status.WARN) if check.status is Status.FAIL else check


def _device_checks(
    settings: Settings, seen: Probe, answer: npu_smi.Info | Exception | None
) -> list[Check]:
    """Return the checks of the device that the profile trains on, once torch can be imported."""
    device = settings.profile.device
    if device == "cpu":
        return [check_nf4(device, seen)]
    checks = [check_device(device, seen)]
    # [an estimate] LLaMA-Factory's README says 16 GB for LoRA on a 7B model, batch 1 and short
    # texts; the tutorial's are longer.
    weights = weights_bytes(settings)
    needed = None if weights is None else 1.25 * weights + 2 * GB
    if device == "npu" and answer is not None:
        checks.append(_npu_memory_check(seen, answer, needed))
    elif seen.cards:
        checks.append(check_device_memory(seen.free, seen.total, needed))
    if seen.cards and not seen.device_fault:
        checks.append(check_bf16(seen))
    if seen.cards:
        checks.append(check_nf4(device, seen))
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
    device = settings.profile.device
    seen = ask(device)
    pinned, found = pins(LOCK), all_installed()
    checks = [
        host.check_python(),
        *check_packages(pinned, {package: found.get(package) for package in PACKAGES}),
        check_lock(pinned, found),
        check_deepspeed(),
    ]
    answer = None
    if device == "npu" or cards.is_ascend_host():
        answer = host.ask_npu_smi()
        below = _npu_checks(root, seen, answer)
        checks += below if device == "npu" else [_only_warn(check) for check in below]
    checks.append(check_torch(seen))
    if seen.torch:
        checks += _device_checks(settings, seen, answer)
    checks += [check_memory(settings, root), *check_disks(settings)]
    checks += [check for check in (host.check_data_disk(root), check_proxy(settings)) if check]
    checks.append(check_swanlab())
    return checks
