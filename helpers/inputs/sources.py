"""Where problems come from: Math10K, generated ones, a reader's file or folder, or ModelScope."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained, sha256_file, sha256_json
from helpers.ground.words import series, tr
from helpers.inputs import rows
from helpers.inputs.file_kinds import KINDS, SPELT, named_kind
from helpers.inputs.readers import explained, listed
from helpers.programs import process, steps
from helpers.programs.making import Making

MATH10K = "lmms-lab/Math10K"
MATH10K_FILE = "data/train-00000-of-00001.parquet"
GENERATED_ROWS = 10_000  # about what Math10K has
# What data sets hold beside their rows.
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "configuration.json", "config.json")
_TRAINING = re.compile(r"(?<![a-z])train(?:ing)?(?![a-z])")
_ID = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_.-]+")

Code = Literal["math10k", "generated", "file", "folder", "modelscope"]


@dataclass(frozen=True)
class Obtained:
    """The problems on this machine: files, and what they are."""

    source: Code
    name: str
    files: tuple[Path, ...]

    @property
    def ours(self) -> bool:
        """Whether it is one of the two that the tutorial comes with."""
        return self.source in ("math10k", "generated")

    @property
    def fetched(self) -> bool:
        """Whether the tutorial fetched or made it, so that it can do so again."""
        return self.ours or self.source == "modelscope"

    def sha256(self) -> str:
        """Return one SHA-256 over all of it: of one file its own.

        Raises:
            TutorialError: a file cannot be read.
        """
        hashes = []
        for file in self.files:
            with explained(file, self.fetched):
                hashes.append(sha256_file(file))
        return hashes[0] if len(hashes) == 1 else sha256_json(hashes)


def named(text: str) -> str:
    """Return what `DATA=` names: math10k, generated, a whole path, or a ModelScope id as it is.

    An id has the form owner/name, and nothing of that name lies here.

    Raises:
        TutorialError: it can be none of them.
    """
    if text in ("math10k", "generated"):
        return text
    path = paths.as_typed(text)
    owner = text.partition("/")[0]
    is_id = _ID.fullmatch(text) and named_kind(path) is None and not (paths.ROOT / owner).exists()
    return text if is_id and not path.exists() else str(path)


def from_hub(source: str) -> bool:
    """Return whether a source, as `named` gives it, comes from ModelScope."""
    return source == "math10k" or not (source == "generated" or Path(source).is_absolute())


def check(source: str) -> None:
    """Check that what a source names is there, if it is the path of something.

    Raises:
        TutorialError: there is neither a file nor a folder.
    """
    path = Path(source)
    if from_hub(source) or source == "generated" or path.is_dir() or path.is_file():
        return
    raise TutorialError(
        tr(
            "There is no file or folder {path}: DATA= takes math10k, generated, the path of a "
            "file ({kinds}) or of a folder of them, or a ModelScope id, owner/name.",
            path=paths.shown(path),
            kinds=series(KINDS),
        )
    )


def obtain(source: str, run: paths.RunFolder, say: Callable[[str], None] = print) -> Obtained:
    """Bring the problems to this machine.

    Math10K comes from ModelScope. Where ModelScope cannot be reached, generated problems take its
    place and `say` is told so; the records name what was used.

    Args:
        source: what `named` returned.
        run: takes logs, and generated problems.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: the named file or folder is missing or holds no rows, or a download failed.
    """
    if source == "generated":
        return Obtained("generated", "", (_generate(run, say),))
    if source == "math10k":
        return _math10k(run, say)
    if from_hub(source):
        return Obtained("modelscope", source, _in_folder(_from_modelscope(source, run), say))
    check(source)
    path = Path(source)
    if path.is_dir():
        return Obtained("folder", path.name, _in_folder(path, say))
    return Obtained("file", path.name, (path,))


# ---- the two that the tutorial comes with -------------------------------------------------------


def _math10k(run: paths.RunFolder, say: Callable[[str], None]) -> Obtained:
    folder = paths.MODELS / "Math10K"
    file = folder / MATH10K_FILE
    if not file.is_file():
        try:
            _download(MATH10K, folder, (MATH10K_FILE,), run.logs / "math10k.log")
        except TutorialError as error:
            if error.fault != "no network":
                raise
            say(
                tr(
                    "WARNING: ModelScope could not be reached, so generated problems take "
                    "Math10K's place. They are easier: do not compare these figures with "
                    "Math10K's."
                )
            )
            return Obtained("generated", "", (_generate(run, say),))
    return Obtained("math10k", MATH10K, (file,))


def _generate(run: paths.RunFolder, say: Callable[[str], None]) -> Path:
    from helpers.inputs import wordproblems  # the face can do without it

    file = run.root / "source.parquet"

    def write(making: Making) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        problems = wordproblems.generate(GENERATED_ROWS, rows.SEED)
        with refusals_explained(file):
            pq.write_table(pa.Table.from_pylist(problems), making.place(file))

    generator = sha256_json([sha256_file(source) for source in wordproblems.SOURCES])
    inputs = {"rows": GENERATED_ROWS, "seed": rows.SEED, "generator": generator}
    steps.done_once(run, "source", inputs, file, write, say)
    return file


# ---- ModelScope ---------------------------------------------------------------------------------


def _download(repository: str, folder: Path, wanted: tuple[str, ...], log: Path) -> None:
    """Let modelscope's own client fetch files: it resumes, and checks each one's SHA-256."""
    process.run(
        [
            str(Path(sys.executable).with_name("modelscope")),
            *("download", repository, "--repo-type", "dataset", "--local-dir", str(folder)),
            # Files named one by one come without a check of their SHA-256; a listing has it.
            *("--include", *wanted),
        ],
        log,
    )


def _from_modelscope(repository: str, run: paths.RunFolder) -> Path:
    owner, name = repository.split("/")
    folder = paths.MODELS / "datasets" / owner / name
    done = folder / ".complete"
    with refusals_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{name}.lock"):  # two runs may want it at once
        if not done.is_file():
            kinds = tuple(f"*{suffix}" for suffix in KINDS)
            try:
                _download(repository, folder, kinds, run.logs / "data.log")
            except TutorialError as error:
                error.message = tr(
                    "There is no file or folder {name} here, so it was taken for a data set on "
                    "ModelScope, which did not come. {reason}",
                    name=repository,
                    reason=error.message,
                )
                raise
            with refusals_explained(done):
                done.touch()
    return folder


# ---- folders ------------------------------------------------------------------------------------


def _in_folder(folder: Path, say: Callable[[str], None]) -> tuple[Path, ...]:
    """Return the files of rows in a folder: those for training, where names tell.

    Raises:
        TutorialError: it cannot be read, holds none, or files of more than one kind.
    """
    shown = paths.in_recipe(folder)  # as DATA= takes it
    if not os.access(folder, os.R_OK | os.X_OK):
        raise TutorialError(
            tr(
                "The folder {folder} may not be read by this user: give the permission with "
                "'chmod u+rx', as its owner, or name a copy that is yours.",
                folder=shown,
            )
        )
    inside = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part[0] == "." for part in file.relative_to(folder).parts)
    ]
    found = [file for file in inside if named_kind(file) and file.name not in _DESCRIPTIONS]
    if not found:
        raise TutorialError(
            tr(
                "The folder {folder} holds no file of rows: DATA= takes a folder of files that end "
                "in {kinds}.",
                folder=shown,
                kinds=series(KINDS),
            )
        )
    names = {file: file.relative_to(folder).as_posix() for file in inside}
    training = [file for file in found if _TRAINING.search(names[file].lower())]
    chosen = training or found
    kinds = Counter(kind for file in chosen if (kind := named_kind(file)))
    if len(kinds) > 1:
        raise TutorialError(
            tr(
                "The folder {folder} holds files of several kinds ({kinds}): name one of them with "
                "DATA=, or a folder with files of one kind.",
                folder=shown,
                kinds=series(f"{count} {SPELT[kind]}" for kind, count in kinds.items()),
            )
        )
    others = [names[file] for file in inside if file not in chosen]
    if others:
        say(
            tr(
                "Of {folder}, these files are read: {chosen}; these are not: {others}.",
                folder=shown,
                chosen=listed([names[file] for file in chosen]),
                others=listed(others),
            )
        )
    return tuple(chosen)
