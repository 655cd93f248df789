"""How far luck could have moved a score: an interval for one, a test for two, and for several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

# scipy and statsmodels are imported where they are used: they take a second or two, which most
# notebooks need not wait.


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


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the same order.

    Of several true null hypotheses, not even one is then rejected more often than the level says.
    """
    if len(p) < 2:
        return list(p)
    from statsmodels.stats.multitest import multipletests

    return [float(corrected) for corrected in multipletests(p, method="holm")[1]]
