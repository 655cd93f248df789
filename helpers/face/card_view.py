"""What `make card` found: facts that show themselves, and the two files that are sent on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.face.boundary import bounded
from helpers.ground.files import write_bytes
from helpers.ground.shown import Shown, View

if TYPE_CHECKING:
    from helpers.records.card import Card


@bounded
@dataclass(frozen=True)
class CardView(View):
    """What was found on a card; `write` puts it into a folder."""

    card: Card
    folder: Path

    def shown(self) -> Shown:
        from helpers.results import card_page

        return card_page.steps(self.card)

    def write(self) -> list[Path]:
        """Write the JSON and the page, and return both files."""
        from helpers.calls import card
        from helpers.results import card_page

        stem = card.stem(self.card)
        found, page = self.folder / f"{stem}.json", self.folder / f"{stem}.md"
        write_bytes(found, (self.card.model_dump_json(indent=1) + "\n").encode())
        write_bytes(page, card_page.page(self.card).encode())
        return [found, page]
