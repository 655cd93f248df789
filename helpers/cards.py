"""Which card a run uses: the first that the environment shows."""

from __future__ import annotations

import os
from collections.abc import Mapping


def first_visible(variable: str, env: Mapping[str, str] = os.environ) -> str:
    """Return the first card that a variable such as CUDA_VISIBLE_DEVICES shows, "0" without one."""
    return (env.get(variable) or "0").split(",")[0].strip()
