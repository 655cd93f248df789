"""The words that readers read: looked up in the catalogue of their language when they are made.

The English sentence is the key (gettext's way). It stands where its meaning is made up, with its
placeholders by name: `tr("{method} fits: {peak} GiB planned", method=..., peak=...)`. Babel finds
every one of them (`make words`), and a language is one more catalogue in helpers/words/.

Which language: the one that is set (`Tutorial(language=...)`, then TUTORIAL_LANGUAGE, which `make
LANGUAGE=zh` sets); else the edition's, in whose folder the notebook's kernel works; else the
locale's.

Only the standard library is imported: the doctor speaks where packages are missing.
"""

from __future__ import annotations

import gettext
import os
import string
import struct
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, reduce
from pathlib import Path
from typing import BinaryIO

DOMAIN = "helpers"
CATALOGUES = Path(__file__).resolve().parents[1] / "words"
LANGUAGE = "TUTORIAL_LANGUAGE"  # names the environment variable; a language such as "zh"
SOURCE = "en"  # the language in which the sentences stand in the code
AUTO = "auto"
# What a POSIX system goes by, the weightiest first; LANGUAGE is GNU's list of preferences.
_LOCALE = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_EDITIONS = "notebooks"  # the folder of the English edition; the others' lie in it

# Full-width signs, which bring their own room: no space stands beside them.
_ROOMY = tuple("\u3001\u3002\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f")

_chosen: list[str] = []  # by the face, for this process


def _read(language: str) -> gettext.NullTranslations:
    if language == SOURCE:
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, CATALOGUES, [language])


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    # Whoever begins to speak asks for the damage first (catalogues.choose).
    return gettext.NullTranslations() if damage(language) else _read(language)


def damage(language: str) -> str:
    """Return why a language's catalogue cannot be read, as the library has it; "" where it can."""
    try:
        _read(language)
    except (OSError, ValueError, LookupError, struct.error) as error:
        return str(error) or type(error).__name__
    return ""


@cache
def languages() -> tuple[str, ...]:
    """Return the languages that there are: English, and each with a folder of catalogues."""
    found = sorted(folder.parent.name for folder in CATALOGUES.glob("*/LC_MESSAGES"))
    return (SOURCE, *found)


def of_folder(folder: Path) -> str | None:
    """Return the language of the edition that lies in a folder; None: it holds none."""
    if folder.name == _EDITIONS:
        return SOURCE
    inside = folder.parent.name == _EDITIONS and folder.name in languages()
    return folder.name if inside else None


def _of_locale() -> str:
    told = next((value for name in _LOCALE if (value := os.environ.get(name))), SOURCE)
    for wish in told.split(":"):
        name = wish.replace("-", "_").partition("_")[0].partition(".")[0].lower()
        if name in languages():
            return name
    return SOURCE


def asked() -> str | None:
    """Return the language that is set, whether there is such a one or not; None: none is."""
    told = _chosen[-1] if _chosen else os.environ.get(LANGUAGE)
    return told if told and told != AUTO else None


def language() -> str:
    """Return the language that readers are spoken to in."""
    told = asked()
    if told in languages():
        return str(told)
    try:
        edition = of_folder(Path.cwd())
    except OSError:  # the folder is gone
        edition = None
    return edition or _of_locale()


@contextmanager
def spoken(language: str) -> Iterator[None]:
    """Speak a language for a while, and let the programs that are started speak it, too."""
    chosen, told = list(_chosen), os.environ.get(LANGUAGE)
    _chosen[:], os.environ[LANGUAGE] = [language], language
    try:
        yield
    finally:
        _chosen[:] = chosen
        if told is None:
            os.environ.pop(LANGUAGE, None)
        else:
            os.environ[LANGUAGE] = told


def choose(language: str) -> None:
    """Set the language for this process; "auto" takes back what was chosen before."""
    _chosen[:] = [] if language == AUTO else [language]


def tr(text: str, /, **values: object) -> str:
    """Return a sentence in the reader's language, its placeholders filled in.

    Args:
        text: the English, with placeholders by name; a brace of its own is doubled.
        values: what goes into the placeholders.
    """
    return _filled(_catalogue(language()).gettext(text), values)


def trn(one: str, many: str, n: int, /, **values: object) -> str:
    """Return a sentence about `n` things, in the form that their number asks for; {n} is filled in.

    Args:
        one: the English for one thing.
        many: the English for any other number.
        n: how many.
        values: what goes into the other placeholders.
    """
    return _filled(_catalogue(language()).ngettext(one, many, n), values | {"n": n})


def _filled(text: str, values: Mapping[str, object]) -> str:
    """Return a sentence with its placeholders filled in; what is put in may begin or end with a
    sign that brings its own room, as the label of a merged model does in Chinese."""
    filled = ""
    for literal, name, form, conversion in string.Formatter().parse(text):
        if filled.endswith(_ROOMY):
            literal = literal.removeprefix(" ")
        filled += literal
        if name is None:
            continue
        placeholder = f"{{{name}{f'!{conversion}' if conversion else ''}:{form}}}"
        value = placeholder.format_map(values)
        if value.startswith(_ROOMY):
            filled = filled.removesuffix(" ")
        filled += value
    return filled


def series(items: Iterable[object]) -> str:
    """Return things one after the other, as a language lists them: "a, b", in Chinese "a、b"."""
    return tr(", ").join(map(str, items))


def clauses(said: Iterable[str]) -> str:
    """Return clauses of one sentence: "this; that"."""
    return tr("; ").join(said)


def phrases(said: Iterable[str]) -> str:
    """Return phrases of one sentence: "this, that", with a comma in Chinese, too."""
    first, *others = [*said] or [""]
    return reduce(lambda so_far, more: tr("{said}, {more}", said=so_far, more=more), others, first)


def sentences(said: Iterable[str]) -> str:
    """Return sentences one after the other, empty ones left out; a Chinese full stop or colon
    brings its own room."""
    text = ""
    for each in filter(None, said):
        gap = "" if not text or text.endswith(_ROOMY) else " "
        text += gap + each
    return text


def sentences_of(
    file: BinaryIO, keywords: object, comment_tags: object, options: object
) -> Iterator[tuple[int, str, str, list[str]]]:
    """Yield the sentences of programs/faults.toml: what Babel calls an extractor.

    Args:
        file: the TOML file.
        keywords: of no use here, as the two that follow.
        comment_tags: see above.
        options: see above.
    """
    for fault in tomllib.loads(file.read().decode())["faults"]:
        yield 1, "tr", fault["sentence"], []
