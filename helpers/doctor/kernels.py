"""Which 4-bit kernels an NPU uses: measured here once, and kept with the versions it holds for."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import Literal

from pydantic import BaseModel

from helpers.doctor.host import Check, fail, ok, warn
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr


class Kernels(BaseModel):
    """What was found; nothing here loads torch but `look_at_kernels`."""

    source: Literal["asked", "kept", "measured", "built in", "others"]
    formulation: str = ""
    piece: int = 0  # weights
    nanoseconds: float | None = None  # a weight; of the default backend likewise
    default_nanoseconds: float | None = None
    wrong: str = ""  # what TUTORIAL_KERNELS asks for, where there is no such thing
    fault: str = ""  # why it could not be measured


def look_at_kernels(device: str) -> Kernels:
    """Return what a device uses, measured now where that was not done with these versions.

    Only for the doctor's probe: it loads torch and takes the device for a few seconds.
    """
    from helpers.worker import kernel_choice, kernel_timing, npu_4bit

    if not npu_4bit.registered():
        return Kernels(source="others")
    try:
        wanted = kernel_choice.asked()
    except ValueError as error:
        return Kernels(source="built in", wrong=str(error))
    if wanted:
        return Kernels(source="asked", formulation=wanted.formulation, piece=wanted.piece)
    found, source = kernel_choice.kept(device), "kept"
    if found is None:
        source = "measured"
        try:
            found = kernel_timing.measure(device)
        except RuntimeError:
            built_in = kernel_choice.BUILT_IN
            return Kernels(
                source="built in", formulation=built_in.formulation, piece=built_in.piece,
                fault=traceback.format_exc(),
            )  # fmt: skip
        with suppress(TutorialError):  # a place that cannot be written: measured anew each time
            kernel_choice.keep(device, *found)
    choice, timings = found
    of_default = [t.nanoseconds for t in timings if t.formulation == "default"]
    return Kernels.model_validate(
        {
            "source": source,
            "formulation": choice.formulation,
            "piece": choice.piece,
            "nanoseconds": next((t.nanoseconds for t in timings if t.choice == choice), None),
            "default_nanoseconds": min(of_default, default=None),
        }
    )


def described(formulation: str, piece: int) -> str:
    """Return a formulation and its piece in words."""
    if formulation == "default":
        return tr("bitsandbytes' default backend")
    sizes = {"pairs4": 4, "pairs8": 8}
    return tr(
        "pairs of codes in {size} bytes, {piece:.1f} million weights at a time",
        size=sizes[formulation],
        piece=piece / 1e6,
    )


def check(seen: Kernels) -> Check:
    """Which 4-bit kernels QLoRA has on the NPU, and where that was found out."""
    name = tr("4-bit kernels")
    if seen.wrong:
        return fail(
            name,
            tr("TUTORIAL_KERNELS={asked} names none", asked=seen.wrong),
            tr(
                "Run 'unset TUTORIAL_KERNELS', or set it to pairs4, pairs8 or default, with the "
                "weights of a piece if you like, as in pairs4:8388608."
            ),
        )
    if seen.source == "others":
        return ok(name, tr("another package's"))
    what = described(seen.formulation, seen.piece)
    if seen.source == "built in":
        return warn(
            name,
            tr("{what}; their speed could not be measured", what=what),
            tr(
                "Make sure that no other program holds the card's memory, run 'make doctor' again, "
                "or choose kernels with TUTORIAL_KERNELS=default."
            ),
        )
    if seen.source == "asked":
        return ok(name, tr("{what}, as TUTORIAL_KERNELS says", what=what))
    if seen.nanoseconds is None or seen.default_nanoseconds is None:
        return ok(name, what)
    return ok(
        name,
        tr(
            "{what}: measured on this card, {own:.3f} ns a weight, and {default:.3f} with the "
            "default backend",
            what=what,
            own=seen.nanoseconds,
            default=seen.default_nanoseconds,
        ),
    )
