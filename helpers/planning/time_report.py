"""What an estimate of time and cost says to readers."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.ground.shown import Table
from helpers.ground.words import sentences, tr
from helpers.planning.duration import Span
from helpers.planning.estimate import Estimate, Place

HOUR = 3600


def _range(span: Span, unit: float) -> str:
    """Return a span in a unit, with two figures that count."""

    def figure(value: float) -> str:
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"

    low, high = figure(span.low / unit), figure(span.high / unit)
    return low if low == high else tr("{low} to {high}", low=low, high=high)


def _named(method: str, where: Place, estimate: Estimate) -> str:
    if where.card is None:
        return tr("{method}, this machine", method=method)
    if estimate.measured:
        return tr("{method}, {card} (steps of such a card were timed)",
                  method=method, card=where.card)  # fmt: skip
    if where.checked:
        return tr("{method}, {card}", method=method, card=where.card)
    return tr("{method}, {card} (an estimate without a check)", method=method, card=where.card)


def table(estimates: Mapping[str, Estimate], where: Place, price: float | None) -> Table:
    """Return estimates as a table, a row for each method.

    Args:
        estimates: by the method, as readers know it.
        where: what they hold for.
        price: of an hour; None leaves the cost out.
    """
    header = [
        tr("estimated time"),
        tr("seconds a step"),
        tr("steps"),
        tr("training, minutes"),
        tr("of them evaluations"),
        tr("answering, minutes"),
    ]
    rows = [
        [
            _named(method, where, each),
            _range(each.step, 1),
            each.steps,
            _range(each.training, 60),
            each.evaluations,
            _range(each.answering, 60),
        ]
        for method, each in estimates.items()
    ]
    if price is not None:
        header.append(tr("cost at {price} an hour", price=f"{price:g}"))
        for row, each in zip(rows, estimates.values(), strict=True):
            row.append(_range(each.whole * price * each.cards, HOUR))
    return Table(header, rows)


def basis(estimates: Mapping[str, Estimate], where: Place | None) -> str:
    """Return what the estimates rest on, in a sentence or two.

    Args:
        estimates: by method.
        where: what they hold for; None: the card that is here is not in the catalogue.
    """
    if where is None:
        return tr(
            "How long it takes is not told: the card that is here is not in configs/cards.yaml; "
            "CARD= names one that is."
        )
    one = next(iter(estimates.values()))
    if one.assumed:
        says = tr(
            "Loading is not in these times; micro-batches are taken to be {length} tokens long, "
            "because the data are not here yet: 'make data' brings them.",
            length=one.length,
        )
    else:
        says = tr(
            "Loading is not in these times; micro-batches are {length} tokens long on average.",
            length=one.length,
        )
    left = tr("Once a training runs, the time left is told by its own steps.")
    if one.cards == 1:
        return sentences([says, left])
    apart = tr(
        "What {cards} cards take to exchange gradients is not in them either, and all of them cost "
        "until one has answered.",
        cards=one.cards,
    )
    if one.sharded:
        apart = tr(
            "What {cards} cards take to gather layers and exchange gradients is not in them "
            "either, and all of them cost until one has answered.",
            cards=one.cards,
        )
    return sentences([says, apart, left])
