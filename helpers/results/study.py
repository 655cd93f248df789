"""Two methods, several trainings of each, the same problems: what lies between them, and how sure.

A training's score moves with its seed, and with the problems that were drawn. Trainings of one
method differ by their seeds; all are asked the same problems, so problems are crossed with methods
and seeds lie within one. That two trainings have one number for their seed is not counted on: where
it moves both alike, as it did the losses of the smoke profile, their difference varies less than is
reckoned with, and the test errs on the careful side. This is the design of the medical imaging
studies in which readers lie within a test and cases are shared, and the test is theirs (Obuchowski
and Rockette 1995, with the degrees of freedom of Hillis 2007): the variance of the difference is
that of the seeds' means, plus what the methods' difference varies from problem to problem beyond
that. Seeds are never taken to vary less than what single answers do by themselves, which few seeds
may happen to show. That it claims a difference where there is none in at most 5 % of studies, with
2, 3 and 5 seeds, is measured in benchmarks/bench_verdict.py, and so is that a t-test of the seeds'
means alone does not where methods solve other problems.

Everything takes leading axes, so that many studies are judged at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# scipy is imported where it is used: it takes a second or two.

Array = NDArray[np.float64]
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """The difference between two methods, other - first, in the unit of what was compared."""

    difference: Array
    error: Array  # its standard error
    freedom: Array  # degrees of freedom
    problems: int

    def p(self) -> Array:
        """Return the two-sided p-values.

        Where nothing varied at all, only the number of problems speaks: the sign test's.
        """
        from scipy.stats import t

        varied = self.error > 0
        ratio = np.abs(self.difference) / np.where(varied, self.error, 1)
        unvaried = np.where(self.difference == 0, 1.0, 0.5 ** (self.problems - 1))
        return np.where(varied, 2 * t.sf(ratio, self.freedom), unvaried)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Return the ends of the confidence interval."""
        from scipy.stats import t

        half = t.isf((1 - level) / 2, self.freedom) * self.error
        return self.difference - half, self.difference + half

    def missed(self, significance: float) -> Array:
        """Return the true difference that such a study finds in 80 % of cases.

        Smaller ones are missed more often than that.

        Args:
            significance: the level at which a difference is claimed.
        """
        from scipy.special import nctdtrinc
        from scipy.stats import t

        most = t.isf(significance / 2, self.freedom)
        return self.error * nctdtrinc(self.freedom, 1 - POWER, most)


def _mean_variance(scores: Array) -> Array:
    """Return the variance of the seeds' means, of one method."""
    return scores.mean(axis=-1).var(axis=-1, ddof=1)


def _single_variance(scores: Array) -> Array:
    """Return the variance of single answers: what neither problem nor seed says, of one method."""
    seeds, problems = scores.shape[-2:]
    rest = (
        scores
        - scores.mean(axis=-1, keepdims=True)
        - scores.mean(axis=-2, keepdims=True)
        + scores.mean(axis=(-1, -2), keepdims=True)
    )
    return (rest**2).sum(axis=(-1, -2)) / ((seeds - 1) * (problems - 1))


def between(first: Array, other: Array) -> Estimate:
    """Return the difference between two methods.

    Args:
        first: a score for each training and problem, the last two axes.
        other: of the same shape, the same problems in the same order.

    Returns:
        With several trainings, for the methods; with one, for these two alone: a paired t-test.

    Raises:
        ValueError: the shapes differ, or there are fewer than two problems.
    """
    first, other = np.asarray(first, float), np.asarray(other, float)
    if first.shape != other.shape or first.shape[-1] < 2:
        raise ValueError(f"{first.shape} and {other.shape} cannot be compared problem by problem")
    seeds, problems = first.shape[-2:]
    apart = other.mean(axis=-2) - first.mean(axis=-2)
    difference, by_problem = apart.mean(axis=-1), apart.var(axis=-1, ddof=1) / problems
    if seeds == 1:
        return Estimate(
            difference, np.sqrt(by_problem), np.full(difference.shape, problems - 1.0), problems
        )
    single = (_single_variance(first) + _single_variance(other)) / 2 / problems
    means = np.maximum((_mean_variance(first) + _mean_variance(other)) / 2, single)
    by_seed = 2 * means / seeds
    # What single answers vary is in both.
    beyond = np.maximum(by_problem - 2 * single / seeds, 0)
    variance = by_seed + beyond
    spread = by_seed**2 / (2 * (seeds - 1)) + beyond**2 / (problems - 1)
    most = float(2 * (seeds - 1) + problems - 1)
    freedom = np.where(spread > 0, variance**2 / np.where(spread > 0, spread, 1), most)
    return Estimate(difference, np.sqrt(variance), np.maximum(freedom, 1), problems)


def paired_shares(only_first: int, only_other: int, problems: int) -> Estimate:
    """Return the difference between two trainings' shares of right answers.

    The error is that of Bonett and Price (2012), which holds for few problems as well; the test
    that belongs to it is McNemar's (chance.sign_test).

    Args:
        only_first: problems that only the first one solved.
        only_other: problems that only the other solved.
        problems: all problems.
    """
    a, b = (only_first + 1) / (problems + 2), (only_other + 1) / (problems + 2)
    error = ((a + b - (b - a) ** 2) / (problems + 2)) ** 0.5
    difference = (only_other - only_first) / problems
    freedom = max(1, problems - 1)
    return Estimate(np.asarray(difference), np.asarray(error), np.asarray(freedom), problems)


def contributions(nats: Array, tokens: Array) -> Array:
    """Return what each problem adds to the loss per token, so that their mean is that loss.

    A loss per token is a ratio of two sums: a problem counts by its tokens. To first order its
    share in the ratio is its own loss less what its tokens would have had at the mean loss.

    Args:
        nats: the loss of each training and problem, summed over its tokens.
        tokens: tokens of each problem, the last axis.
    """
    nats, tokens = np.asarray(nats, float), np.asarray(tokens, float)
    relative = tokens / tokens.mean(axis=-1, keepdims=True)
    losses = nats.sum(axis=-1) / tokens.sum(axis=-1)
    mean = losses.mean(axis=-1)[..., None, None]
    return nats / tokens.mean(axis=-1, keepdims=True) - mean * (relative - 1)
