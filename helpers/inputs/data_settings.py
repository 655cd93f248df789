"""Which problems a run takes, how many of them, and what they call their columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr
from helpers.inputs import rows

_MOST_ROWS = 10_000_000


class DataSettings(BaseModel):
    """Which problems, and how many of them."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(
        description="math10k, generated, the path of a file or folder, or a ModelScope id"
    )
    train: int = Field(gt=0, description="rows sampled from the first 90 %")
    eval: int = Field(gt=0, description="rows sampled from the last 10 %, held out")
    # The held-out loss of a training is followed on the first so many held-out problems; None: all.
    curve: int | None = Field(default=None, ge=2)
    # Merged models are asked the first so many; None: all.
    merged: int | None = Field(default=None, ge=1)
    # How far a merged model lies from base + adapter is measured on the first so many; None: all.
    divergence: int | None = Field(default=None, ge=1)
    # What a source calls its columns, by helpers/inputs/rows.py's names; "" for none.
    columns: dict[str, str] = {}


def rows_asked(asked: str, variable: str) -> int:
    """Return how many rows a reader asks for.

    Args:
        asked: what was said.
        variable: of what: TRAIN or EVAL.

    Raises:
        TutorialError: it is no number, or not one of rows.
    """
    asked = asked.strip()
    if not (asked.isascii() and asked.isdecimal()) or not 1 <= int(asked[:12]) <= _MOST_ROWS:
        raise TutorialError(
            tr(
                "{variable}={asked!r} is not understood: say a number of rows, from 1 to {most}.",
                variable=variable,
                asked=asked[:40],
                most=_MOST_ROWS,
            )
        )
    return int(asked)


def columns_asked(asked: str | Mapping[str, str]) -> dict[str, str]:
    """Return what a source calls its columns, by the names of helpers/inputs/rows.py.

    Args:
        asked: "instruction=question output=solution", or the same as a mapping.

    Raises:
        TutorialError: it has another form, or names a column that there is not.
    """
    if isinstance(asked, Mapping):
        pairs = {str(ours): str(theirs) for ours, theirs in asked.items()}
    else:
        try:
            words = shlex.split(asked)  # a name may hold spaces, between quotes
        except ValueError as error:
            raise TutorialError(
                tr("COLUMNS={asked!r} has a quote that is not closed.", asked=asked[:60])
            ) from error
        pairs = {}
        for word in words:
            ours, equals, theirs = word.partition("=")
            if not equals or ours in pairs:
                raise TutorialError(
                    tr(
                        "COLUMNS={asked!r} is not understood at {word!r}: say each column once, as "
                        'in COLUMNS="instruction=question output=solution".',
                        asked=asked[:60],
                        word=word[:40],
                    )
                )
            pairs[ours] = theirs
    unknown = [ours for ours in pairs if ours not in rows.COLUMNS]
    if unknown:
        raise TutorialError(
            tr(
                "COLUMNS= names {unknown!r} on the left of =, where one of {known} belongs: what "
                "the file calls it stands on the right.",
                unknown=unknown[0][:40],
                known=series(rows.COLUMNS),
            )
        )
    return pairs
