"""Where CANN lies on this machine and which version it is, in both layouts; and the driver's.

Only the standard library is imported: the doctor asks where packages are missing.
"""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path

_COMPATIBILITY = Path(__file__).with_name("compatibility.toml")


@cache
def torch_npu_versions() -> dict[str, tuple[str, ...]]:
    """Return the versions of torch_npu that go with each version of CANN (compatibility.toml)."""
    table = tomllib.loads(_COMPATIBILITY.read_text("utf-8"))["torch_npu_of_cann"]
    return {cann: tuple(versions) for cann, versions in table.items()}


def _version(folder: Path) -> str | None:
    """Return the version of the CANN in a folder, from its install info or its version.cfg."""
    for file in sorted(folder.glob("*-linux/ascend_toolkit_install.info")):
        match = re.search(r"^version\s*=\s*(\S+)", file.read_text("utf-8", "replace"), re.M)
        if match:
            return match[1]
    for file in (folder / "version.cfg", *sorted(folder.glob("*/version.cfg"))):
        if file.is_file():
            text = file.read_text("utf-8", "replace")
            # toolkit_running_version=[7.5.0.1.129:8.0.0]
            match = re.search(r"^toolkit_\w*version=\[(?:[^\]]*:)?([^:\]]+)\]", text, re.M)
            match = match or re.search(r"=\[(?:[^\]]*:)?([^:\]]+)\]", text)
            if match:
                return match[1]
    match = re.fullmatch(r"cann-(\d.*)", folder.resolve().name)
    return match[1] if match else None


def installations(root: Path) -> dict[Path, str]:
    """Return the CANN folders on this machine and their versions, the one in use first.

    A folder that this user may not read is left out: nothing can use it.

    Args:
        root: the root of the file system.
    """
    ascend = root / "usr/local/Ascend"
    folders = [ascend / "cann", *sorted(ascend.glob("cann-*"), reverse=True)]
    folders.append(ascend / "ascend-toolkit/latest")
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    if home:
        folders.insert(0, Path(home))
    found: dict[Path, str] = {}
    for folder in folders:
        version = None
        with suppress(PermissionError):
            version = _version(folder) if folder.is_dir() else None
        if version and folder.resolve() not in {known.resolve() for known in found}:
            found[folder] = version
    return found


def driver_version(root: Path) -> str | None:
    """Return the version of the Ascend driver, or None where none is installed.

    Args:
        root: the root of the file system.
    """
    try:
        text = (root / "usr/local/Ascend/driver/version.info").read_text("utf-8", "replace")
    except OSError:
        return None
    match = re.search(r"^Version\s*=\s*(\S+)", text, re.M)
    return match[1] if match else None


def set_env_script(root: Path) -> Path | None:
    """Return the set_env.sh to source, of either layout."""
    ascend = root / "usr/local/Ascend"
    scripts = [ascend / "cann/set_env.sh", ascend / "ascend-toolkit/set_env.sh"]
    scripts += sorted(ascend.glob("cann-*/set_env.sh"), reverse=True)
    return next((script for script in scripts if script.is_file()), None)
