"""The processes of one training, a card each: which of them this is, and what all have found.

A training on one card is the only process of its own, and none of this starts anything.
"""

from __future__ import annotations

import os
import re
from typing import Any, TypeVar

Found = TypeVar("Found")


def is_first() -> bool:
    """Return whether this is the process that tells what happens, as torchrun counts them."""
    return os.environ.get("RANK", "0") == "0"


def mend_resuming() -> None:
    """Let several processes of a CPU go on from a checkpoint.

    transformers 5.6 has each load the optimizer's state onto its own device, which is "cpu:0" to
    accelerate, a name that torch 2.10 refuses to load onto.
    """
    from torch import serialization

    def here(storage: Any, location: str) -> Any:
        return storage if re.fullmatch(r"cpu:\d+", location) else None

    if "RANK" in os.environ:
        serialization.register_package(1, lambda storage: None, here)


def gathered(found: Found) -> list[Found]:
    """Return what every process gives here, in their order; all of them must come here.

    Args:
        found: this one's; of a kind that can be pickled.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [found]
    everywhere: list[Found] = [found] * distributed.get_world_size()
    distributed.all_gather_object(everywhere, found)
    return everywhere
