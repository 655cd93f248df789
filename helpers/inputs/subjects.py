"""What is compared: the base model, each method's adapter, and each merged model.

One registry: a subject's name, its label, its colour, what makes it and what it stands on. The name
is that of its files and folders in a run.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from helpers.ground.words import tr
from helpers.inputs.methods import Method

BASE = "base"
Kind = Literal["base", "adapter", "merged"]
# The weights under a merged model: the original 16-bit ones, or the 4-bit ones expanded again.
Weights = Literal["original", "dequantised"]

_GREY = "#7f7f7f"
# Okabe and Ito's palette (2008), which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LIGHTER = {"original": 0.35, "dequantised": 0.6}


@dataclass(frozen=True)
class Subject:
    """One of what is compared."""

    name: str
    kind: Kind
    colour: str  # "#rrggbb"
    method: Method | None = None  # whose adapter
    weights: Weights | None = None  # of a merged model

    @property
    def label(self) -> str:
        """What readers know it by."""
        if self.method is None:
            return tr("base model")
        if self.weights is None:
            return self.method.label
        if not self.method.quantised:
            return tr("{method}, merged", method=self.method.label)
        if self.weights == "original":
            return tr("{method}, merged (16-bit base)", method=self.method.label)
        return tr("{method}, merged (dequantised base)", method=self.method.label)

    @property
    def made_by(self) -> str:
        """The notebook that makes it and its record."""
        from helpers.inputs import methods

        if self.kind == "merged":
            return "05_merge"
        first = self.method is None or self.method.name == methods.default()[0]
        return "03_lora" if first else "04_qlora"


def _lighter(colour: str, by: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    mixed = colorsys.hls_to_rgb(hue, lightness + (1 - lightness) * by, saturation * 0.6)
    return "#" + "".join(f"{round(255 * part):02x}" for part in mixed)


def of(methods: Sequence[Method]) -> dict[str, Subject]:
    """Return all that a run with these methods compares, by name, in the order of its tables."""
    found = [Subject(BASE, "base", _GREY)]
    colours = {method.name: _COLOURS[place % len(_COLOURS)] for place, method in enumerate(methods)}
    found += [Subject(m.name, "adapter", colours[m.name], m) for m in methods]
    for m in methods:
        kinds: tuple[tuple[str, Weights], ...] = (("_merged", "original"),)
        if m.quantised:
            kinds += (("_merged_dequantised", "dequantised"),)
        found += [
            Subject(
                m.name + end, "merged", _lighter(colours[m.name], _LIGHTER[weights]), m, weights
            )
            for end, weights in kinds
        ]
    return {subject.name: subject for subject in found}
