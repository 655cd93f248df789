"""The doctor on the 4-bit kernels of an NPU: measured once, kept, and shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import made_up
import npusim
import pytest
from made_up import NPU, seen_by

from helpers.doctor import kernels
from helpers.doctor.host import Status
from helpers.doctor.kernels import Kernels
from helpers.ground import paths

bare_machine, root, ascend = made_up.bare_machine, made_up.root, made_up.ascend
REASON = npusim.available()
PATH = os.environ["PATH"]  # before `bare_machine` empties it: the simulator looks for a compiler


@pytest.mark.parametrize(
    ("seen", "status", "words"),
    [
        (
            Kernels(source="kept", formulation="pairs4", piece=1 << 23, nanoseconds=0.02,
                    default_nanoseconds=0.3),
            Status.OK, "4 bytes, 8.4 million weights at a time: measured on this card, 0.020 ns",
        ),
        (Kernels(source="asked", formulation="pairs8", piece=1 << 20), Status.OK, "8 bytes"),
        (Kernels(source="asked", formulation="default", piece=1 << 20), Status.OK, "default"),
        (Kernels(source="others"), Status.OK, "another package"),
        (Kernels(source="built in", wrong="fast"), Status.FAIL, "TUTORIAL_KERNELS=fast"),
        (
            Kernels(source="built in", formulation="pairs4", piece=1 << 23, fault="NPU function"),
            Status.WARN, "could not be measured",
        ),
    ],
)  # fmt: skip
def test_what_is_found_is_told(seen: Kernels, status: Status, words: str) -> None:
    check = kernels.check(seen)
    assert check.status is status
    assert words in check.finding
    assert bool(check.remedy) == (status is not Status.OK)


def test_the_examination_lists_them_where_an_npu_is(ascend: Path) -> None:
    seen = NPU.model_copy(update={"kernels": Kernels(source="others")})
    assert seen_by("npu", seen, ascend)["4-bit kernels"].status is Status.OK
    assert "4-bit kernels" not in seen_by("npu", NPU, ascend)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_the_probe_measures_once_and_keeps_it(tmp_path: Path) -> None:
    env = npusim.environment(TUTORIAL_RUNS=str(tmp_path), TUTORIAL_KERNELS="", PATH=PATH)

    def probe(**more: str) -> Kernels:
        command = [sys.executable, "-m", "helpers.doctor.probe", "npu"]
        done = subprocess.run(
            command, cwd=paths.ROOT, env=env | more, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Kernels.model_validate(json.loads(done.stdout.splitlines()[-1])["kernels"])

    first, second = probe(), probe()
    assert (first.source, second.source) == ("measured", "kept")
    assert second == first.model_copy(update={"source": "kept"})
    assert first.nanoseconds is not None
    assert first.default_nanoseconds is not None
    assert first.nanoseconds <= first.default_nanoseconds
    (entry,) = json.loads((tmp_path / "kernels_4bit.json").read_text())
    assert "simulated" in entry["holds_for"]["device"]
    assert probe(TUTORIAL_KERNELS="default").source == "asked"
    assert probe(TUTORIAL_KERNELS="quick").wrong == "quick"
