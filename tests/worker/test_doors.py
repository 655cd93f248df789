"""What a .venv made before loads by its old names: a vanished one would break bitsandbytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import frozen_weights, npu_4bit
from helpers.worker import callback
from helpers.worker import npu_4bit as kernels


def test_the_old_names_lead_to_what_is_registered_today() -> None:
    assert frozen_weights.register is callback.register
    assert npu_4bit.register is kernels.register


@pytest.mark.parametrize(
    ("values", "works"),
    [
        (("helpers.npu_4bit:register", "helpers.frozen_weights:register"), True),
        (("helpers.vanished:register",), False),
    ],
)
def test_bitsandbytes_is_imported_with_the_entry_points_of_a_venv_made_before(
    tmp_path: Path, values: tuple[str, ...], works: bool
) -> None:
    package = tmp_path / "tutorial-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: tutorial\nVersion: 1\n")
    lines = [f"own-{place} = {value}\n" for place, value in enumerate(values)]
    (package / "entry_points.txt").write_text("[bitsandbytes.backends]\n" + "".join(lines))
    env = os.environ | {"PYTHONPATH": str(tmp_path), "TUTORIAL_EVENTS": str(tmp_path / "events")}
    code = (
        "import bitsandbytes; from transformers import trainer; "
        "print([c.__name__ for c in trainer.DEFAULT_CALLBACKS].count('Events'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == works, done.stderr
    if works:  # by the old name and by today's: what happens is told once
        assert done.stdout.split()[-1] == "1"
