"""The generations of CANN: the torch and torch_npu that belong to each, and the driver it needs.

compatibility.toml holds the table; `make lock` makes a lock of each generation from it
(`python -m helpers.machine.generations lines` prints it for the Makefile). Only the standard
library is imported: the set-up asks where packages are missing.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr
from helpers.machine import cann, npu_smi

_TABLE = Path(__file__).with_name("compatibility.toml")
MAIN_LOCK = paths.ROOT / "requirements.lock"
NPU_ARCHITECTURE = "aarch64"  # torch_npu for x86_64 wants a torch that PyPI does not have


@dataclass(frozen=True)
class Generation:
    """One generation of CANN, "8.5" say, and what goes with it.

    `driver` is the oldest that is said to carry it, "25.0" say; None: nothing is said.
    """

    cann: str
    torch: str
    torchvision: str
    torchaudio: str
    torch_npu: str
    driver: str | None = None

    @property
    def lock(self) -> Path:
        """Every package of a set-up on such a machine, for aarch64."""
        return paths.ROOT / f"requirements-npu-{self.cann}.lock"

    @property
    def pins(self) -> dict[str, str]:
        """The packages that the generation decides, and their versions."""
        return {
            "torch": self.torch,
            "torchvision": self.torchvision,
            "torchaudio": self.torchaudio,
            "torch-npu": self.torch_npu,
        }


@cache
def _table() -> dict[str, object]:
    return tomllib.loads(_TABLE.read_text("utf-8"))


@cache
def generations() -> tuple[Generation, ...]:
    """Return the generations that there are locks for, oldest first."""
    return tuple(Generation(**entry) for entry in _table()["generations"])  # type: ignore[attr-defined]


def torch_npu_versions(cann_version: str) -> tuple[str, ...]:
    """Return every torch_npu that goes with a version of CANN; none where it is not listed.

    Later releases of the same CANN ("8.5.2") take what its first one takes.

    Args:
        cann_version: as CANN spells it; "8.2.rc1" is "8.2.RC1".
    """
    table: dict[str, list[str]] = _table()["torch_npu_of_cann"]  # type: ignore[assignment]
    exact = table.get(cann_version.upper())
    release = _release(cann_version)
    same = (listed for known, listed in table.items() if release == _release(known))
    return tuple(exact or next(same, ()))


def canns_of(torch_npu: str) -> list[str]:
    """Return the versions of CANN that a torch_npu goes with, newest first."""
    table: dict[str, list[str]] = _table()["torch_npu_of_cann"]  # type: ignore[assignment]
    return [version for version, listed in table.items() if torch_npu in listed]


def pythons(ascend: bool) -> tuple[str, ...]:
    """Return the versions of Python that the lock is for ("3.11"), those of Ascend hosts or else.

    Args:
        ascend: whether torch_npu has to be installed.
    """
    return tuple(_table()["python"]["ascend" if ascend else "others"])  # type: ignore[index]


def _release(version: str) -> tuple[int, int]:
    """Return (8, 5) of "8.5.2", (24, 1) of "24.1.rc3"; (0, 0) of what is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def of_cann(version: str) -> tuple[Generation | None, bool]:
    """Return the generation to take for a version of CANN, and whether it is that CANN's own.

    It is the nearest one below where there is none; None: this CANN is older than all.
    """
    below = [one for one in generations() if _release(one.cann) <= _release(version)]
    if not below:
        return None, False
    return below[-1], _release(below[-1].cann) == _release(version)


def carries(driver: str, generation: Generation) -> bool | None:
    """Return whether a driver carries a generation of CANN; None: nothing is said of it.

    A driver that carries a later generation carries this one.
    """
    later = generations()[generations().index(generation) :]
    stated = next(one.driver for one in later if one.driver)
    if _release(driver) >= _release(stated):
        return True
    return False if generation.driver else None


def carried(driver: str) -> list[str]:
    """Return the generations of CANN that a driver is said to carry, oldest first."""
    return [one.cann for one in generations() if carries(driver, one)]


def driver_version(root: Path) -> str | None:
    """Return the driver's version, from its file or else npu-smi's; None: neither is there."""
    try:
        return cann.driver_version(root) or npu_smi.query().version
    except (OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
        return None


# ---- what to say ---------------------------------------------------------------------------------


def ways(driver: str | None) -> str:
    """Return the ways to a CANN that fits, as one clause that names this host's driver.

    Args:
        driver: its version, or None.
    """
    newest = generations()[-1].driver
    fitting = [one.cann for one in generations()] if driver is None else carried(driver)
    if not fitting:
        return tr(
            "choose a host whose driver is {newest} or later (this host's is {driver}, of which it "
            "is not said that it carries CANN {oldest} or later)",
            newest=newest,
            driver=driver,
            oldest=generations()[0].cann,
        )
    versions = series(fitting)
    which = (
        tr("one of CANN {versions}", versions=versions)
        if driver is None
        else tr(
            "a CANN that this host's driver {driver} carries ({versions})",
            driver=driver,
            versions=versions,
        )
    )
    if len(fitting) == len(generations()):
        return tr(
            "take an image with {which}, or install one on the data disk (pip: "
            "ascend-cann-toolkit and ascend-cann-910b-ops; conda: ascend::cann-toolkit and "
            "ascend::cann-910b-ops; or the .run with --install-path), source its set_env.sh in a "
            "shell that has sourced no other, and run 'make setup' from there",
            which=which,
        )
    return tr(
        "choose a host whose driver is {newest} or later, or take an image with {which}, or "
        "install one on the data disk (pip: ascend-cann-toolkit and ascend-cann-910b-ops; conda: "
        "ascend::cann-toolkit and ascend::cann-910b-ops; or the .run with --install-path), source "
        "its set_env.sh in a shell that has sourced no other, and run 'make setup' from there",
        newest=newest,
        which=which,
    )


def fault(cann_version: str | None, driver: str | None) -> str | None:
    """Return why there is no set-up for a machine, in one sentence; None: there is one.

    Args:
        cann_version: of the CANN in use, or None.
        driver: the driver's version, or None.
    """
    facts = {"cann": cann_version, "ways": ways(driver)}
    if cann_version is None:
        return tr("No CANN was found: {ways}.", **facts)
    generation, _ = of_cann(cann_version)
    if generation is None:
        oldest = generations()[0].cann
        return tr(
            "CANN {cann} is older than {oldest}, the oldest that there is a lock for: {ways}.",
            oldest=oldest,
            **facts,
        )
    if driver and carries(driver, generation) is False:
        return tr("This host's driver does not carry CANN {cann}: {ways}.", **facts)
    return None


def doubt(cann_version: str, driver: str | None) -> str | None:
    """Return what is not certain of a set-up that there is, in one sentence; None: nothing.

    Args:
        cann_version: of the CANN in use.
        driver: the driver's version, or None.
    """
    generation, own = of_cann(cann_version)
    assert generation
    if not own:
        return tr(
            "CANN {cann} has no lock of its own: torch_npu {torch_npu} is taken, which belongs to "
            "CANN {below}, the nearest one below.",
            cann=cann_version,
            torch_npu=generation.torch_npu,
            below=generation.cann,
        )
    if driver and carries(driver, generation) is None:
        return tr(
            "Nothing is known of CANN {cann} on driver {driver}: if the card cannot be used, "
            "{ways}.",
            cann=cann_version,
            driver=driver,
            ways=ways(driver),
        )
    return None


# ---- the set-up's questions ----------------------------------------------------------------------


def cann_in_use(root: Path) -> str | None:
    """Return the version of the CANN that this environment names, else of one that is there."""
    return next(iter(cann.installations(root).values()), None)


def lock(root: Path) -> Path | None:
    """Return the lock for an Ascend host; None: there is none for it (`check` says why).

    Args:
        root: the root of the file system.
    """
    version = cann_in_use(root)
    generation = of_cann(version)[0] if version else None
    return generation.lock if generation else None


def check(root: Path, architecture: str | None = None) -> str | None:
    """Return what is not certain of this Ascend host's set-up, in one sentence; None: nothing.

    Args:
        root: the root of the file system.
        architecture: as `uname -m` has it; this machine's if None.

    Raises:
        TutorialError: there is no set-up for this host.
    """
    if (architecture or platform.machine()) != NPU_ARCHITECTURE:
        raise TutorialError(
            tr(
                "On an x86_64 host torch_npu wants a torch that PyPI does not have: choose a host "
                "with an Ascend and Kunpeng processors (aarch64), as AutoDL's are."
            )
        )
    version, driver = cann_in_use(root), driver_version(root)
    if reason := fault(version, driver):
        raise TutorialError(reason)
    assert version
    return doubt(version, driver)


def lines() -> str:
    """Return the table for `make lock`: a line each of a generation and its pins."""
    found = []
    for one in generations():
        pins = [f"{name}=={version}" for name, version in one.pins.items()]
        found.append(" ".join([one.lock.name, *pins]))
    return "\n".join(found)


if __name__ == "__main__":
    print(lines() if sys.argv[1:] == ["lines"] else "")
