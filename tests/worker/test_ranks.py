"""How a process of several ends: where its work has, if that went well."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TAKEN_DOWN = 77
# Python is taken down after what was registered has run: then this object ends the process.
SCRIPT = """
import atexit, os, sys
from torch import distributed
from helpers.worker import ranks

class Kept:
    def __del__(self, end=os._exit):
        end(77)

kept = Kept()
{mend}
atexit.register(print, "registered")
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
{work}
distributed.destroy_process_group()
{rest}
"""
MEND = "ranks.mend_ending()"


def ended(mend: str = MEND, work: str = "", rest: str = "") -> tuple[int, str, str]:
    """Return how a process ends, the last line that it prints, and what it says of an error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(mend=mend, work=work, rest=rest)],
        capture_output=True, text=True, check=False, env=os.environ | {"RANK": "0"},
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines()[-1], done.stderr


def test_python_is_not_taken_down_in_a_process_that_has_left_its_group() -> None:
    assert ended(mend="")[0] == TAKEN_DOWN
    code, out, _ = ended()
    assert (code, out) == (0, "registered")


@pytest.mark.parametrize("where", ["work", "rest"])
def test_an_error_still_fails_it(where: str) -> None:
    code, out, err = ended(**{where: "raise ValueError('an error of the work')"})
    assert (code, out) == (TAKEN_DOWN, "registered")
    assert "an error of the work" in err


def test_a_group_of_some_processes_is_not_the_end() -> None:
    some = "distributed.destroy_process_group(distributed.new_group([0]))"
    code, _, err = ended(work=f"{some}; raise SystemExit")
    assert code == TAKEN_DOWN, err


def test_a_process_by_itself_ends_as_ever() -> None:
    env = dict(os.environ)
    env.pop("RANK", None)
    done = subprocess.run(
        [sys.executable, "-c", "from helpers.worker import ranks; import torch.distributed as d\n"
         "d_before = d.destroy_process_group; ranks.mend_ending()\n"
         "print(d.destroy_process_group is d_before)"],
        capture_output=True, text=True, check=True, env=env,
    )  # fmt: skip
    assert done.stdout == "True\n"
