"""The words that readers read: looked up in the catalogue of their language when they are made.

The English sentence is the key (gettext's way). It stands where its meaning is made up, with its
placeholders by name: `tr("{method} fits: {peak} GiB planned", method=..., peak=...)`. Babel finds
every one of them (`make words`), and a language is one more catalogue in helpers/words/.

Only the standard library is imported: the doctor speaks where packages are missing.
"""

from __future__ import annotations

import gettext
import os
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

DOMAIN = "helpers"
CATALOGUES = Path(__file__).resolve().parents[1] / "words"
LANGUAGE = "TUTORIAL_LANGUAGE"  # names the environment variable; a language such as "zh"


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, CATALOGUES, [language], fallback=True)


def language() -> str:
    """Return the language that readers are spoken to in: "en" unless the environment says."""
    return os.environ.get(LANGUAGE) or "en"


def tr(text: str, /, **values: object) -> str:
    """Return a sentence in the reader's language, its placeholders filled in.

    Args:
        text: the English, with placeholders by name; a brace of its own is doubled.
        values: what goes into the placeholders.
    """
    return _catalogue(language()).gettext(text).format_map(values)


def trn(one: str, many: str, n: int, /, **values: object) -> str:
    """Return a sentence about `n` things, in the form that their number asks for; {n} is filled in.

    Args:
        one: the English for one thing.
        many: the English for any other number.
        n: how many.
        values: what goes into the other placeholders.
    """
    return _catalogue(language()).ngettext(one, many, n).format_map(values | {"n": n})


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
