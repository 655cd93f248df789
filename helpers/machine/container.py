"""What a container may take of this machine's memory, as its control group (cgroup) says."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

# Folder, limit and use, of both versions of control groups.
_FILES = (
    ("", "memory.max", "memory.current"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def _limits(root: Path) -> list[tuple[Path, int, str]]:
    """Return (folder, limit in bytes, name of the file that says what is used)."""
    found = []
    for name, limit, used in _FILES:
        folder = root / "sys/fs/cgroup" / name
        with suppress(OSError, ValueError):  # another version of cgroups, or "max": no limit
            found.append((folder, int((folder / limit).read_text()), used))
    return found


def limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the container's memory limit, in bytes; None where there is no limit.

    Version 1 says a number that no machine has where there is none.

    Args:
        root: the root of the file system.
    """
    return min((limit for _, limit, _ in _limits(root)), default=None)


def left_bytes(root: Path = Path("/")) -> int | None:
    """Return what the container's memory limit leaves, in bytes; None where there is no limit.

    Cached files count as used there, and are given back when memory is short.

    Args:
        root: the root of the file system.
    """
    left = []
    for folder, limit, used in _limits(root):
        with suppress(OSError, ValueError):
            cached = re.search(
                r"^(?:total_)?inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.M
            )
            freed = int(cached[1]) if cached else 0
            left.append(limit - int((folder / used).read_text()) + freed)
    return min(left, default=None)
