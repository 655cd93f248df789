"""The book: both editions as one site that needs no server. `make book` starts this.

Run by .venv-book, in which Sphinx, myst-nb and the theme are and nothing of the tutorial's, so of
helpers/ only what needs the standard library alone is used. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import html
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import book_pages  # noqa: E402

from helpers.ground import catalogues, words  # noqa: E402
from helpers.ground.errors import TutorialError  # noqa: E402
from helpers.ground.words import tr  # noqa: E402

MOST_BYTES = 30_000_000
_TAIL = 5  # lines of what Sphinx says


def _sphinx(source: Path, site: Path, language: str) -> subprocess.Popen[str]:
    environment = os.environ | {"BOOK_LANGUAGE": language, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html",
               "-c", str(HERE), "-d", str(source.parent / f"{language}.doctrees"),
               str(source), str(site / language)]  # fmt: skip
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _front(site: Path, languages: list[str]) -> None:
    """Write the page that leads to the editions."""
    links = "\n".join(
        f'<li><a hreflang="{each}" lang="{each}" href="{each}/index.html">'
        f"{html.escape(book_pages.titles(each)['language'])}</a></li>"
        for each in languages
    )
    (site / "index.html").write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        "<title>LoRA · QLoRA · LLaMA-Factory</title>\n"
        f"<h1>LoRA · QLoRA · LLaMA-Factory</h1>\n<ul>\n{links}\n</ul>\n</html>\n",
        "utf-8",
    )
    (site / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with "_"


def build(folder: Path) -> Path:
    """Build the site, and return its folder.

    Args:
        folder: takes sources and site.

    Raises:
        TutorialError: a page is missing, Sphinx warns of something, or the site is too large.
    """
    languages = list(words.languages())
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    trees = book_pages.build(folder / "sources", languages)
    site.mkdir(parents=True)
    started = {each: _sphinx(tree, site, each) for each, tree in trees.items()}
    ended = {each: (program.communicate()[0], program.returncode)
             for each, program in started.items()}  # fmt: skip
    for language, (said, code) in ended.items():
        if code:
            lines = [line for line in said.splitlines() if line.strip()]
            raise TutorialError(
                tr(
                    "Sphinx is not content with the book in {language}: put right what it names.",
                    language=language,
                ),
                tail="\n".join(lines[-_TAIL:]),
            )
        shutil.rmtree(site / language / ".doctrees", ignore_errors=True)
        (site / language / ".buildinfo").unlink(missing_ok=True)
    _front(site, languages)
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        raise TutorialError(
            tr(
                "The book takes {size} MB, and more than {most} are too many: make pictures "
                "smaller, and build it again.",
                size=f"{size / 1e6:.0f}",
                most=f"{MOST_BYTES / 1e6:.0f}",
            )
        )
    return site


def main() -> int:
    """Build the book; whatever fails ends in one sentence and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=HERE / "build")
    folder = parser.parse_args().folder
    begin = time.monotonic()
    try:
        catalogues.choose()
        site = build(folder)
    except TutorialError as error:
        print(error, file=sys.stderr)
        return 1
    shown = os.path.relpath(site / "index.html")
    took = tr("{n} s", n=f"{time.monotonic() - begin:.0f}")
    print(tr("{what} ({detail})", what=shown, detail=took))
    return 0


if __name__ == "__main__":
    sys.exit(main())
