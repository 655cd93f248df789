"""LoRA against QLoRA with LLaMA-Factory: what the six notebooks share.

`from helpers import Tutorial` is all that a reader has to know; helpers/README.md is the map.
It is loaded when it is asked for, so that `import helpers` costs nothing: bitsandbytes and the
doctor load single modules in processes where torch may be broken or not wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helpers.face.tutorial import Tutorial

__all__ = ["Tutorial"]


def __getattr__(name: str) -> Any:
    if name == "Tutorial":
        from helpers.face.tutorial import Tutorial

        return Tutorial
    raise AttributeError(f"module 'helpers' has no attribute {name!r}")
