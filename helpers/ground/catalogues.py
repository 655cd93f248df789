"""The catalogues of languages: gathered, checked, and compiled for words.py (Babel).

A language is a folder of helpers/words/: LC_MESSAGES/helpers.po holds what the helpers say, .mo
beside it is the same for the standard library's gettext, and terminology.toml says how the field's
terms are rendered. `make words` brings the first two up to date; `make lint` fails on whatever is
missing, fuzzy, stale, or not rendered as the terminology says.
"""

from __future__ import annotations

import io
import re
import string
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ground import paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog, Message

# Where readers' sentences stand, and who finds them there.
_SPEAKING = ("helpers", "book")
_SOURCES = [("**.py", "python"), ("**/faults.toml", "helpers.ground.words:sentences_of")]
_KEYWORDS = {"tr": None, "trn": (1, 2)}
_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_LINE = re.compile(r'\s*|#.*|(?:msg(?:ctxt|id|id_plural|str|str\[\d\])\s+)?"(?:[^"\\]|\\.)*"\s*')
# Placeholders, code, settings and files hold no terms.
_NO_WORDS = re.compile(r"\{[^{}]*\}|`[^`]+`|\b[A-Z_]+=|[\w./*-]+\.(?:yaml|json|py|md)\b")
_QUOTED = 70  # characters of a sentence that name it


def translated_languages() -> list[str]:
    """Return the languages that have catalogues: all but English."""
    return [name for name in words.languages() if name != words.SOURCE]


def sentences_file(language: str) -> Path:
    """Return the catalogue of what the helpers say in a language."""
    return words.CATALOGUES / language / "LC_MESSAGES" / f"{words.DOMAIN}.po"


def read(file: Path) -> Catalog:
    """Return a catalogue.

    Raises:
        TutorialError: it is missing, or does not parse.
    """
    from babel.messages.pofile import PoFileError, read_po

    try:
        content = file.read_bytes()
        _check_lines(content.decode())
        return read_po(io.BytesIO(content), abort_invalid=True)
    except FileNotFoundError as error:
        raise TutorialError(
            tr("{file} is missing: 'make words' begins it.", file=paths.shown(file))
        ) from error
    except (PoFileError, UnicodeDecodeError, ValueError) as error:
        raise TutorialError(
            tr(
                "The catalogue {file} does not parse ({reason}): put that line right, then run "
                "'make words'.",
                file=paths.shown(file),
                reason=" ".join(str(error).split()),
            )
        ) from error


def _check_lines(text: str) -> None:
    """Check what Babel lets pass: a string that is not closed loses its last letter there.

    Raises:
        ValueError: a line is none of a catalogue.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not _LINE.fullmatch(line):
            raise ValueError(f"line {number}: {line[:_QUOTED]}")


def write(file: Path, catalogue: Catalog) -> None:
    """Write a catalogue as a whole; what nobody says any more is left out."""
    from babel.messages.pofile import write_po

    from helpers.ground.files import write_bytes  # it needs packages, and the book has none of them

    buffer = io.BytesIO()
    write_po(buffer, catalogue, ignore_obsolete=True)
    write_bytes(file, buffer.getvalue())


def empty(language: str) -> Catalog:
    """Return a catalogue of a language without a sentence."""
    from babel.messages.catalog import Catalog

    return Catalog(
        language,
        domain=words.DOMAIN,
        project="lora-against-qlora",
        version="1",
        header_comment="# What readers read, in one language: helpers/ground/catalogues.py.",
        msgid_bugs_address="-",
        last_translator="-",
        language_team="-",
        # Only what is said makes a difference between two commits.
        creation_date=_DAY,
        revision_date=_DAY,
        fuzzy=False,
    )


def choose(language: str = words.AUTO) -> None:
    """Set the language for this process: "auto" is the one that is set already, or that fits.

    Raises:
        TutorialError: there is no such language, or its catalogue is damaged.
    """
    words.choose(language)
    told = words.asked()
    if told is not None and told not in words.languages():
        words.choose(words.AUTO)
        raise TutorialError(
            tr(
                "LANGUAGE={told!r} is not understood: say {known}.",
                told=told,
                known=tr(" or ").join(words.languages()),
            )
        )
    if damage := words.damage(words.language()):
        raise TutorialError(
            tr(
                "The catalogue {file} cannot be read ({reason}): run 'make words', or add "
                "LANGUAGE=en to the command meanwhile.",
                file=paths.shown(sentences_file(words.language()).with_suffix(".mo")),
                reason=damage,
            )
        )


@cache
def said() -> Catalog:
    """Return every sentence that the helpers and the book's builder say, untranslated."""
    from babel.messages.extract import extract_from_dir

    found = empty(words.SOURCE)
    options = {"encoding": "utf-8"}
    for folder in _SPEAKING:
        for _, _, message, comments, context in extract_from_dir(
            str(paths.ROOT / folder), _SOURCES, {"**.py": options}, _KEYWORDS
        ):
            found.add(message, auto_comments=comments, context=context)
    return found


def entries(catalogue: Iterable[Message]) -> Iterator[Message]:
    """Yield a catalogue's entries without its header."""
    return (message for message in catalogue if message.id)


def forms(text: str | Iterable[str] | None) -> list[str]:
    """Return the forms of an id or a translation: one, or one for each plural."""
    return [text or ""] if text is None or isinstance(text, str) else list(text)


def compiled(catalogue: Catalog) -> bytes:
    """Return a catalogue as gettext reads it."""
    from babel.messages.mofile import write_mo

    buffer = io.BytesIO()
    write_mo(buffer, catalogue)
    return buffer.getvalue()


def gather(language: str) -> Catalog:
    """Bring a language's sentences up to date with what the helpers say, and compile them.

    A sentence whose English has changed keeps its translation, marked fuzzy.

    Raises:
        TutorialError: the catalogue does not parse.
    """
    from helpers.ground.files import write_bytes

    file = sentences_file(language)
    catalogue = read(file) if file.is_file() else empty(language)
    catalogue.update(said(), update_creation_date=False)
    for message in entries(catalogue):
        if isinstance(message.id, tuple):
            told = (*forms(message.string), *[""] * catalogue.num_plurals)
            message.string = told[: catalogue.num_plurals]
    write(file, catalogue)
    catalogue = read(file)
    write_bytes(file.with_suffix(".mo"), compiled(catalogue))
    return catalogue


# ---- what is wrong with a catalogue -------------------------------------------------------------


def fields(text: str) -> set[str]:
    """Return the names of a sentence's placeholders.

    Raises:
        ValueError: a brace is not closed.
    """
    return {
        re.split(r"[.\[]", name)[0]
        for _, name, _, _ in string.Formatter().parse(text)
        if name is not None
    }


def placeholder_faults(
    english: str | Iterable[str], translation: str | Iterable[str] | None
) -> list[str]:
    """Return what is wrong with the placeholders of a translation, in words."""
    wanted = set().union(*(fields(form) for form in forms(english)))
    faults = []
    for form in forms(translation):
        try:
            found = fields(form)
        except ValueError as error:
            faults.append(tr("its braces do not match ({reason})", reason=error))
            continue
        # A singular may leave its number out; Chinese has one form, which says it.
        missing, foreign = wanted - found, found - wanted
        if missing:
            faults.append(tr("its translation lacks {names}", names=_braced(missing)))
        if foreign:
            faults.append(tr("its translation has {names}", names=_braced(foreign)))
    return faults


def _braced(names: Iterable[str]) -> str:
    return words.series(f"{{{name}}}" for name in sorted(names))


def terminology(language: str) -> dict[str, dict[str, list[str]]]:
    """Return how terms are rendered in a language: by the English, what to say and what not."""
    file = words.CATALOGUES / language / "terminology.toml"
    try:
        found = tomllib.loads(file.read_text("utf-8"))["terms"]
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, KeyError, UnicodeDecodeError) as error:
        raise TutorialError(
            tr("The terminology {file} does not parse ({reason}): put that right.",
               file=paths.shown(file), reason=error)
        ) from error  # fmt: skip
    return {term: {key: forms(value) for key, value in how.items()} for term, how in found.items()}


def term_faults(english: str, translation: str, language: str) -> list[str]:
    """Return where a translation does not say the field's terms as its terminology does."""
    faults = []
    english = _NO_WORDS.sub(" ", english)
    for term, how in terminology(language).items():
        if not re.search(rf"(?<![\w-]){term}(?:s|es)?(?![\w-])", english, re.IGNORECASE):
            continue
        if not any(form.lower() in translation.lower() for form in how["say"]):
            faults.append(
                tr("'{term}' is not rendered as {forms}", term=term, forms=" / ".join(how["say"]))
            )
        faults += [
            tr("'{term}' is rendered as {form}, which it is not", term=term, form=form)
            for form in how.get("not", [])
            if form in translation
        ]
    return faults


def entry_faults(message: Message, language: str) -> list[str]:
    """Return what is wrong with one entry, in words; its placeholders are not looked at."""
    if not all(forms(message.string)):
        return [tr("it is not translated")]
    if message.fuzzy:
        return [tr("it is fuzzy, for its English has changed since, or it was guessed")]
    # In the plural, which says more.
    return term_faults(forms(message.id)[-1], forms(message.string)[-1], language)


def faults(language: str) -> list[str]:
    """Return what is wrong with what the helpers say in a language, one line each.

    Raises:
        TutorialError: the catalogue or the terminology does not parse.
    """
    file = sentences_file(language)
    catalogue = read(file)
    found = []
    for message in entries(said()):
        name = forms(message.id)[0]
        entry = catalogue.get(name)
        wrong = [tr("it is not in the catalogue; run 'make words'")] if entry is None else []
        if entry is not None:
            wrong = entry_faults(entry, language)
            if all(forms(entry.string)):
                wrong += placeholder_faults(message.id, entry.string)
        found += [f"{language}, {name[:_QUOTED]!r}: {what}" for what in wrong]
    found += [
        f"{language}, {forms(m.id)[0][:_QUOTED]!r}: "
        + tr("nobody says it any more; run 'make words'")
        for m in entries(catalogue)
        if said().get(forms(m.id)[0]) is None
    ]
    mo = file.with_suffix(".mo")
    if not mo.is_file() or mo.read_bytes() != compiled(catalogue):
        found.append(
            tr("{file} is older than its catalogue: run 'make words'.", file=paths.shown(mo))
        )
    return found
