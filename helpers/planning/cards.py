"""What cards can do: configs/cards.yaml."""

from __future__ import annotations

from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.ground.words import series, tr

Range = tuple[float, float]  # in a slow case, in a fast one


class Card(BaseModel):
    """A card, as its maker describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["npu", "cuda"]
    names: tuple[str, ...] = Field(min_length=1)
    tflops: float = Field(gt=0)
    terabytes: float = Field(gt=0)
    gib: float = Field(gt=0)
    checked: bool


class Efficiencies(BaseModel):
    """How much of what a card can do is had by eager PyTorch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    matrix: Range
    attention: Range
    memory: Range
    kernel: Range  # microseconds that a kernel takes at least
    call: Range  # microseconds that the host takes to ask for one


class Catalogue(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cards: dict[str, Card]
    efficiencies: dict[Literal["npu", "cuda"], Efficiencies]


@cache
def catalogue() -> Catalogue:
    """Return what configs/cards.yaml says.

    Raises:
        TutorialError: the file is missing, or does not hold what it should.
    """
    file = paths.CONFIGS / "cards.yaml"
    try:
        # YAML reads a name such as 4090 as a number.
        found = read_yaml(file)
        found["cards"] = {str(name): card for name, card in found["cards"].items()}
        return Catalogue.model_validate(found)
    except (KeyError, AttributeError, ValidationError) as error:
        raise TutorialError(
            tr(
                "{file} is no catalogue of cards: restore the file with git.",
                file=paths.shown(file),
            )
        ) from error


def named(name: str) -> str:
    """Return how the catalogue calls the card that CARD= names.

    Raises:
        TutorialError: there is none of that name; the sentence says which there are.
    """
    known = catalogue().cards
    found = next((key for key in known if key.lower() == name.strip().lower()), None)
    if found is None:
        raise TutorialError(
            tr(
                "CARD={name!r} is not in configs/cards.yaml: choose one of {known}, or add it "
                "there.",
                name=name[:60],
                known=series(known),
            )
        )
    return found


def recognised(name: str) -> str | None:
    """Return how the catalogue calls a card that calls itself `name`; None: it does not."""
    for key, card in catalogue().cards.items():
        if any(part.lower() in name.lower() for part in card.names):
            return key
    return None
