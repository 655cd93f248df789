"""What can be said of a machine with nothing but Python: its Ascend driver, CANN, its data disk.

Nothing here needs a package, so the doctor can say this much where .venv is missing or broken.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from helpers.ground import paths
from helpers.ground.words import series, tr, trn
from helpers.machine import cann, cards, generations, npu_smi
from helpers.programs import faults


class Status(StrEnum):
    """How a check ended. Only FAIL keeps a run from working."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"

    @property
    def word(self) -> str:
        """What readers see."""
        words = {Status.OK: tr("OK"), Status.WARN: tr("WARN"), Status.FAIL: tr("FAIL")}
        return words[self]


@dataclass(frozen=True)
class Check:
    """One line of the doctor's list; `remedy` is one sentence, empty where nothing is to do."""

    name: str
    status: Status
    finding: str
    remedy: str = ""


def ok(name: str, finding: str) -> Check:
    return Check(name, Status.OK, finding)


def warn(name: str, finding: str, remedy: str) -> Check:
    return Check(name, Status.WARN, finding, remedy)


def fail(name: str, finding: str, remedy: str) -> Check:
    return Check(name, Status.FAIL, finding, remedy)


def failed(checks: Sequence[Check]) -> bool:
    """Return whether a check found something that keeps a run from working."""
    return any(check.status is Status.FAIL for check in checks)


def check_python() -> Check:
    """Is this a Python that the lock of this machine is for."""
    name = tr("Python")
    version = ".".join(map(str, sys.version_info[:3]))
    pythons = generations.pythons(ascend=bool(cards.npu_device_files()))
    if ".".join(map(str, sys.version_info[:2])) in pythons:
        return ok(name, version)
    return fail(
        name,
        tr("{version}, and the lock is for {pythons}", version=version, pythons=series(pythons)),
        tr("Install Python 3.11 and run 'make setup PYTHON=/path/to/python3.11'."),
    )


def check_visible_devices(value: str | None) -> Check:
    """ASCEND_RT_VISIBLE_DEVICES: torch_npu sees no card unless it ascends strictly."""
    name = "ASCEND_RT_VISIBLE_DEVICES"
    if value is None:
        return ok(name, tr("not set: every card is visible"))
    numbers = [part.strip() for part in value.split(",")]
    if all(re.fullmatch(r"[0-9]+", number) for number in numbers):
        order = [int(number) for number in numbers]
        if order == sorted(set(order)):
            return ok(name, value)
    return fail(
        name,
        tr("{value!r} is not a list of ascending numbers, so torch_npu sees no card", value=value),
        tr(
            "Run 'export ASCEND_RT_VISIBLE_DEVICES=0' (or 'unset ASCEND_RT_VISIBLE_DEVICES') and "
            "start JupyterLab again from that shell."
        ),
    )


def _check_cards(name: str, version: str | None, info: npu_smi.Info) -> Check:
    """The cards that npu-smi lists, and what it says of their health."""
    finding = tr(
        "{version}; npu-smi shows {count} x {card}",
        version=version or info.version,
        count=len(info.cards),
        card=info.cards[0].name or tr("unnamed NPU"),
    )
    ill = [
        tr("{name}: {value}", name=f"NPU {card.npu_id}", value=card.health)
        for card in info.cards
        if card.health != "OK"
    ]
    if not ill:
        return ok(name, finding)
    return warn(
        name,
        tr("{finding}; health: {ill}", finding=finding, ill=series(ill)),
        tr("Look the fault up with 'npu-smi info -t health -i ID', or rent another machine."),
    )


def check_driver(root: Path, answer: npu_smi.Info | Exception) -> Check:
    """The Ascend driver: its version file, and whether npu-smi answers.

    Args:
        root: the root of the file system.
        answer: what npu_smi.query returned or raised.
    """
    name = tr("Ascend driver")
    version = cann.driver_version(root)
    if isinstance(answer, npu_smi.Info):
        return _check_cards(name, version, answer)
    if isinstance(answer, FileNotFoundError):
        if version:
            return warn(
                name,
                tr("{version}, but there is no npu-smi", version=version),
                tr("Add the folder of npu-smi (often /usr/local/bin or /usr/local/sbin) to PATH."),
            )
        return fail(
            name,
            tr("no driver and no npu-smi"),
            tr(
                "Rent a machine with an Ascend NPU and an Ascend image, or use PROFILE=cuda or cpu."
            ),
        )
    if isinstance(answer, subprocess.TimeoutExpired):
        return fail(
            name,
            tr("npu-smi did not answer within {seconds:.0f} s", seconds=answer.timeout),
            tr(
                "The driver hangs: restart the machine, and if that does not help rent another one."
            ),
        )
    output = getattr(answer, "output", "")
    known = faults.recognise(output)
    if known:
        return fail(name, output.strip().splitlines()[-1], known.sentence)
    return warn(
        name,
        tr("npu-smi's answer cannot be read ({reason})", reason=answer),
        tr("Look at 'npu-smi info' yourself: free memory and its holders are not checked here."),
    )


def check_cann(root: Path) -> Check:
    """Is CANN there, is there a set-up for it, and does this host's driver carry it."""
    found = cann.installations(root)
    version, driver = next(iter(found.values()), None), generations.driver_version(root)
    finding = series(
        tr("{what} ({detail})", what=version, detail=path) for path, version in found.items()
    )
    if version is None:
        finding = tr("not found under /usr/local/Ascend, or not readable by this user")
    elif driver:
        finding = tr("{found}, on driver {driver}", found=finding, driver=driver)
    if reason := generations.fault(version, driver):
        return fail("CANN", finding, reason)
    assert version
    doubt = generations.doubt(version, driver)
    return warn("CANN", finding, doubt) if doubt else ok("CANN", finding)


def check_set_env(root: Path) -> Check:
    """Was CANN's set_env.sh sourced in the shell that started this."""
    name = "set_env.sh"
    home = cann.home_in_use(os.environ)
    if both := cann.mixed(os.environ):
        return fail(
            name,
            tr("two CANNs are mixed: {folders}", folders=series(both)),
            tr("Open a new shell, source one set_env.sh alone, and start this again from there."),
        )
    if home and Path(home).is_dir():
        return ok(name, tr("sourced: ASCEND_HOME_PATH={folder}", folder=home))
    script = cann.set_env_script(root)
    if script:
        remedy = tr(
            "Run 'source {script}' and start this again, JupyterLab included, from that shell (the "
            "line fits into ~/.bashrc).",
            script=script,
        )
    else:
        remedy = tr("Install CANN, source its set_env.sh and start this again from that shell.")
    if home:
        return fail(name, tr("ASCEND_HOME_PATH={folder} does not exist", folder=home), remedy)
    return fail(name, tr("not sourced: ASCEND_HOME_PATH is not set"), remedy)


def ask_npu_smi() -> npu_smi.Info | Exception:
    """Return what npu-smi shows, or what kept it from being asked."""
    try:
        return npu_smi.query()
    except (FileNotFoundError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired) as error:
        return error


def check_data_disk(root: Path) -> Check | None:
    """On AutoDL (None elsewhere): do models and runs lie on the data disk.

    Its system disk holds 30 GB, which conda and one 7B model fill.
    """
    name = tr("AutoDL data disk")
    disk = root / "root/autodl-tmp"
    if not disk.is_dir():
        return None
    if not os.path.ismount(disk):
        return warn(
            name,
            tr("/root/autodl-tmp is not mounted, so it lies on the 30 GB system disk"),
            tr("Restart the machine from AutoDL's console, or ask its support for the data disk."),
        )
    others = (disk, root / "root/autodl-fs")
    astray = [
        str(folder)
        for folder in (paths.MODELS, paths.RUNS)
        if not any(folder.is_relative_to(other.resolve()) for other in others)
    ]
    if astray:
        return warn(
            name,
            trn(
                "this folder would lie on the 30 GB system disk: {folders}",
                "these folders would lie on the 30 GB system disk: {folders}",
                len(astray),
                folders=series(astray),
            ),
            tr(
                "Run 'export TUTORIAL_MODELS=/root/autodl-tmp/models "
                "TUTORIAL_RUNS=/root/autodl-tmp/runs', or clone the repository into "
                "/root/autodl-tmp."
            ),
        )
    return ok(name, tr("models and runs lie on it"))


# ---- without packages ----------------------------------------------------------------------------


def examine(error: ImportError, profile: str, root: Path = Path("/")) -> list[Check]:
    """Check what can be checked without packages, and say that they are missing.

    Args:
        error: what kept the packages from being imported.
        profile: the profile asked for; empty if none was.
        root: the root of the file system (tests give a made-up one).
    """
    found = [
        check_python(),
        fail(
            tr("packages"),
            tr(
                "{python} cannot import what the tutorial needs: {error}",
                python=sys.executable,
                error=error,
            ),
            tr(
                "Run 'make setup' (if that does not mend it, 'make clean setup'), then 'make "
                "doctor' again: the other checks need the packages."
            ),
        ),
    ]
    if profile == "npu" or (not profile and cards.is_ascend_host()):
        found += [
            check_driver(root, ask_npu_smi()),
            check_cann(root),
            check_set_env(root),
            check_visible_devices(os.environ.get("ASCEND_RT_VISIBLE_DEVICES")),
        ]
    disk = check_data_disk(root)
    return found + ([disk] if disk else [])


def not_importable(error: ImportError) -> str:
    """Return the sentence for a package that is missing or broken, or has gone meanwhile."""
    return tr(
        "{python} cannot import what the tutorial needs ({error}): run 'make setup' (if that "
        "does not mend it, 'make clean setup'), then this again.",
        python=sys.executable,
        error=error,
    )


def without_packages(error: ImportError, arguments: Sequence[str]) -> int:
    """Do what `python -m helpers` can do where packages are missing; return its exit code, 1.

    Args:
        error: what kept the packages from being imported.
        arguments: the command line.
    """
    if "doctor" not in arguments:
        print(not_importable(error), file=sys.stderr)
        return 1
    words = [*arguments, f"--profile={os.environ.get('TUTORIAL_PROFILE', '')}"]
    profile = re.search(r"--profile[ =](\w*)", " ".join(words))
    for check in examine(error, profile[1] if profile else ""):
        print(f"{check.status.word:5}{check.name}: {check.finding}")
        if check.remedy:
            print(f"     {check.remedy}")
    return 1
