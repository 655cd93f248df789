"""Intervals and tests against figures worked out elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers import chance


def test_wilsons_interval() -> None:
    # Newcombe (1998), table I: 15 of 148 is 0.0624 to 0.1605, 0 of 20 is 0 to 0.1611.
    assert chance.wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert chance.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_sign_test() -> None:
    assert chance.sign_test(0, 0) == 1.0
    assert chance.sign_test(5, 5) == 1.0
    assert chance.sign_test(10, 1) == pytest.approx(2 * 12 / 2**11)
    assert chance.sign_test(1, 10) == chance.sign_test(10, 1)
    assert chance.sign_test(10, 1, "greater") == pytest.approx(12 / 2**11)
    assert chance.sign_test(1, 10, "greater") > 0.99


def test_a_notebook_that_trains_waits_for_no_library_that_it_does_not_use() -> None:
    """Its kernel only waits, so it loads neither torch nor what reads and tests figures."""
    code = (
        "import sys; from helpers import checks, compare, figures, planner, training, show;"
        "heavy = ('torch', 'pyarrow', 'scipy.stats', 'transformers');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
