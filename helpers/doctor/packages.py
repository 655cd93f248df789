"""Whether the installed packages are those of the lock."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from helpers.doctor.host import Check, fail, ok, warn
from helpers.doctor.probe import installed
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr, trn
from helpers.machine import cards, generations

# Those that decide what comes out; each is shown with its version.
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "llamafactory",
    "bitsandbytes",
    "modelscope",
    "swanlab",
)
# These damage 4-bit weights on CPUs with AVX512-BF16 when a checkpoint is saved.
_DAMAGING_BITSANDBYTES = SpecifierSet(">=0.49,<0.51", prereleases=True)


def lock_of(root: Path) -> Path:
    """Return the lock that a set-up of this machine installs.

    Args:
        root: the root of the file system.
    """
    return (generations.lock(root) if cards.npu_device_files() else None) or generations.MAIN_LOCK


def pins(lock: Path) -> dict[str, str]:
    """Return the versions that a lock pins for this machine, by package.

    Raises:
        TutorialError: there is no such file.
    """
    try:
        text = lock.read_text("utf-8")
    except FileNotFoundError as error:
        raise TutorialError(
            tr("{path} is missing: restore it with git.", path=paths.shown(lock))
        ) from error
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


def _is(version: str, pinned: str) -> bool:
    """Return whether a version is the pinned one; "+cpu" and the like name a build of it."""
    return version.partition("+")[0] == pinned


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
                fail(
                    package,
                    tr("not installed"),
                    tr("Run 'make setup': it installs {version}.", version=wanted),
                )
            )
        elif _is(version, wanted):
            agreeing.append(f"{package} {version}")
        elif package == "bitsandbytes" and _DAMAGING_BITSANDBYTES.contains(version):
            checks.append(
                fail(
                    package,
                    tr(
                        "{version} damages 4-bit weights on CPUs with AVX512-BF16 when a "
                        "checkpoint is saved",
                        version=version,
                    ),
                    tr("Run 'make setup' to get {version}.", version=wanted),
                )
            )
        else:
            checks.append(
                warn(
                    package,
                    tr("{version}, and the lock has {pinned}", version=version, pinned=wanted),
                    tr("Run 'make setup' to get the version that this was tested with."),
                )
            )
    if agreeing:
        checks.insert(0, ok(tr("packages"), series(agreeing)))
    return checks


def check_lock(pinned: Mapping[str, str], found: Mapping[str, str]) -> Check:
    """Compare the rest of what is installed with the lock: what those packages need in turn.

    Args:
        pinned: the version each package is pinned at.
        found: the version of every package that is installed.
    """
    name = tr("the rest of the lock")
    # torch's CPU build, which the README offers, does without the CUDA libraries.
    cuda = ("nvidia-", "cuda-", "triton") if "+cpu" in found.get("torch", "") else ()
    rest = [one for one in pinned if one not in PACKAGES and not one.startswith(cuda)]
    missing = [one for one in rest if one not in found]
    other = [
        f"{one} {found[one]}" for one in rest if one in found and not _is(found[one], pinned[one])
    ]
    if missing:
        return fail(
            name, tr("not installed: {packages}", packages=_some(missing)), tr("Run 'make setup'.")
        )
    if other:
        return warn(
            name,
            tr("other versions than the lock's: {packages}", packages=_some(other)),
            tr("Run 'make setup' to get the versions that this was tested with."),
        )
    return ok(
        name,
        trn(
            "{n} package, at its pinned version",
            "{n} packages, each at its pinned version",
            len(rest),
        ),
    )


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    shown = series(names[:5])
    more = len(names) - 5
    if more <= 0:
        return shown
    return trn("{names} and {n} more", "{names} and {n} more", more, names=shown)


def check_deepspeed() -> Check:
    """DeepSpeed is not used here, and the article found that it breaks training on an NPU."""
    version = installed("deepspeed")
    if version is None:
        return ok("deepspeed", tr("not installed, as it should be"))
    return warn(
        "deepspeed",
        tr(
            "{version} is installed; it is not used, and it has been seen to break training on "
            "NPUs",
            version=version,
        ),
        tr("Run '.venv/bin/python -m uv pip uninstall deepspeed'."),
    )


def check_namesakes(python_path: str) -> Check | None:
    """Is another package called helpers on PYTHONPATH (None where none is).

    A notebook looks there before it looks into .venv.

    Args:
        python_path: the variable's value.
    """
    ours = paths.ROOT.resolve()
    for folder in map(Path, filter(None, python_path.split(os.pathsep))):
        if folder.resolve() == ours:
            return None
        if (folder / "helpers").is_dir() or (folder / "helpers.py").is_file():
            return warn(
                "PYTHONPATH",
                tr("{folder} holds another package called helpers", folder=folder),
                tr("Run 'unset PYTHONPATH' and start JupyterLab again from that shell."),
            )
    return None


def check_swanlab() -> Check:
    """SwanLab logs to its cloud if a key is set, else to local files. The key is never shown."""
    if os.environ.get("SWANLAB_API_KEY"):
        return ok("SwanLab", tr("cloud: SWANLAB_API_KEY is set"))
    return ok("SwanLab", tr("local mode: no key is set and none is needed"))
