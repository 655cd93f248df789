"""How long a run's trainings and answers will take, and what they cost, before they start.

From the operators of one step (traced_work.py), on a card of configs/cards.yaml or, after ten
seconds of timing operators and a few steps of few layers, on this machine (duration.py). Where
`make card` has timed steps on such a card, these move the estimate. Loading, and starting programs,
is not in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.machine import hardware
from helpers.planning import asking, cards, duration, planner, visits
from helpers.planning.duration import Span
from helpers.planning.work import LAYERS, Operators, Work, WorkQuestion, of_layers
from helpers.programs import process

CALIBRATION = 10  # seconds of timing operators
PROBED_LAYERS, PROBED_LENGTH, PROBED_STEPS = 2, 128, 3  # of trainings whose steps are taken here
ARTICLE_CARD = "910B2"
# Tokens of the longest problem of a micro-batch, until the data are here to be looked at: word
# problems with their solutions, as Math10K has them, take 100 to 250.
ASSUMED = 200
# The part of `max_new_tokens` after which the last answer of a batch ends, at best.
SOONEST = 0.35


@dataclass(frozen=True)
class Place:
    """Where something will be trained: on a card of the catalogue, or on this machine."""

    card: str | None

    @property
    def checked(self) -> bool:
        """Whether such estimates were held against measured times."""
        return self.card is None or cards.catalogue().cards[self.card].checked


class Estimate(BaseModel):
    """How long a method takes; of seconds, a fast case and a slow one."""

    step: Span
    steps: int
    training: Span  # all steps, and the evaluations between and after them
    evaluations: int
    answering: Span
    length: int  # tokens of an average batch's longest example
    assumed: bool  # ... which is a guess
    measured: bool = False  # `make card` has timed such a step on such a card
    cards: int = 1  # that train together; one of them answers
    sharded: bool = False  # whether they have to gather each layer from one another

    @property
    def whole(self) -> Span:
        return self.training + self.answering


def price(text: str) -> float | None:
    """Return what an hour costs, as PRICE= says; None where it says nothing.

    Raises:
        TutorialError: it is no number, or not one that a price can be.
    """
    if not text.strip():
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not (math.isfinite(found) and found >= 0):
        raise TutorialError(
            tr(
                "PRICE={text!r} is not what an hour of a card costs: give a number, as in "
                "PRICE=2.88.",
                text=text[:60],
            )
        )
    return found


def place(device: str, card: str = "") -> Place | None:
    """Return where a profile's device is: the card that CARD= names, or the one that is here.

    Args:
        device: npu, cuda or cpu.
        card: as CARD= says; "" for none.

    Returns:
        None where the card that is here is not in the catalogue.

    Raises:
        TutorialError: the catalogue has no such card, or it is none for this device.
    """
    if card:
        name = cards.named(card)
        wanted = cards.catalogue().cards[name].device
        if wanted != device:
            raise TutorialError(
                tr(
                    "CARD={card} is planned with PROFILE={wanted}, and the profile here is for "
                    "{device}.",
                    card=name,
                    wanted=wanted,
                    device=device,
                )
            )
        return Place(name)
    if device == "cpu":
        return Place(None)
    machine = hardware.describe()
    here = machine.accelerators[0] if machine.device == device and machine.accelerators else ""
    known = cards.recognised(here) if here else None
    if known is None and device == "npu" and not here:
        known = ARTICLE_CARD
    return Place(known) if known else None


def _predicting(settings: Settings) -> dict[str, Any]:
    return read_yaml(paths.CONFIGS / "predict.yaml") | settings.profile.predict


def questions(settings: Settings, where: Place) -> dict[str, WorkQuestion]:
    """Return what has to be counted, by method.

    Raises:
        TutorialError: nothing is known of the model.
    """
    found = {}
    for method in settings.methods:
        asked = planner.question(method.name, settings)
        lengths = {}
        if asked.length is not None:
            lengths = dict.fromkeys(("length", "eval_length"), min(ASSUMED, asked.length))
        found[method.name] = WorkQuestion.model_validate(
            asked.model_dump()
            | lengths
            | {
                "answer_rows": _predicting(settings)["per_device_eval_batch_size"],
                "forms": where.card is None,
            }
        )
    return found


Probes = dict[str, tuple[WorkQuestion, Work]]


@dataclass(frozen=True)
class Counted:
    """The work of a run's methods, and of the steps that `make card` has timed."""

    where: Place
    asked: dict[str, WorkQuestion]
    works: dict[str, Work]
    visited: list[tuple[visits.Visited, Work]]
    probes: Probes = field(default_factory=dict)  # whose steps are taken here


def probe(asked: WorkQuestion) -> WorkQuestion | None:
    """Return the same training with so few layers that a step can be taken while one waits.

    None where the model's config does not say its layers as most do.
    """
    folder = paths.ROOT / str(asked.recipe["model_name_or_path"])
    config = asked.config or json.loads((folder / "config.json").read_text("utf-8"))
    if LAYERS not in config:
        return None
    return asked.model_copy(
        update={
            "config": of_layers(config, PROBED_LAYERS),
            "recipe": asked.recipe | {"gradient_accumulation_steps": 1},
            "length": PROBED_LENGTH,
            "eval_length": PROBED_LENGTH,
            "cards": 1,
            "sharded": False,
        }
    )


def probes_of(asked: Mapping[str, WorkQuestion]) -> dict[str, WorkQuestion]:
    """Return the probes of some trainings that are planned for this machine."""
    found = {name: probe(question) for name, question in asked.items() if question.forms}
    return {name: question for name, question in found.items() if question}


def count(settings: Settings, where: Place) -> Counted:
    """Count the work of all methods of a run.

    Raises:
        TutorialError: nothing is known of the model, or a recipe cannot be traced.
    """
    asked = questions(settings, where)
    seen = visits.of(where.card, list(asked)) if where.card else []
    log = settings.run.logs / "estimate.log"
    probes = probes_of(asked)
    others = [*probes.values(), *(visited.question for visited in seen)]
    answers = asking.ask("traced_work", [*asked.values(), *others], log)
    works = iter([Work.model_validate(each) for each in answers])
    return Counted(
        where,
        asked,
        dict(zip(asked, works, strict=False)),
        probes={name: (each, next(works)) for name, each in probes.items()},
        visited=[(each, next(works)) for each in seen],
    )


class Calibrated(BaseModel):
    """What was timed on this machine."""

    seconds: dict[str, float]  # of an operator by itself, by its form
    longer: dict[str, float | None]  # how many times that it takes in a step, by probe

    def of(self, name: str) -> dict[str, float]:
        """Return the seconds of operators in the steps of a probe's kind."""
        factor = self.longer.get(name) or 1.0
        return {form: factor * seconds for form, seconds in self.seconds.items()}


def timed_here(works: Sequence[Work], probes: Probes, settings: Settings) -> Calibrated:
    """Time the operators of some work on this machine, and real steps of probes."""
    weights: dict[str, float] = {}
    of_steps: dict[str, list[Operators]] = {"evaluation": [], "token": []}
    works = [*works, *(work.model_copy(update=of_steps) for _, work in probes.values())]
    for work in works:
        for phase in (work.micro_batch, work.update, work.evaluation, work.token):
            for each in phase:
                if each.form:
                    guess = 1e-5 + each.flops / 1e11 + each.bytes / 1e10
                    weights[each.form] = weights.get(each.form, 0.0) + abs(each.calls) * guess
    env = process.environment("cpu") | settings.environment
    log = settings.run.logs / "calibration.log"
    asked = {
        "forms": list(weights.items()),
        "probes": {
            name: {
                "case": {
                    "key": name, "recipe": question.recipe, "config": question.config,
                    "length": PROBED_LENGTH, "steps": PROBED_STEPS,
                },
                "forms": [(each.form, each.calls) for each in (*work.micro_batch, *work.update)],
            }
            for name, (question, work) in probes.items()
        },
    }  # fmt: skip
    answer = asking.run("calibration", asked, [str(CALIBRATION)], log, env)
    return Calibrated.model_validate(answer)


def _phases(work: Work, where: Place, timed: Mapping[str, float]) -> duration.Phases:
    if where.card is None:
        return duration.here(work, timed)
    known = cards.catalogue()
    card = known.cards[where.card]
    return duration.on_card(work, card, known.efficiencies[card.device])


def step_of(phases: duration.Phases, micro_batches: int) -> Span:
    """Return the seconds of an optimizer step."""
    return phases.micro_batch * micro_batches + phases.update


def steps_of(recipe: Mapping[str, Any], problems: int, cards: int = 1) -> int:
    """Return how many optimizer steps a training of so many problems takes, on so many cards."""
    if (most := recipe.get("max_steps") or 0) > 0:
        return int(most)
    micro_batches = math.ceil(problems / (recipe.get("per_device_train_batch_size", 8) * cards))
    epoch = math.ceil(micro_batches / recipe.get("gradient_accumulation_steps", 1))
    return math.ceil(epoch * float(recipe.get("num_train_epochs", 3)))


def evaluations_of(recipe: Mapping[str, Any], steps: int) -> int:
    """Return how often held-out problems are evaluated: between the steps, and at the end."""
    between = 0
    if recipe.get("eval_strategy") == "steps":
        every = float(recipe.get("eval_steps") or recipe.get("logging_steps") or 500)
        between = int(steps / every) if every >= 1 else int(1 / every)
    return between + int(bool(recipe.get("do_eval", True)))


def _factor(counted: Counted, method: str) -> float | None:
    """Return how much longer a step took on such a card than is estimated; None: none was timed."""
    for visited, work in counted.visited:
        if visited.method == method:
            estimated = step_of(_phases(work, counted.where, {}), visited.micro_batches)
            return visited.seconds / estimated.middle
    return None


def _one(counted: Counted, method: str, settings: Settings, timed: Mapping[str, float]) -> Estimate:
    asked, work = counted.asked[method], counted.works[method]
    recipe, data = asked.recipe, settings.profile.data
    phases = _phases(work, counted.where, timed)
    factor = _factor(counted, method)
    if factor:
        phases = phases.corrected(factor)
    steps = steps_of(recipe, data.train, asked.cards)
    evaluations = evaluations_of(recipe, steps)
    rows = recipe.get("per_device_eval_batch_size", 8)
    batches = math.ceil((data.curve or data.eval) / (rows * asked.cards))
    step = step_of(phases, recipe.get("gradient_accumulation_steps", 1))
    predicting = _predicting(settings)
    answered = min(asked.answer_rows, data.eval)
    longest = Span(low=SOONEST, high=1.0)
    tokens = predicting["max_new_tokens"]
    each = phases.evaluation * (answered / rows) + Span(
        low=phases.token.low * tokens * longest.low, high=phases.token.high * tokens * longest.high
    )
    return Estimate(
        step=step,
        steps=steps,
        training=step * steps + phases.evaluation * (batches * evaluations),
        evaluations=evaluations,
        answering=each * math.ceil(data.eval / asked.answer_rows),
        length=work.length,
        assumed=asked.length is not None,
        measured=factor is not None,
        cards=asked.cards,
        sharded=asked.sharded,
    )


def beforehand(counted: Counted, settings: Settings) -> dict[str, Estimate]:
    """Return how long each method takes.

    Args:
        counted: what `count` returned.
        settings: the same run's.
    """
    found = Calibrated(seconds={}, longer={})
    if counted.where.card is None:
        found = timed_here(list(counted.works.values()), counted.probes, settings)
    return {name: _one(counted, name, settings, found.of(name)) for name in counted.works}
