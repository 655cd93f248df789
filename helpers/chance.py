"""How far luck could have moved a score: an interval for one, a test for two."""

from __future__ import annotations

from typing import Literal

# scipy.stats is imported where it is used: it takes a second, which most notebooks need not wait.


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval (Wilson 1927) of `correct` out of `n`, each 0 to 1."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def sign_test(
    first: int, second: int, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> float:
    """Return the p-value of McNemar's exact test (1947).

    Where only one of two models is right, either should be so equally often if they do not differ.

    Args:
        first: problems that only the first model solved.
        second: problems that only the second solved.
        alternative: "greater" asks only whether the first is better.
    """
    from scipy.stats import binomtest

    if first + second == 0:
        return 1.0
    return float(binomtest(first, first + second, alternative=alternative).pvalue)
