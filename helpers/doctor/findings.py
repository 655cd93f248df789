"""What the doctor found, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.doctor.host import Check
from helpers.ground.shown import Table
from helpers.ground.words import tr


def table(checks: Sequence[Check]) -> Table:
    """Return the doctor's list."""
    return Table(
        [tr("check"), tr("status"), tr("finding"), tr("what to do")],
        [(check.name, check.status.word, check.finding, check.remedy) for check in checks],
        heads=True,
    )
