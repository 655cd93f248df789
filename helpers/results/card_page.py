"""What the first hour on a card found, as a page; and all cards that were measured, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Table
from helpers.ground.words import series, tr, trn
from helpers.inputs import methods
from helpers.records.card import Card, KernelRow, Operator, Steps

GIB = 2**30
MOST_OPERATORS = 12


def _label(method: str) -> str:
    """Return what readers know a method by; of one that is gone, its name."""
    try:
        return methods.load(method).label
    except TutorialError:
        return method


def _number(value: float | None, form: str = ".2f", unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)


def _kernels_word(code: str) -> str:
    words = {
        "chosen": tr("the tutorial's"),
        "default": tr("the default backend"),
        "bitsandbytes": tr("bitsandbytes' own"),
        "": "-",
    }
    return words[code]


def _fault(code: str) -> str:
    words = {
        "late": tr("left out: the time was up"),
        "out of memory": tr("does not fit into the card's memory"),
    }
    return words.get(code) or tr("failed: {fault}", fault=code)


class Page:
    """A page about one card; what was simulated says so in every heading."""

    def __init__(self, card: Card) -> None:
        self.card = card

    def heading(self, text: str, level: int = 2) -> str:
        marks = "#" * level
        if self.card.simulated:
            return tr("{marks} {heading} (simulated)", marks=marks, heading=text)
        return f"{marks} {text}"

    def markdown(self) -> str:
        """Return the whole page."""
        parts = [
            self.heading(tr("{card}, {day}", card=self.card.name, day=self.card.day), 1),
            self._opening(),
            self.heading(tr("What is installed")),
            Table(
                [tr("what"), tr("version")], sorted(self.card.versions.items()), heads=True
            ).markdown(),
            self.heading(tr("What the doctor found")),
            self._checks(),
            self.heading(tr("The 4-bit kernels")),
            self._kernels(),
            self.heading(tr("Training steps")),
            steps(self.card).markdown(),
            self.heading(tr("The tuned settings, one by one")),
            self._settings(),
            self.heading(tr("Where the operators ran")),
            self._operators(),
        ]
        return "\n\n".join(parts) + "\n"

    def _opening(self) -> str:
        card = self.card
        if card.simulated:
            return tr(
                "Host memory and a processor's kernels that pass for an Ascend, for tests: nothing "
                "on this page was measured on a card."
            )
        return tr(
            "Found by 'make card PROFILE={profile}' in {minutes:.1f} minutes on a card with "
            "{memory:.1f} GiB. Models have the named shapes and random weights; the longest "
            "example has {length} tokens.",
            profile=card.profile,
            minutes=card.seconds / 60,
            memory=card.total_bytes / GIB,
            length=card.length,
        )

    def _checks(self) -> str:
        bad = [(name, status) for name, status in self.card.checks.items() if status != "OK"]
        if not bad:
            return trn("{n} check, which is OK.", "{n} checks, all OK.", len(self.card.checks))
        table = Table([tr("check"), tr("status")], bad, heads=True).markdown()
        rest = trn("{n} more is OK.", "{n} more are OK.", len(self.card.checks) - len(bad))
        return f"{table}\n\n{rest}"

    def _kernels(self) -> str:
        def row(each: KernelRow) -> Sequence[object]:
            return (
                each.matrix,
                f"{each.formulation}:{each.piece}",
                _number(each.nanoseconds, ".4f"),
                _number(each.times_default, ".1f"),
                tr("yes") if each.equal else tr("no"),
            )

        header = [tr("matrix"), tr("kernels:weights at a time"), tr("ns a weight"),
                  tr("times faster than the default backend"), tr("same bits")]  # fmt: skip
        rows = [row(each) for each in self.card.kernels]
        used = tr("Used on this card: {choice}.", choice=f"`{self.card.choice}`")
        return f"{used}\n\n{Table(header, rows, heads=True).markdown()}"

    def _settings(self) -> str:
        plain = {
            (each.model, each.method): each.tokens_per_second
            for each in self.card.steps
            if not each.setting and each.kernels != "default"
        }
        rows: list[Sequence[object]] = []
        for each in self.card.steps:
            if not each.setting:
                continue
            before, now = plain.get((each.model, each.method)), each.tokens_per_second
            faster = now / before if now and before else None
            rows.append(
                (
                    each.setting,
                    each.model,
                    _label(each.method),
                    _fault(each.fault) if each.fault else _number(now, ".0f"),
                    _number(faster, ".2f"),
                    _number(each.allocated_bytes, ".2f", GIB),
                    _number(each.planned_bytes, ".2f", GIB),
                )
            )
        if not rows:
            return tr("This profile has none.")
        header = [tr("setting"), tr("model"), tr("method"), tr("tokens/s"),
                  tr("times the article's"), tr("allocated, GiB"), tr("planned, GiB")]  # fmt: skip
        return Table(header, rows, heads=True).markdown()

    def _operators(self) -> str:
        parts = [self._fallbacks()]
        for each in self.card.steps:
            if not each.operators:
                continue
            title = tr(
                "{model}, {method}, kernels: {kernels}",
                model=each.model,
                method=_label(each.method),
                kernels=_kernels_word(each.kernels),
            )
            parts += [self.heading(title, 3), operators(each.operators)]
        return "\n\n".join(parts)

    def _fallbacks(self) -> str:
        if not self.card.fallbacks:
            return tr("No operator said that it fell back to the host.")
        return tr(
            "Fell back to the host: {operators}.",
            operators=series(f"`{name}`" for name in self.card.fallbacks),
        )


def steps(card: Card) -> Table:
    """Return the optimizer steps with the article's settings."""
    header = [tr("model"), tr("method"), tr("kernels"), tr("step, s"), tr("tokens/s"),
              tr("loading, s"), tr("planned, GiB"), tr("allocated, GiB"),
              tr("allocated / planned")]  # fmt: skip
    rows = [_step(each) for each in card.steps if not each.setting]
    return Table(header, rows, heads=True)


def _step(each: Steps) -> Sequence[object]:
    name = (each.model, _label(each.method), _kernels_word(each.kernels))
    if each.fault:
        return (*name, _fault(each.fault), *["-"] * 5)
    both = each.allocated_bytes and each.planned_bytes
    ratio = each.allocated_bytes / each.planned_bytes if both else None  # type: ignore[operator]
    return (
        *name,
        f"{median(each.seconds):.3f} ({min(each.seconds):.3f}-{max(each.seconds):.3f})",
        _number(each.tokens_per_second, ".0f"),
        _number(each.loading_seconds, ".1f"),
        _number(each.planned_bytes, ".2f", GIB),
        _number(each.allocated_bytes, ".2f", GIB),
        _number(ratio, ".3f"),
    )


def operators(found: Sequence[Operator]) -> str:
    """Return the operators of a step: all that ran on the AICPU or the host, then the slowest."""
    slow = [each for each in found if each.slow]
    rest = [each for each in found if not each.slow][:MOST_OPERATORS]
    total = sum(each.microseconds for each in found)
    off = sum(each.microseconds for each in slow)
    share = 100 * off / total if total else 0.0
    said = (
        trn(
            "{n} operator ran on the AICPU or the host, {share:.1f} % of the device's time:",
            "{n} operators ran on the AICPU or the host, {share:.1f} % of the device's time:",
            len(slow),
            share=share,
        )
        if slow
        else tr("Nothing ran on the AICPU or the host. What took longest:")
    )
    header = [tr("operator"), tr("core"), tr("calls"), tr("ms")]
    rows = [(each.name, each.core, each.calls, f"{each.microseconds / 1000:.2f}")
            for each in (*slow, *rest)]  # fmt: skip
    return f"{said}\n\n{Table(header, rows, heads=True).markdown()}"


def page(card: Card) -> str:
    """Return what was found on a card, as a page of Markdown."""
    return Page(card).markdown()


def read(folder: Path) -> list[Card]:
    """Return the cards whose files lie in a folder, the oldest first; simulated ones are none."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            card = Card.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise TutorialError(
                tr(
                    "{file} is no card's: restore it with git, or make it anew with 'make card'.",
                    file=paths.shown(file),
                )
            ) from error
        if not card.simulated:
            found.append(card)
    return sorted(found, key=lambda card: card.day)


def overview(cards: Iterable[Card]) -> str:
    """Return the table of real cards; a sentence where there is none."""
    rows = []
    for card in cards:
        for each in card.steps:
            if each.setting or each.kernels == "default" or each.fault:
                continue
            rows.append(
                (
                    card.name,
                    card.versions.get("CANN") or card.versions.get("torch", "-"),
                    str(card.day),
                    each.model,
                    _label(each.method),
                    _number(each.tokens_per_second, ".0f"),
                    _number(each.allocated_bytes, ".2f", GIB),
                    _number(each.planned_bytes, ".2f", GIB),
                )
            )
    if not rows:
        return tr(
            "No real card was measured yet. Whoever has one for ten minutes fills this table: run "
            "'make card', and send its two files."
        )
    header = [tr("card"), tr("CANN or torch"), tr("day"), tr("model"), tr("method"), tr("tokens/s"),
              tr("allocated, GiB"), tr("planned, GiB")]  # fmt: skip
    return Table(header, rows, heads=True).markdown()
