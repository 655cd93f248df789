"""The Chinese catalogue is whole; and whatever can be wrong with one is found, and named."""
# ruff: noqa: RUF001

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

from helpers.ground import catalogues, words
from helpers.ground.errors import TutorialError

ENGLISH = "There is no profile {name!r}: choose one of {known}."


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The catalogues, to be damaged."""
    folder = tmp_path / "words"
    shutil.copytree(words.CATALOGUES, folder, ignore=shutil.ignore_patterns("*.otf"))
    monkeypatch.setattr(words, "CATALOGUES", folder)
    return folder


def changed(change: Callable[[Catalog], object]) -> list[str]:
    """Return the faults of the catalogue after a change, compiled again."""
    file = catalogues.sentences_file("zh")
    catalogue = catalogues.read(file)
    change(catalogue)
    catalogues.write(file, catalogue)
    file.with_suffix(".mo").write_bytes(catalogues.compiled(catalogues.read(file)))
    return catalogues.faults("zh")


def test_the_catalogue_has_no_fault() -> None:
    assert catalogues.faults("zh") == []
    assert len(list(catalogues.entries(catalogues.said()))) > 700


def test_a_missing_translation_is_named(copied: Path) -> None:
    def emptied(catalogue: Catalog) -> None:
        catalogue[ENGLISH].string = ""

    assert changed(emptied) == [f"zh, {ENGLISH[:70]!r}: it is not translated"]


def test_a_sentence_that_the_catalogue_lacks_and_one_that_nobody_says(copied: Path) -> None:
    def renamed(catalogue: Catalog) -> None:
        catalogue.delete(ENGLISH)
        catalogue.add("There was no profile.", "没有。")

    lacking, extra = changed(renamed)
    assert "not in the catalogue; run 'make words'" in lacking
    assert "There was no profile." in extra
    assert "nobody says it any more" in extra


def test_a_fuzzy_translation_is_no_translation(copied: Path) -> None:
    def fuzzy(catalogue: Catalog) -> None:
        catalogue[ENGLISH].flags.add("fuzzy")

    [fault] = changed(fuzzy)
    assert "it is fuzzy" in fault
    assert "no profile" in fault


@pytest.mark.parametrize(
    ("translation", "fault"),
    [
        ("没有：请从 {known} 中选择。", "lacks {name}"),
        ("没有配置档 {name!r}：请从 {known} 中选择，{other}。", "has {other}"),
        ("没有配置档 {name!r：请从 {known} 中选择。", "braces do not match"),
    ],
)
def test_placeholders_are_the_same(copied: Path, translation: str, fault: str) -> None:
    def planted(catalogue: Catalog) -> None:
        catalogue[ENGLISH].string = translation

    assert any(fault in line and "no profile" in line for line in changed(planted))


def test_a_sentence_about_several_things_has_one_form_with_their_number() -> None:
    assert catalogues.placeholder_faults(("{n} card", "{n} cards"), ("{n} 张卡",)) == []
    [fault] = catalogues.placeholder_faults(("one card", "{n} cards"), ("卡",))
    assert "lacks {n}" in fault


def test_terms_are_rendered_as_the_terminology_says(copied: Path) -> None:
    (copied / "zh/terminology.toml").write_text(
        '[terms."optimizer step"]\nsay = ["优化器步"]\nnot = ["最优化步骤"]\n', "utf-8"
    )
    for translation, fault in (
        ("第 3 个优化器步", None),
        ("第 3 步", "'optimizer step' is not rendered as 优化器步"),
        ("优化器步，即最优化步骤", "is rendered as 最优化步骤"),
    ):
        found = catalogues.term_faults("Optimizer steps: 3", translation, "zh")
        assert [fault in line for line in found] == ([True] if fault else [])
    assert catalogues.term_faults("an optimizer stepping", "别的", "zh") == []


def test_a_compiled_catalogue_that_is_older_is_found(copied: Path) -> None:
    catalogues.sentences_file("zh").with_suffix(".mo").write_bytes(b"")
    assert "older than its catalogue" in catalogues.faults("zh")[-1]


@pytest.mark.parametrize("damage", ['msgid "open\nmsgstr ""\n', "nonsense\n", "\xff"])
def test_a_catalogue_that_does_not_parse_is_one_sentence(copied: Path, damage: str) -> None:
    file = catalogues.sentences_file("zh")
    file.write_bytes(file.read_bytes() + damage.encode("latin-1"))
    with pytest.raises(TutorialError, match=r"helpers\.po does not parse .*make words"):
        catalogues.read(file)


def test_a_terminology_that_does_not_parse_is_one_sentence(copied: Path) -> None:
    (copied / "zh/terminology.toml").write_text("[terms", "utf-8")
    with pytest.raises(TutorialError, match=r"terminology .* does not parse"):
        catalogues.terminology("zh")


def test_gathering_keeps_what_is_translated_and_brings_in_what_is_new(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = catalogues.empty("en")
    now.add(ENGLISH)
    now.add("Nobody has said this before, in any words.")
    now.add(("{n} zebra", "{n} zebras"))
    monkeypatch.setattr(catalogues, "said", lambda: now)
    found = catalogues.gather("zh")
    before = catalogues.read(
        Path(catalogues.__file__).parents[1] / "words/zh/LC_MESSAGES/helpers.po"
    )
    assert found[ENGLISH].string == before[ENGLISH].string
    assert found["Nobody has said this before, in any words."].string == ""
    assert found[("{n} zebra", "{n} zebras")].string == ("",)
    assert len(list(catalogues.entries(found))) == 3


def test_changed_english_keeps_its_translation_as_fuzzy(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = catalogues.empty("en")
    changed = ENGLISH.replace("There is", "There was")
    now.add(changed)
    monkeypatch.setattr(catalogues, "said", lambda: now)
    entry = catalogues.gather("zh")[changed]
    assert entry.fuzzy
    assert entry.string
    assert words._read("zh").gettext(changed) == changed  # what is fuzzy is not spoken


# ---- which language ------------------------------------------------------------------------------


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (words.LANGUAGE, "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(words, "_chosen", [])
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LANGUAGE": "fr:zh_CN:en"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", words.LANGUAGE: "en"}, "en"),
        ({"LANG": "en_GB.UTF-8", words.LANGUAGE: "zh"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", words.LANGUAGE: ""}, "zh"),
    ],
)
def test_the_locale_counts_where_nothing_is_set(
    unset: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], wanted: str
) -> None:
    unset.chdir(tmp_path)
    for name, value in variables.items():
        unset.setenv(name, value)
    assert words.language() == wanted


def test_the_editions_folder_counts_more_than_the_locale_and_less_than_what_is_set(
    unset: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notebooks/zh").mkdir(parents=True)
    (tmp_path / "notebooks/xx").mkdir()
    unset.chdir(tmp_path / "notebooks/zh")
    assert words.language() == "zh"
    unset.chdir(tmp_path / "notebooks")
    unset.setenv("LANG", "zh_CN.UTF-8")
    assert words.language() == "en"
    unset.chdir(tmp_path / "notebooks/xx")
    assert words.language() == "zh"  # no edition
    unset.chdir(tmp_path / "notebooks")
    unset.setenv(words.LANGUAGE, "zh")
    assert words.language() == "zh"
    catalogues.choose("en")
    assert words.language() == "en"
    catalogues.choose("auto")
    assert words.language() == "zh"


def test_what_is_spoken_for_a_while_is_spoken_by_programs_too(unset: pytest.MonkeyPatch) -> None:
    import os

    with words.spoken("zh"):
        assert (words.language(), os.environ[words.LANGUAGE]) == ("zh", "zh")
    assert words.LANGUAGE not in os.environ
    unset.setenv(words.LANGUAGE, "en")
    with words.spoken("zh"):
        assert words.tr("yes") == "是"
    assert os.environ[words.LANGUAGE] == "en"


@pytest.mark.parametrize("told", ["xx", "ZH", "en_US", "../zh"])
def test_an_unknown_language_is_one_sentence(unset: pytest.MonkeyPatch, told: str) -> None:
    with pytest.raises(TutorialError, match="is not understood: say en or zh"):
        catalogues.choose(told)
    unset.setenv(words.LANGUAGE, told)
    with pytest.raises(TutorialError, match=r"LANGUAGE='.*' is not understood"):
        catalogues.choose()


@pytest.mark.parametrize("content", [b"", b"no catalogue", b"\xde\x12\x04\x95\x00\x00"])
def test_a_damaged_compiled_catalogue_is_one_sentence(
    unset: pytest.MonkeyPatch, copied: Path, content: bytes
) -> None:
    words._catalogue.cache_clear()
    catalogues.sentences_file("zh").with_suffix(".mo").write_bytes(content)
    with pytest.raises(TutorialError, match=r"helpers\.mo cannot be read .*make words"):
        catalogues.choose("zh")
    assert words.tr("yes") == "yes"
    words._catalogue.cache_clear()
