"""Figures in Chinese, with the shipped font alone: no character is a box."""

from __future__ import annotations

import io
import textwrap
import warnings
import zipfile
from pathlib import Path

import matplotlib
import pytest
from fontTools.ttLib import TTFont
from matplotlib.text import Text

from helpers.ground import catalogues, drawing, fonts, words

DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
MOST_BYTES = 1_500_000


def drawn(text: str) -> bytes:
    figure, (ax,) = drawing.new_figure(1, "", textwrap.fill(text, 80), height=6)
    ax.plot([1, 2], label="一二")
    ax.legend()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return drawing.as_png(figure)


def test_every_translated_character_is_in_the_fonts_of_figures() -> None:
    """If this fails: `make font`."""
    known = {chr(code) for file in (fonts.FILE, DEJAVU) for code in TTFont(file).getBestCmap()}
    assert fonts.spoken() - known == set()
    assert len(fonts.spoken()) > 500


def test_nothing_that_is_said_in_chinese_is_drawn_as_a_box() -> None:
    signs = "".join(sorted(fonts.spoken()))
    for start in range(0, len(signs), 400):
        assert drawn(signs[start : start + 400])


def test_a_character_that_no_font_has_is_found() -> None:
    with pytest.raises(UserWarning, match=r"Glyph .* missing"):
        drawn("\N{CJK UNIFIED IDEOGRAPH-9F98}\N{HANGUL SYLLABLE GA}")


def test_latin_text_is_drawn_with_the_font_that_it_always_had() -> None:
    figure, _ = drawing.new_figure(1, "Loss 训练")
    drawing.as_png(figure)
    families = {tuple(text.get_fontfamily()) for text in figure.findobj(Text)}
    assert families == {("DejaVu Sans", "Noto Sans SC")}
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]  # the reader's own figures


def test_the_font_is_small_and_its_licence_lies_beside_it() -> None:
    assert fonts.FILE.stat().st_size < MOST_BYTES
    assert "SIL OPEN FONT LICENSE" in fonts.LICENCE.read_text("utf-8")
    said = {str(name) for name in TTFont(fonts.FILE)["name"].names}
    assert any("SIL Open Font License" in each for each in said)
    assert "Noto Sans SC" in said


def test_a_part_of_a_font_has_what_is_said_and_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made of the shipped font, which is a part already: the whole one is 8 MB."""
    monkeypatch.setattr(fonts, "_common", lambda: iter("一"))
    monkeypatch.setattr(fonts, "spoken", lambda: {"训"})
    monkeypatch.setattr(fonts, "FILE", tmp_path / "part.otf")
    monkeypatch.setattr(fonts, "LICENCE", tmp_path / "OFL.txt")
    whole = words.CATALOGUES / "zh/NotoSansSC.otf"
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.write(whole, "fonts/NotoSansSC-Regular.otf")
        wheel.writestr("fonts.dist-info/licenses/LICENSE", "as it is")
    fonts.main(tmp_path / "a.whl")
    assert set(TTFont(io.BytesIO(fonts.FILE.read_bytes())).getBestCmap()) == {ord("一"), ord("训")}
    assert fonts.LICENCE.read_text() == "as it is"


def test_what_is_spoken_is_what_the_catalogues_hold() -> None:
    entry = next(iter(catalogues.entries(catalogues.read(catalogues.sentences_file("zh")))))
    assert {sign for sign in str(entry.string) if not sign.isascii()} <= fonts.spoken()
