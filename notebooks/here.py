"""Leads a notebook to the tutorial, or says in one sentence why this Python cannot.

Whichever Python a kernel is, it finds this file: it lies beside the notebooks. So only the standard
library is used until it is known that the rest is there, and both languages stand here, because
the catalogues are a part of the rest. Scripts write `from helpers import Tutorial`.
"""
# ruff: noqa: RUF001

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# "Run all" sends its cells one by one. A kernel drops those that have come before one fails; what
# comes later, as over a slow line, it runs, each with an error of its own.
SECONDS_UNTIL_ALL_CELLS_ARE_SENT = 3


class WrongPython(Exception):
    """Shows itself as its sentence: no reader needs a traceback to choose a kernel."""

    def _render_traceback_(self):
        return str(self).splitlines()


def _fits() -> bool:
    """Return whether this Python has the tutorial of this checkout, and what it needs."""
    helpers = find_spec("helpers")
    if helpers is None or helpers.origin is None or find_spec("llamafactory") is None:
        return False
    return Path(helpers.origin).resolve() == ROOT / "helpers" / "__init__.py"


def _sentences() -> str:
    version = "{}.{}.{}".format(*sys.version_info)
    if (ROOT / ".venv" / ".kernel").is_file():
        english = (
            "This is Python {version} ({python}), not the tutorial's own: choose the kernel "
            "'LoRA against QLoRA' (menu Kernel, Change Kernel; reload the page if it is not "
            "listed), then run all cells again."
        )
        chinese = (
            "这里是 Python {version}（{python}），不是本教程自己的环境：请选择内核 "
            "“LoRA against QLoRA”（菜单 Kernel → Change Kernel；列表里没有时请刷新页面），"
            "然后重新运行所有单元格。"
        )
    else:
        english = (
            "This is Python {version} ({python}), and the tutorial is not set up yet: run "
            "'make setup' in {root} in a terminal, then reload this page, choose the kernel "
            "'LoRA against QLoRA' if it asks, and run all cells again."
        )
        chinese = (
            "这里是 Python {version}（{python}），本教程还没有安装：请在终端中进入 {root} 运行 "
            "“make setup”，然后刷新页面，若询问内核请选择 “LoRA against QLoRA”，"
            "再重新运行所有单元格。"
        )
    facts = {"version": version, "python": sys.executable, "root": ROOT}
    return english.format(**facts) + "\n" + chinese.format(**facts)


if not _fits():
    if "ipykernel" in sys.modules:
        time.sleep(SECONDS_UNTIL_ALL_CELLS_ARE_SENT)
    raise WrongPython(_sentences())

from helpers import Tutorial  # noqa: E402

__all__ = ["Tutorial"]
