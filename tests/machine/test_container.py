"""A container's memory limit, in both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.machine import container

UNLIMITED = 9223372036854771712  # what version 1 says where there is no limit


def group(root: Path, **files: str) -> Path:
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit", "left"),
    [
        ({}, None, None),
        ({"memory_dot_max": "max\n", "memory_dot_current": "5"}, None, None),
        ({"memory_dot_max": "1000\n", "memory_dot_current": "600\n",
          "memory_dot_stat": "anon 500\ninactive_file 90\n"}, 1000, 490),
        ({"memory__memory_dot_limit_in_bytes": "2000", "memory__memory_dot_usage_in_bytes": "700",
          "memory__memory_dot_stat": "total_inactive_file 10\n"}, 2000, 1310),
        ({"memory__memory_dot_limit_in_bytes": f"{UNLIMITED}"}, UNLIMITED, None),
        ({"memory_dot_max": "1000\n"}, 1000, None),
    ],
)  # fmt: skip
def test_what_it_says(
    tmp_path: Path, files: dict[str, str], limit: int | None, left: int | None
) -> None:
    root = group(tmp_path, **files)
    assert container.limit_bytes(root) == limit
    assert container.left_bytes(root) == left
