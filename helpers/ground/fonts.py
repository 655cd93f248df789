"""The Chinese font of figures and of a report: a part of Noto Sans SC, shipped with its licence
(OFL).

matplotlib's own DejaVu Sans stays first, glyph by glyph, so that English figures are as they were.
`make font` makes the part: the characters of the catalogues, and GB 2312's level 1 with its signs,
so that a new sentence seldom needs a new font. No machine needs a CJK font of its own.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from helpers.ground import catalogues, words
from helpers.ground.files import write_bytes

FAMILIES = ["DejaVu Sans", "Noto Sans SC"]
FILE = words.CATALOGUES / "zh" / "NotoSansSC.otf"
LICENCE = FILE.with_name("OFL.txt")

# Rows of GB 2312: signs, numbers, letters; and level 1, the 3,755 most used characters.
_ROWS = (*range(0xA1, 0xA4), *range(0xB0, 0xD8))
RANGE = "U+2E80-9FFF, U+FF00-FFEF"  # as a style sheet says it: Chinese characters and signs
_CHINESE = re.compile("[\u2e80-\u9fff\uff00-\uffef]")
# Tables for editors, and for setting text from top to bottom.
_UNUSED = ["GSUB", "GPOS", "BASE", "VORG", "vhea", "vmtx", "DSIG"]


@cache
def register() -> None:
    """Tell matplotlib of the font, once a process."""
    from matplotlib import font_manager

    font_manager.fontManager.addfont(FILE)


def spoken() -> set[str]:
    """Return the characters beyond ASCII of all that is translated."""
    texts = (
        form
        for language in catalogues.translated_languages()
        for entry in catalogues.entries(catalogues.read(catalogues.sentences_file(language)))
        for form in catalogues.forms(entry.string)
    )
    return {sign for text in texts for sign in text if not sign.isascii()}


def _common() -> Iterator[str]:
    for row in _ROWS:
        for cell in range(0xA1, 0xFF):
            yield bytes([row, cell]).decode("gb2312", "ignore")


def for_page(page: str) -> bytes | None:
    """Return what of the font a page needs for its Chinese, as WOFF; None: it holds none.

    A page that is handed around may be opened where no font has these characters.
    """
    signs = set(_CHINESE.findall(page))
    return part_of(FILE.read_bytes(), signs, "woff") if signs else None


def part_of(font: bytes, signs: Iterable[str], flavour: str | None = None) -> bytes:
    """Return a part of a font.

    Args:
        font: Noto Sans SC, as an OpenType file.
        signs: which characters it is to have, as far as it has them.
        flavour: "woff" for browsers, which is smaller; None for OpenType.
    """
    from fontTools import subset
    from fontTools.ttLib import TTFont

    whole = TTFont(io.BytesIO(font), recalcTimestamp=False)
    options = subset.Options()
    options.layout_features, options.hinting, options.notdef_outline = [], False, True
    options.drop_tables += _UNUSED
    options.name_IDs = ["*"]  # its licence, too
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[ord(sign) for sign in signs if sign])
    subsetter.subset(whole)
    whole.flavor = flavour
    buffer = io.BytesIO()
    whole.save(buffer)
    return buffer.getvalue()


def main(wheel: Path) -> None:
    """Make the font from a wheel that carries Noto Sans SC, and put its licence beside it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        font = next(name for name in names if name.endswith("/NotoSansSC-Regular.otf"))
        licence = next(name for name in names if name.endswith("/licenses/LICENSE"))
        write_bytes(FILE, part_of(archive.read(font), {*_common(), *spoken()}))
        write_bytes(LICENCE, archive.read(licence))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
