"""Whether torch works here, and computes on the device that the profile trains on."""

from __future__ import annotations

import re

from helpers.doctor.host import Check, fail, ok, warn
from helpers.doctor.probe import Probe
from helpers.doctor.resources import GB
from helpers.ground.words import series, tr, trn
from helpers.machine import hardware
from helpers.programs import faults, process

# NF4 with blocks of 64 leaves a relative error (root mean square) of 0.092 on normal weights, FP4
# one of 0.122 [measured with bitsandbytes 0.48.2]; a kernel that mixes weights up, one above 1.
NF4_ERROR_BOUND = 0.10


def _told(text: str) -> tuple[str, str]:
    """Return a finding and a remedy for what a program printed when it failed."""
    lines = [line.strip() for line in process.redacted(text).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(Error|Exception)\b.*:", line)]
    finding = (errors or lines or [tr("it ended without a word")])[-1]
    known = faults.recognise(text)
    remedy = tr(
        "Make the environment anew with 'make clean setup', and if that does not help report this "
        "message with your versions."
    )
    return finding[:300], known.sentence if known else remedy


def check_torch(seen: Probe) -> Check:
    """Can torch be imported at all."""
    name = tr("import torch")
    if seen.torch is None:
        return fail(name, *_told(seen.output))
    beside = f", torch_npu {seen.torch_npu}" if seen.torch_npu else ""
    return ok(name, f"torch {seen.torch}{beside}")


def _no_card(device: str) -> str:
    remedies = {
        "npu": tr(
            "Correct what the checks above found (driver, CANN, set_env.sh, torch_npu, "
            "ASCEND_RT_VISIBLE_DEVICES), or use PROFILE=cpu."
        ),
        "cuda": tr(
            "Make sure that nvidia-smi shows a card and that CUDA_VISIBLE_DEVICES names one, or "
            "use PROFILE=cpu."
        ),
    }
    return remedies[device]


def check_device(device: str, seen: Probe) -> Check:
    """Does torch see the device that the profile trains on: npu or cuda."""
    name = tr("{device} in torch", device=device.upper())
    if seen.cards is None:
        return fail(name, *_told(seen.device_fault or seen.output))
    if seen.cards == 0:
        known = faults.recognise(seen.output)
        return fail(name, tr("torch sees no card"), known.sentence if known else _no_card(device))
    if seen.device_fault:
        return fail(name, *_told(seen.device_fault))
    if seen.cards > 1:
        return ok(
            name,
            trn(
                "{n} card is visible, and only the first is used: {card}",
                "{n} cards are visible, and only the first is used: {card}",
                seen.cards,
                card=seen.name,
            ),
        )
    return ok(name, seen.name or tr("one card"))


def check_bf16(seen: Probe) -> Check:
    """The recipes compute in bf16; a card that cannot is no card for them."""
    if seen.bf16:
        return ok("bf16", tr("supported"))
    return fail(
        "bf16",
        tr("this card does not support it"),
        tr(
            "Use a card that does (Ascend 910B, NVIDIA Ampere or later), or train in fp16 with the "
            "overrides bf16=false fp16=true."
        ),
    )


def check_processor(computes_in: str) -> Check:
    """In which numbers a CPU profile trains, and whether the processor has bf16.

    Args:
        computes_in: bf16, fp16 or float32, as the run's settings have it.
    """
    name = tr("number format")
    if hardware.has_bf16():
        return ok(name, tr("{numbers}; the processor has bf16", numbers=computes_in))
    if computes_in == "bf16":
        return ok(name, tr("bf16, emulated and slow: the processor does not have it"))
    return ok(name, tr("{numbers}, as the processor has no bf16", numbers=computes_in))


def check_nf4(device: str, seen: Probe) -> Check:
    """Does bitsandbytes quantise to 4 bits and back on the device that is trained on."""
    name = tr("4-bit (NF4) round trip")
    if seen.nf4_error is None:
        return fail(name, *_told(seen.nf4_fault or seen.output))
    # Written so that NaN fails as well.
    if not seen.nf4_error <= NF4_ERROR_BOUND:
        return fail(
            name,
            tr(
                "relative error {error:.3f} on {device}, more than {most}",
                error=seen.nf4_error,
                device=device,
                most=NF4_ERROR_BOUND,
            ),
            tr(
                "Do not trust 4-bit training here: run 'make setup' to get the pinned "
                "bitsandbytes, and report this with the versions above."
            ),
        )
    fallen = faults.cpu_fallbacks(seen.output)
    if fallen:
        return warn(
            name,
            tr(
                "fell back from the NPU to the CPU, which is slow: {operators}",
                operators=series(fallen),
            ),
            tr("Install the CANN and torch_npu versions that the README names."),
        )
    return ok(
        name,
        tr(
            "relative error {error:.3f} on {device} (at most {most})",
            error=seen.nf4_error,
            device=device,
            most=NF4_ERROR_BOUND,
        ),
    )


def check_device_memory(
    free: int | None, total: int | None, needed: float | None, holders: str = ""
) -> Check:
    """Is there free memory on the card.

    Args:
        free: bytes, or None if that is not known.
        total: bytes, likewise.
        needed: bytes that training needs at the least, or None if that is not known.
        holders: which processes hold memory, as a phrase; empty if none or not known.
    """
    name = tr("free device memory")
    if free is None or total is None:
        return warn(
            name,
            tr("not known"),
            tr("Correct what the checks above found, and run this again."),
        )
    room = {"free": free / GB, "total": total / GB}
    if holders:
        return warn(
            name,
            tr("{free:.1f} of {total:.1f} GB; held by {holders}", holders=holders, **room),
            tr("End those processes, or wait for them."),
        )
    if needed is not None and free < needed:
        return warn(
            name,
            tr(
                "{free:.1f} of {total:.1f} GB, and training on the 16-bit model needs about "
                "{needed:.1f} GB",
                needed=needed / GB,
                **room,
            ),
            tr("Choose a smaller model with MODEL=, free the card, or train on a 4-bit one only."),
        )
    return ok(name, tr("{free:.1f} of {total:.1f} GB", **room))
