"""What there is to say of an Ascend host below torch, and of its card's memory.

The version table is public (helpers/machine/generations.py); nothing here was taken on an NPU.
"""

from __future__ import annotations

import os
from pathlib import Path

from packaging.version import Version

from helpers.doctor import host
from helpers.doctor.device import check_device_memory
from helpers.doctor.host import Check, fail, ok, warn
from helpers.doctor.probe import Probe, installed
from helpers.ground.words import series, tr
from helpers.machine import generations, npu_smi


def check_compatibility(
    torch: str | None, torch_npu: str | None, cann_version: str | None
) -> Check:
    """Do torch, torch_npu and CANN go together.

    Args:
        torch: the installed version, or None.
        torch_npu: the installed version, or None.
        cann_version: the version of the CANN in use, or None.
    """
    name = "torch, torch_npu, CANN"
    if torch_npu is None:
        return fail(
            name,
            tr("torch_npu is not installed"),
            tr("Run 'make setup': it adds the one that belongs to this machine's CANN."),
        )
    versions = {"torch": torch, "torch_npu": torch_npu, "cann": cann_version or tr("unknown")}
    if torch is None or Version(torch).release != Version(torch_npu).release:
        return fail(
            name,
            tr(
                "torch {torch}, torch_npu {torch_npu}, CANN {cann}: torch and torch_npu differ",
                **versions,
            ),
            tr("Run 'make setup': it installs the two versions that go together."),
        )
    if cann_version is None:
        return warn(
            name,
            tr("torch {torch}, torch_npu {torch_npu}, CANN {cann}", **versions),
            tr("Find out CANN's version and compare it with the README's."),
        )
    listed = generations.torch_npu_versions(cann_version)
    if not listed:
        return warn(
            name,
            tr(
                "torch {torch}, torch_npu {torch_npu}, CANN {cann}: this CANN is not in the table "
                "of tested versions",
                **versions,
            ),
            tr("Compare the versions with COMPATIBILITY.md of github.com/Ascend/pytorch."),
        )
    public = Version(torch_npu).public
    if public in listed:
        return ok(
            name,
            tr("torch {torch}, torch_npu {torch_npu}, CANN {cann}: they go together", **versions),
        )
    remedy = tr(
        "Run 'make setup': it installs what belongs to CANN {cann} (this torch_npu goes with "
        "{versions}).",
        cann=cann_version,
        versions=series(generations.canns_of(public)) or tr("none that is listed"),
    )
    if Version(public).release in {Version(version).release for version in listed}:
        return warn(
            name,
            tr(
                "torch {torch}, torch_npu {torch_npu}, CANN {cann}: another post release is listed "
                "for this CANN",
                **versions,
            ),
            remedy,
        )
    return fail(
        name,
        tr(
            "torch {torch}, torch_npu {torch_npu}, CANN {cann}: they do not go together",
            **versions,
        ),
        remedy,
    )


def _card_in_use(answer: npu_smi.Info | Exception) -> npu_smi.Card | None:
    """Return the card that training would use, or None if npu-smi does not show it."""
    if isinstance(answer, Exception):
        return None
    try:
        return npu_smi.card_in_use(answer)
    except npu_smi.UnreadableOutput:
        return None  # the check of ASCEND_RT_VISIBLE_DEVICES says what is wrong


def _holders(info: npu_smi.Info, card: npu_smi.Card) -> str:
    """Return who holds memory of a card, as a phrase."""
    phrases = []
    for held in info.processes:
        if (held.npu_id, held.chip_id) == (card.npu_id, card.chip_id):
            facts = {"pid": held.pid, "name": held.name, "memory": held.memory_mb}
            if held.name:
                phrases.append(tr("process {pid} ({name}) with {memory} MB", **facts))
            else:
                phrases.append(tr("process {pid} with {memory} MB", **facts))
    return series(phrases)


def check_npu_memory(seen: Probe, answer: npu_smi.Info | Exception, needed: float | None) -> Check:
    """Is there free memory on an NPU: by torch's figures, else npu-smi's, with its holders.

    A card that is full keeps torch from asking it, which is when the holders matter most.
    """
    free, total, holders = seen.free, seen.total, ""
    card = _card_in_use(answer)
    if card and isinstance(answer, npu_smi.Info):
        holders = _holders(answer, card)
        if free is None and card.hbm_used_mb is not None and card.hbm_total_mb is not None:
            free = (card.hbm_total_mb - card.hbm_used_mb) * npu_smi.MEGABYTE
            total = card.hbm_total_mb * npu_smi.MEGABYTE
    return check_device_memory(free, total, needed, holders)


def checks(root: Path, seen: Probe, answer: npu_smi.Info | Exception) -> list[Check]:
    """Return what there is to say about an Ascend host below torch.

    Args:
        root: the root of the file system.
        seen: what torch said.
        answer: what npu_smi.query returned or raised.
    """
    in_use = generations.cann_in_use(root) or seen.cann
    return [
        host.check_driver(root, answer),
        host.check_cann(root),
        host.check_set_env(root),
        check_compatibility(
            seen.torch or installed("torch"),
            seen.torch_npu or installed("torch-npu"),
            in_use,
        ),
        host.check_visible_devices(os.environ.get("ASCEND_RT_VISIBLE_DEVICES")),
    ]
