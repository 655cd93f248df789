"""Steps that `make card` has timed on cards of the catalogue: they replace what it says."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from pydantic import ValidationError

from helpers.ground import paths
from helpers.inputs import methods, models
from helpers.planning import cards
from helpers.planning.work import WorkQuestion
from helpers.records.card import Card, Steps


@dataclass(frozen=True)
class Visited:
    """An optimizer step of the article's recipe that was timed on a card."""

    method: str
    seconds: float
    micro_batches: int
    question: WorkQuestion  # whose work this was


def _records() -> list[Card]:
    """Return what was found on real cards, the newest first; what cannot be read is left out."""
    found = []
    for file in paths.CARDS.glob("*.json"):
        try:
            found.append(Card.model_validate_json(file.read_text("utf-8")))
        except (OSError, ValueError, ValidationError):
            continue
    return sorted((each for each in found if not each.simulated), key=lambda c: c.day, reverse=True)


def _timed(card: Card, method: str) -> Steps | None:
    """Return the steps of the largest model that a card took with a method, as the article does."""
    known = models.catalogue()
    fit = [
        each
        for each in card.steps
        if each.method == method and not each.setting and each.kernels != "default"
        and each.seconds and each.model in known and known[each.model].config
    ]  # fmt: skip
    return max(fit, key=lambda each: known[each.model].parameters or 0, default=None)


def of(card: str, wanted: list[str]) -> list[Visited]:
    """Return the steps that were timed on a card, one for each method where there are any.

    Args:
        card: as the catalogue calls it.
        wanted: the methods.
    """
    records = [each for each in _records() if cards.recognised(each.name) == card]
    found = []
    for method in wanted:
        steps = next(((r, s) for r in records if (s := _timed(r, method))), None)
        if steps is None:
            continue
        record, taken = steps
        recipe = methods.load(method).recipe | {
            "per_device_train_batch_size": taken.micro_batch or 1,
            "gradient_accumulation_steps": taken.micro_batches or 1,
        }
        question = WorkQuestion(
            recipe=recipe,
            config=models.catalogue()[taken.model].config,
            device=record.device,
            length=record.length,
            eval_length=record.length,
        )
        found.append(Visited(method, median(taken.seconds), taken.micro_batches or 1, question))
    return found
