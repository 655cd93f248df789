"""Where CANN lies on this machine and which version it is, in both layouts; and the driver's.

Only the standard library is imported: the doctor asks where packages are missing.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


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
    if home := home_in_use(os.environ):
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
    """Return the set_env.sh to source, of either layout; that of the CANN in use goes first.

    Args:
        root: the root of the file system.
    """
    ascend = root / "usr/local/Ascend"
    scripts = [ascend / "cann/set_env.sh", ascend / "ascend-toolkit/set_env.sh"]
    scripts += sorted(ascend.glob("cann-*/set_env.sh"), reverse=True)
    if home := home_in_use(os.environ):
        scripts[:0] = [Path(home) / "set_env.sh", Path(home).parent / "set_env.sh"]
    return next((script for script in scripts if script.is_file()), None)


def mixed(env: Mapping[str, str]) -> list[Path]:
    """Return the CANN folders whose libraries an environment loads, where they are more than one.

    Two set_env.sh that were sourced in one shell leave that behind; which is used is then chance.
    """
    found: list[Path] = []
    for folder in map(Path, filter(None, env.get("LD_LIBRARY_PATH", "").split(":"))):
        for home in folder.parents:
            with suppress(OSError):
                if _is_toolkit(home) and home.resolve() not in found:
                    found.append(home.resolve())
                    break
    return found if len(found) > 1 else []


def _is_toolkit(folder: Path) -> bool:
    """Return whether a folder is a CANN's own; its driver's and its extra libraries' are none."""
    info = any(folder.glob("*-linux/ascend_toolkit_install.info"))
    return info or re.fullmatch(r"cann-\d.*", folder.resolve().name) is not None


def home_in_use(env: Mapping[str, str]) -> str | None:
    """Return the CANN folder that an environment names, as set_env.sh leaves it."""
    return env.get("ASCEND_HOME_PATH") or env.get("ASCEND_TOOLKIT_HOME")


_PLAIN = {"PATH": "/usr/local/bin:/usr/bin:/bin"}  # of the shell that sources set_env.sh
_MARK = "/somebody/else"


@dataclass(frozen=True)
class Setting:
    """What set_env.sh does to one variable: a value, or folders that it adds to a list."""

    value: str
    adds: bool


def _sourced(script: Path, env: Mapping[str, str]) -> dict[str, str]:
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", 'source "$0" >/dev/null 2>&1; env -0', str(script)],
        env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    pairs = (entry.partition("=") for entry in done.stdout.decode("utf-8", "replace").split("\0"))
    # bash's own are none of its business.
    return {
        name: value for name, _, value in pairs if name not in ("", "_", "OLDPWD", "PWD", "SHLVL")
    }


def _folders(value: str) -> list[str]:
    return [folder for folder in value.split(":") if folder]


def settings_of(script: Path) -> dict[str, Setting]:
    """Return what a set_env.sh sets, found out by sourcing it twice in a shell with nothing in it.

    The second time every variable is set already: what is still there behind what the script put
    before it, the script adds to.

    Args:
        script: CANN's set_env.sh.
    """
    first = _sourced(script, _PLAIN)
    before = {name: _PLAIN.get(name, "") + f":{_MARK}" for name in first}
    second = _sourced(script, before)
    found = {}
    for name, value in first.items():
        theirs = [folder for folder in _folders(value) if folder not in _folders(before[name])]
        if value == _PLAIN.get(name):
            continue
        adds = _MARK in _folders(second.get(name, ""))
        found[name] = Setting(":".join(theirs) if adds else value, adds)
    return found


def changes(settings: Mapping[str, Setting], env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set so that an environment has CANN's as well; its own ones win.

    Nothing is changed where the environment names a CANN: two of them must not be mixed.

    Args:
        settings: what set_env.sh sets.
        env: what a reader's shell, or a server, has set already.
    """
    if home_in_use(env):
        return {}
    changed = {}
    for name, setting in settings.items():
        own = _folders(env.get(name, ""))
        if setting.adds:
            more = [folder for folder in _folders(setting.value) if folder not in own]
            changed[name] = ":".join([*own, *more])
        elif not env.get(name):
            changed[name] = setting.value
    return changed
