"""How often the verdict claims a difference: where there is none, and where there is one.

    .venv/bin/python benchmarks/bench_verdict.py measure      under three minutes on two cores
    .venv/bin/python benchmarks/bench_verdict.py seen         after make run SEEDS=3

Studies are simulated: two methods, some seeds of each, all asked the same problems. They are judged
by the functions with which the verdict judges a run (helpers/results/study.py, chance.holm,
judging.SIGNIFICANCE), and beside that by the rule that stood before: McNemar's test of the first
seed alone.

What is simulated is fitted to what was seen: `make run SEEDS=3` on the cpu profile, first with 50
held-out problems and with bf16. LoRA answered 22, 19 and 18, QLoRA 13, 19 and 16; McNemar's p was
0.012 and 0.73 between the methods at the seeds 42 and 44, and 0.031 between QLoRA's seeds 42 and
43. A p-value and the difference of the counts give the number of problems that only one of the two
solved. From these:

- the share answered, the mean of the six;
- how much the difficulty of problems is spread (a normal distribution of log-odds): two trainings
  disagree about so many problems as they did, the mean of the three that are known;
- how much seeds are spread (likewise): the variance of a method's three counts, the mean of both,
  is that of seeds and of single answers together. The difference between the methods that was seen
  goes nowhere into it.

The held-out losses of the methods lay 0.028, 0.040 and 0.037 nats apart: the standard deviation of
these differences is that of one training times the root of two. How much of it is single problems'
and how much the seed's was not recorded: half of the variance each. Tokens of a problem, and how
much problems differ in loss (which falls out of a difference), are round figures.

Later the same was run with 200 problems, in float32; what its trainings came to is taken out of the
run's comparison by `python benchmarks/bench_verdict.py seen` and lies in
benchmarks/results/seeds.json. There seeds varied no more than single answers and single problems'
losses make them (an analysis of variance, seeds x problems), so the first run is the harder case,
by which the verdict is measured; this one stands among those beyond it.

Beyond what was seen: seeds that vary not at all, or twice as much, in one method more than in the
other, or in both alike; or methods that solve other problems equally well.
"""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import typer
from numpy.polynomial.hermite_e import hermegauss
from pydantic import BaseModel
from scipy.optimize import brentq, root
from scipy.special import expit
from scipy.stats import binomtest, ttest_ind

from helpers.ground import paths
from helpers.ground.files import write_bytes, write_json
from helpers.records.schema import SeedResult
from helpers.results import chance, comparison, study
from helpers.results.judging import SIGNIFICANCE
from helpers.results.study import Array

app = typer.Typer(add_completion=False)
FILE = paths.BENCHMARKS / "verdict.json"
LATER = paths.BENCHMARKS / "seeds.json"
SEEN_N = 50
SEEN_COUNTS = ((22, 19, 18), (13, 19, 16))
# The difference of two counts and McNemar's p of these two trainings, in the digits that were kept.
SEEN_PAIRS = ((22 - 13, 0.012), (18 - 16, 0.73), (19 - 13, 0.031))
SEEN_LOSSES_APART = (0.028, 0.040, 0.037)
SEED_COUNTS = (2, 3, 5)
PROBLEMS = (50, 200)
CURVE = 25  # problems whose losses are known, as the cpu profile has it
STUDIES = 2000
DIFFERENCE = 0.10  # of the share answered, that is to be found
NORMAL, WEIGHT = hermegauss(80)
WEIGHT = WEIGHT / WEIGHT.sum()


def disagreements(difference: int, p: float) -> int:
    """Return on how many problems two trainings disagreed, from McNemar's p as it was told.

    Raises:
        ValueError: no number, or more than one, gives this p.
    """
    digits = len(f"{p}".partition(".")[2])
    found = [
        2 * second + difference
        for second in range(SEEN_N)
        if round(chance.sign_test(second + difference, second), digits) == p
    ]
    if len(found) != 1:
        raise ValueError(f"{found} disagreements give p = {p} with a difference of {difference}")
    return found[0]


class Seen(BaseModel):
    """What the trainings of a run came to; lists have an entry a method."""

    measured: str  # on what, and when
    n: int  # problems
    counts: list[list[int]]  # answered, a seed
    disagree: list[list[int]]  # problems on which two seeds of one method do, a pair
    losses: list[list[float]]  # nats per token, a seed
    loss_difficulty: float  # standard deviations, of a problem,
    loss_seeds: float  # of a seed,
    loss_single: float  # and of what is left


def seen_in(results: Sequence[SeedResult], measured: str) -> Seen:
    """Return what the trainings of a run came to.

    Args:
        results: of a run with several seeds.
        measured: on what, and when.

    Raises:
        ValueError: there are too few trainings to tell anything.
    """
    of: dict[str, list[SeedResult]] = {}
    for each in results:
        of.setdefault(each.method, []).append(each)
    if len(of) < 2 or min(map(len, of.values())) < 2:
        raise ValueError("run 'make run SEEDS=3' before this")
    right = [np.array([each.right for each in seeds]) for seeds in of.values()]
    parts = []
    for seeds in of.values():
        # An analysis of variance, seeds x problems, one value each.
        loss = np.array([[one.nats / one.tokens for one in each.losses] for each in seeds])
        by_seed, by_problem = loss.mean(axis=1), loss.mean(axis=0)
        left = loss - by_seed[:, None] - by_problem + loss.mean()
        rows, columns = loss.shape
        single = (left**2).sum() / ((rows - 1) * (columns - 1))
        parts.append([
            by_problem.var(ddof=1) - single / rows, by_seed.var(ddof=1) - single / columns, single
        ])  # fmt: skip
    difficulty, seed, single = np.sqrt(np.maximum(np.mean(parts, axis=0), 0))
    return Seen(
        measured=measured,
        n=right[0].shape[1],
        counts=[each.sum(axis=1).tolist() for each in right],
        disagree=[
            [int((one != other).sum()) for one, other in combinations(each, 2)] for each in right
        ],
        losses=[[round(each.held_out_loss, 5) for each in seeds] for seeds in of.values()],
        loss_difficulty=round(float(difficulty), 5),
        loss_seeds=round(float(seed), 5),
        loss_single=round(float(single), 5),
    )  # fmt: skip


@dataclass(frozen=True)
class World:
    """What studies are drawn from; spreads are standard deviations."""

    log_odds: float = 0.0  # of the middle problem
    difficulty: float = 0.0  # of log-odds, between problems
    seeds: tuple[float, float] = (0.0, 0.0)  # of log-odds, between the seeds of either method
    alike: float = 0.0  # share of the seeds' variance that a seed has in both methods
    taste: float = 0.0  # of log-odds, between problems, of each method alone
    apart: float = 0.0  # share of problems that the other method answers less
    loss: float = 0.36  # nats per token
    loss_difficulty: float = 0.1  # between problems
    loss_seeds: tuple[float, float] = (0.0, 0.0)
    loss_single: float = 0.0  # of one problem in one training
    loss_taste: float = 0.0
    loss_apart: float = 0.0  # the other's loss is so much higher


def moments(world: World) -> tuple[float, float, float, float]:
    """Return what a world makes expect, of method one.

    Returns:
        The share answered; the share of problems that two seeds disagree about; the variance of a
        seed's share; and that of a single answer about it.
    """
    log_odds = world.log_odds + world.difficulty * NORMAL[:, None] + world.seeds[0] * NORMAL
    share = expit(log_odds)
    by_problem, by_seed = share @ WEIGHT, WEIGHT @ share
    mean = float(WEIGHT @ by_problem)
    disagree = float(2 * WEIGHT @ (by_problem * (1 - by_problem)))
    between = float(WEIGHT @ (by_seed - mean) ** 2)
    return mean, disagree, between, float(WEIGHT @ (share * (1 - share)) @ WEIGHT)


def read() -> Seen:
    """Return what the later run came to."""
    return Seen.model_validate_json(LATER.read_text("utf-8"))


def as_seen() -> World:
    """Return the world that is fitted to what was seen."""
    share = sum(map(sum, SEEN_COUNTS)) / 6 / SEEN_N
    disagree = statistics.mean(disagreements(*pair) for pair in SEEN_PAIRS) / SEEN_N
    variance = statistics.mean(map(statistics.variance, SEEN_COUNTS)) / SEEN_N**2

    def off(values: Sequence[float]) -> list[float]:
        world = World(values[0], float(np.exp(values[1])), (float(np.exp(values[2])),) * 2)
        mean, apart, between, single = moments(world)
        return [mean - share, apart - disagree, 100 * (between + single / SEEN_N - variance)]

    found = root(off, [-1.5, 1.2, -0.5])
    if not found.success:
        raise RuntimeError(found.message)
    of_training = statistics.variance(SEEN_LOSSES_APART) / 2
    return World(
        log_odds=float(found.x[0]),
        difficulty=float(np.exp(found.x[1])),
        seeds=(float(np.exp(found.x[2])),) * 2,
        loss_seeds=((of_training / 2) ** 0.5,) * 2,
        loss_single=(of_training / 2 * SEEN_N) ** 0.5,
    )


def as_later(seen: Seen) -> World:
    """Return the world that is fitted to a later run, whose seeds vary as its losses tell.

    Raises:
        RuntimeError: its counts vary more than single answers do: fit the seeds' spread, too.
    """
    share = float(np.mean(seen.counts)) / seen.n
    disagree = float(np.mean(seen.disagree)) / seen.n
    variance = float(np.var(seen.counts, axis=1, ddof=1).mean()) / seen.n**2

    def off(values: Sequence[float]) -> list[float]:
        mean, apart, _, _ = moments(World(values[0], float(np.exp(values[1]))))
        return [mean - share, apart - disagree]

    found = root(off, [-1.5, 1.2])
    if not found.success or variance > disagree / 2 / seen.n:
        raise RuntimeError(found.message)
    return World(
        log_odds=float(found.x[0]),
        difficulty=float(np.exp(found.x[1])),
        loss=float(np.mean(seen.losses)),
        loss_difficulty=seen.loss_difficulty,
        loss_seeds=(seen.loss_seeds,) * 2,
        loss_single=seen.loss_single,
    )


def beyond(seen: World, later: World) -> dict[str, World]:
    """Return worlds beyond what was seen first, in which the methods are equal too."""

    def spread(first: float, second: float) -> dict[str, Any]:
        return {
            "seeds": (seen.seeds[0] * first, seen.seeds[1] * second),
            "loss_seeds": (seen.loss_seeds[0] * first, seen.loss_seeds[1] * second),
        }

    return {
        "as in the run with 200 problems": later,
        "seeds vary not at all": replace(seen, **spread(0, 0)),
        "seeds vary twice as much": replace(seen, **spread(2, 2)),
        "one method's seeds vary 1.4 times as much": replace(seen, **spread(1, 1.4)),
        "a seed moves both methods alike": replace(seen, alike=0.8),
        "methods solve other problems": replace(seen, taste=1.0, loss_taste=seen.loss_single),
    }


def _shift(world: World) -> float:
    """Return by how much log-odds the other method falls behind."""
    if not world.apart:
        return 0.0
    wanted = moments(world)[0] - world.apart
    return float(
        brentq(lambda by: moments(replace(world, log_odds=world.log_odds + by))[0] - wanted, -20, 0)
    )


@dataclass(frozen=True)
class Studies:
    """What many studies found: of each method a value a study, seed and problem."""

    right: tuple[Array, Array]
    nats: tuple[Array, Array]
    tokens: Array  # a problem


def simulate(world: World, studies: int, seeds: int, problems: int, draw: Any) -> Studies:
    """Draw studies from a world.

    Args:
        world: what to draw from.
        studies: how many.
        seeds: trainings of each method.
        problems: shared by all of them.
        draw: numpy's random generator.
    """
    shape, shared = (studies, seeds, problems), (studies, 1, problems)
    difficulty = world.log_odds + world.difficulty * draw.standard_normal(shared)
    tokens = draw.integers(20, 60, CURVE).astype(float)
    of_loss = (studies, 1, CURVE)
    loss = world.loss + world.loss_difficulty * draw.standard_normal(of_loss)
    of_seed = (studies, seeds, 1)
    both = world.alike**0.5 * draw.standard_normal((2, *of_seed))
    right, nats = [], []
    for method in range(2):
        own = (1 - world.alike) ** 0.5 * draw.standard_normal((2, *of_seed))
        seed, loss_seed = both + own
        log_odds = (
            difficulty
            + world.taste * draw.standard_normal(shared)
            + world.seeds[method] * seed
            + (_shift(world) if method else 0)
        )
        right.append((draw.random(shape) < expit(log_odds)).astype(float))
        per_token = (
            loss
            + world.loss_taste * draw.standard_normal(of_loss)
            + world.loss_seeds[method] * loss_seed
            + world.loss_single * draw.standard_normal((studies, seeds, CURVE))
            + (world.loss_apart if method else 0)
        )
        nats.append(per_token * tokens)
    return Studies((right[0], right[1]), (nats[0], nats[1]), tokens)


def claims(found: Studies) -> dict[str, Array]:
    """Return in which studies the verdict claims a difference: "exact_match", "loss", "either"."""
    gc.freeze()  # statsmodels collects garbage at every call of holm: 30 ms, with what is imported
    answers = study.between(*found.right).p()
    losses = study.between(*(study.contributions(each, found.tokens) for each in found.nats)).p()
    corrected = np.array([chance.holm(pair) for pair in zip(answers, losses, strict=True)])
    gc.unfreeze()
    claimed = corrected < SIGNIFICANCE
    return {
        "exact_match": claimed[:, 0], "loss": claimed[:, 1], "either": claimed.any(axis=1),
    }  # fmt: skip


def first_seed_claims(found: Studies) -> Array:
    """Return in which studies the rule before claims a difference of the methods.

    McNemar's exact test of the first seed of either, p < 0.05; it did not look at the loss.
    """
    first, other = (each[:, 0] for each in found.right)
    only_first = ((first == 1) & (other == 0)).sum(axis=1)
    only_other = ((first == 0) & (other == 1)).sum(axis=1)
    p: dict[tuple[int, int], float] = {}
    for pair in zip(only_first.tolist(), only_other.tolist(), strict=True):
        if pair not in p:
            p[pair] = chance.sign_test(*pair)
    found_p = [p[pair] for pair in zip(only_first.tolist(), only_other.tolist(), strict=True)]
    return np.array(found_p) < SIGNIFICANCE


def seeds_t_test_claims(found: Studies) -> Array:
    """Return in which studies a t-test of the seeds' shares claims a difference."""
    first, other = (each.mean(axis=2) for each in found.right)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds that all answer the same number
        return np.asarray(ttest_ind(first, other, axis=1).pvalue) < SIGNIFICANCE


def rate(claimed: Array) -> dict[str, float]:
    """Return the share of studies, with the ends of its 95 % interval (Clopper and Pearson)."""
    count, studies = int(claimed.sum()), len(claimed)
    ends = binomtest(count, studies).proportion_ci(0.95, "exact")
    return {
        "share": round(count / studies, 4),
        "low": round(float(ends.low), 4),
        "high": round(float(ends.high), 4),
    }


def measured(world: World, studies: int, draw: Any) -> Iterator[dict[str, Any]]:
    """Yield how often a difference is claimed, for each number of problems and of seeds."""
    for problems in PROBLEMS:
        for seeds in SEED_COUNTS:
            found = simulate(world, studies, seeds, problems, draw)
            row: dict[str, Any] = {"problems": problems, "seeds": seeds}
            row |= {what: rate(claimed) for what, claimed in claims(found).items()}
            row["seeds_t_test"] = rate(seeds_t_test_claims(found))
            yield row | {"first_seed_alone": rate(first_seed_claims(found))}


def measure(studies: int = STUDIES) -> dict[str, Any]:
    """Return all figures."""
    draw, seen = np.random.default_rng(20_261_124), as_seen()
    loss_apart = statistics.mean(SEEN_LOSSES_APART)
    different = replace(seen, apart=DIFFERENCE)
    share, disagree, between, single = moments(seen)
    worlds: Mapping[str, World] = beyond(seen, as_later(read()))
    return {
        "studies": studies,
        "later": read().model_dump(),
        "seen": {
            "share": round(share, 4),
            "disagree": round(disagree, 4),
            "seed_points": round(100 * between**0.5, 2),
            "single_points_of_50": round(100 * (single / SEEN_N) ** 0.5, 2),
            "loss_of_training": round((statistics.variance(SEEN_LOSSES_APART) / 2) ** 0.5, 5),
            "loss_apart": round(loss_apart, 4),
        },
        "equal": list(measured(seen, studies, draw)),
        "beyond": {name: list(measured(each, studies, draw)) for name, each in worlds.items()},
        "ten_points": list(measured(different, studies, draw)),
        "ten_points_and_loss": list(
            measured(replace(different, loss_apart=loss_apart), studies, draw)
        ),
    }


@app.command()
def seen(run: str = "cpu") -> None:
    """Take what the trainings of a run with several seeds came to."""
    told = comparison.read(paths.RunFolder(run).comparison)
    found = seen_in(told.seeds, told.origin.note())
    write_bytes(LATER, (found.model_dump_json(indent=1) + "\n").encode())
    print(paths.shown(LATER))


@app.command("measure")
def measure_and_write() -> None:
    """Measure how often the verdict claims a difference, and write the figures."""
    begin = time.monotonic()
    write_json(FILE, measure())
    print(f"{paths.shown(FILE)}, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    app()
