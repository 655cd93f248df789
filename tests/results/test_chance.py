"""Intervals and tests against figures worked out elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.results import chance


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


def test_holms_correction() -> None:
    # By hand (Holm 1979): sorted, times 3, 2 and 1, never below the one before, at most 1.
    assert chance.holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert chance.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert chance.holm([0.03]) == [0.03]
    assert chance.holm([]) == []


def test_a_notebook_that_trains_waits_for_no_library_that_it_does_not_use() -> None:
    """Its kernel only waits, so it loads neither torch nor what reads, tests and draws figures."""
    code = (
        "import sys; from helpers.results import checks, comparison, comparison_tables, figures, "
        "mechanism, tables, verdict;"
        "heavy = ('torch', 'pyarrow', 'scipy', 'statsmodels', 'matplotlib', 'transformers');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
