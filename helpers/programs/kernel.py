"""The notebooks' kernel: registered for this user, so that any JupyterLab or VS Code finds it.

Every checkout registers under the one name that the notebooks carry. What is registered is no
Python but a launcher (kernel.sh): it starts the kernel of the checkout in which the notebook lies,
so two checkouts never take each other's. The same name is registered inside .venv as well, for
papermill, nbval and the project's own JupyterLab on machines where nothing is, or can be,
registered for the user.

The kernel starts with the environment of the CANN that the set-up chose, for LD_LIBRARY_PATH comes
too late in a process that runs. Only the standard library is imported, but for the registration:
`make clean` takes it back where .venv is broken.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.words import tr
from helpers.machine import cann

NAME = "lora-against-qlora"
LABEL = "LoRA against QLoRA"
_LAUNCHER = Path(__file__).with_name("kernel.sh")
_VENV = paths.ROOT / ".venv"
_CANN = "cann.json"  # in .venv: what the set_env.sh of the chosen CANN sets
# In .venv, written last: the kernel can be started. It holds where it was registered for the user.
_STAMP = ".kernel"
_CHECKOUTS = "checkouts"  # in what is registered for the user: one line a checkout


def _specification(argv: list[str]) -> dict[str, Any]:
    from ipykernel.kernelspec import get_kernel_dict

    return get_kernel_dict() | {"argv": argv, "display_name": LABEL}


def _put(file: Path, text: str) -> None:
    """Write a file as a whole: a kernel may be starting from it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(file)


def _checkouts(folder: Path) -> list[str]:
    """Return the checkouts that a registration serves, those that are gone left out."""
    try:
        lines = (folder / _CHECKOUTS).read_text("utf-8").splitlines()
    except OSError:
        return []
    return [line for line in lines if (Path(line) / ".venv" / _STAMP).is_file()]


def _keep_checkouts(folder: Path, checkouts: Iterable[str]) -> None:
    _put(folder / _CHECKOUTS, "".join(f"{line}\n" for line in checkouts))


def _register_for_user(folder: Path) -> None:
    others = [line for line in _checkouts(folder) if line != str(paths.ROOT)]
    _put(folder / _LAUNCHER.name, _LAUNCHER.read_text("utf-8"))
    _keep_checkouts(folder, [str(paths.ROOT), *others])
    argv = ["/bin/sh", str(folder / _LAUNCHER.name), "{connection_file}"]
    _put(folder / "kernel.json", json.dumps(_specification(argv), indent=1))


def register(venv: Path = _VENV, root: Path = Path("/")) -> None:
    """Register this checkout's kernel, in its .venv and for this user, and keep CANN's settings.

    Args:
        venv: the environment of this checkout.
        root: the root of the file system in which CANN is looked for.
    """
    from jupyter_core.paths import jupyter_data_dir

    script = cann.set_env_script(root)
    settings = cann.settings_of(script) if script else {}
    kept = {name: asdict(setting) for name, setting in settings.items()}
    _put(venv / _CANN, json.dumps({"script": str(script or ""), "settings": kept}, indent=1))
    own = venv / "share/jupyter/kernels" / NAME / "kernel.json"
    python = str(venv / "bin/python")
    argv = [python, "-P", "-m", "helpers.programs.kernel", "start", "{connection_file}"]
    _put(own, json.dumps(_specification(argv), indent=1))
    folder = Path(jupyter_data_dir()) / "kernels" / NAME
    try:
        _register_for_user(folder)
    except OSError as error:
        print(
            tr(
                "The notebooks' kernel could not be registered in {folder} ({reason}): open them "
                "with 'make lab', or choose the kernel {python} yourself.",
                folder=folder,
                reason=error.strerror,
                python=python,
            )
        )
    _put(venv / _STAMP, f"{folder}\n")


def unregister(venv: Path = _VENV) -> None:
    """Take this checkout's registration back; what serves another checkout as well stays for it.

    Args:
        venv: the environment of this checkout.
    """
    try:
        folder = Path((venv / _STAMP).read_text("utf-8").strip())
        (venv / _STAMP).unlink()
    except OSError:
        return  # nothing was registered
    others = [line for line in _checkouts(folder) if line != str(paths.ROOT)]
    if others:
        _keep_checkouts(folder, others)
    elif folder.name == NAME:
        shutil.rmtree(folder, ignore_errors=True)


def cann_changes(venv: Path = _VENV) -> dict[str, str]:
    """Return the variables that give this process the environment of the CANN chosen at set-up.

    Args:
        venv: the environment of this checkout.
    """
    try:
        kept = json.loads((venv / _CANN).read_text("utf-8"))
        settings = {name: cann.Setting(**fields) for name, fields in kept["settings"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not Path(kept["script"]).is_file():  # that CANN has gone since
        return {}
    return cann.changes(settings, os.environ)


def start(connection_file: str, venv: Path = _VENV) -> None:
    """Become the kernel.

    Args:
        connection_file: as Jupyter hands it over.
        venv: the environment of this checkout.
    """
    os.environ.update(cann_changes(venv))
    # As `activate` does: a server in another environment has left its own here, which IPython
    # would put before this one's packages.
    os.environ["VIRTUAL_ENV"] = str(venv)
    os.environ["PATH"] = f"{venv / 'bin'}:{os.environ.get('PATH', os.defpath)}"
    os.environ.pop("PYTHONHOME", None)
    # A notebook may lie elsewhere: those that a headless run has executed lie in its folder.
    found = f"__import__('sys').path.append({str(paths.NOTEBOOKS)!r})"
    python = str(venv / "bin/python")
    options = {"exec_lines": found, "kernel_class": "helpers.programs.pages.Kernel"}
    words = [f"--IPKernelApp.{name}={value}" for name, value in options.items()]
    os.execv(python, [python, "-m", "ipykernel_launcher", "-f", connection_file, *words])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start", file]:
            start(file)
        case ["unregister"]:
            unregister()
        case _:
            # A set-up in a shell that names no CANN keeps to the one that was chosen before.
            os.environ.update(cann_changes())
            register()
