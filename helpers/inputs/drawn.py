"""The rows that were drawn, brought from their files into the order of the draw.

Files are read from beginning to end, and the sets are written in the order in which rows were
drawn. In between rows lie in a file without a name, so that memory does not grow with them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained
from helpers.ground.words import tr
from helpers.inputs import readers
from helpers.inputs.answers import Survey
from helpers.inputs.readers import Source
from helpers.inputs.rows import Layout, Row, row_of
from helpers.inputs.values import Fault

# So many are kept: data with a larger share of faults are refused.
_MOST_FAULTS = 50_000


class Drawn:
    """The drawn rows of some files, by their place in the draw: training first, then held-out.

    Args:
        sources: the files, looked through.
        layout: which of their columns are what.
        indices: the rows' numbers from 0 over all files, in the order of the draw.
        folder: where there is room for as much text as they hold.
    """

    def __init__(
        self, sources: Sequence[Source], layout: Layout, indices: Sequence[int], folder: Path
    ) -> None:
        self.survey = Survey()
        self.faults: dict[int, Fault] = {}  # by place; of too many, the first that were met
        self._sources, self._folder = sources, folder
        self._starts = np.cumsum([0, *(source.rows for source in sources)]).tolist()
        self._indices = np.asarray(indices, np.int64)
        self._numbers = np.zeros(len(indices), np.int64)  # as people count, within the file
        self._at = np.zeros(len(indices), np.int64)
        self._length = np.zeros(len(indices), np.int64)
        self._digests = np.zeros(len(indices), np.uint64)  # of what is asked
        self.kept = np.zeros(len(indices), bool)
        with refusals_explained(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        try:
            self._fill(layout)
        except BaseException:
            with suppress(OSError):  # on a full disk closing fails as well, and is not the cause
                self._file.close()
            raise

    def __enter__(self) -> Drawn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _fill(self, layout: Layout) -> None:
        places = np.argsort(self._indices, kind="stable")
        ordered = self._indices[places]
        for source, start in zip(self._sources, self._starts, strict=False):
            low, high = np.searchsorted(ordered, [start, start + source.rows])
            wanted = ordered[low:high] - start
            columns = [name for name in layout.columns.values() if name in source.columns]
            seen = 0
            found = readers.read(source, columns, wanted)
            for place, (number, values) in zip(places[low:high].tolist(), found, strict=False):
                self._numbers[place] = number
                self._take(place, row_of(values, layout))
                seen += 1
            if seen < len(wanted):
                raise TutorialError(
                    tr(
                        "{file} changed while it was read: let whatever writes it end, then run "
                        "this again.",
                        file=paths.shown(source.file),
                    )
                )
        with refusals_explained(self._folder):
            self._file.flush()

    def _take(self, place: int, row: Row | Fault) -> None:
        if isinstance(row, Fault):
            self.reject(place, row)
            return
        self.survey.see(row)
        packed = row.packed()
        self._at[place], self._length[place] = self._file.tell(), len(packed)
        with refusals_explained(self._folder):
            self._file.write(packed)
        digest = hashlib.blake2b(row.problem.encode(), digest_size=8).digest()
        self._digests[place] = int.from_bytes(digest, "big")
        self.kept[place] = True

    def rows(self, places: range) -> Iterator[tuple[int, Row]]:
        """Give the rows of some places that are no faults, each with its place."""
        handle = self._file.fileno()
        for place in places:
            if self.kept[place]:
                line = os.pread(handle, int(self._length[place]), int(self._at[place]))
                yield place, Row.unpacked(line)

    def reject(self, place: int, fault: Fault) -> None:
        """Take note that a row cannot be used."""
        self.kept[place] = False
        if len(self.faults) < _MOST_FAULTS:
            self.faults[place] = fault

    def where(self, place: int) -> tuple[str, int]:
        """Return the file of a row, as readers see it, and its number in it from 1."""
        source = self._sources[bisect_right(self._starts, int(self._indices[place])) - 1]
        return paths.shown(source.file), int(self._numbers[place])

    def repeated(self, places: range) -> int:
        """Return how many problems stand in some places for a second time, or a further one."""
        digests = self._digests[self._kept(places)]
        return len(digests) - len(np.unique(digests))

    def leaked(self, train: range, held_out: range) -> list[tuple[int, int]]:
        """Return the held-out problems that are training problems: (place, the training's place).

        Case and white space make no difference.
        """
        trained, kept = self._kept(train), self._kept(held_out)
        known, first = np.unique(self._digests[trained], return_index=True)
        if not len(known):
            return []
        at = np.minimum(np.searchsorted(known, self._digests[kept]), len(known) - 1)
        hits = known[at] == self._digests[kept]
        return list(zip(kept[hits].tolist(), trained[first[at[hits]]].tolist(), strict=True))

    def _kept(self, places: range) -> np.ndarray:
        return np.arange(places.start, places.stop)[self.kept[places.start : places.stop]]
