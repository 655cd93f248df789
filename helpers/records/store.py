"""The records in a run's folder: one JSON a subject, read back by the comparison."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_bytes
from helpers.ground.words import tr
from helpers.inputs.subjects import Subject
from helpers.records.schema import Record


def file_of(run: paths.RunFolder, subject: str) -> Path:
    """Return the file that holds a subject's record."""
    return run.results / f"{subject}.json"


def write(run: paths.RunFolder, record: Record) -> Path:
    """Write a record into the run's results folder and return its file."""
    file = file_of(run, record.subject)
    write_bytes(file, (record.model_dump_json(indent=1) + "\n").encode())
    return file


def read(run: paths.RunFolder, subject: Subject) -> Record:
    """Return a subject's record.

    Raises:
        TutorialError: there is none yet, with the notebook that makes it, or it cannot be read.
    """
    file = file_of(run, subject.name)
    if not file.is_file():
        raise TutorialError(
            tr(
                "Run {run!r} has no results for {subject} yet: run the notebook {notebook} first.",
                run=run.name,
                subject=subject.name,
                notebook=subject.made_by,
            )
        )
    try:
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise TutorialError(
            tr(
                "{file} was written by another version of this tutorial: run the notebook "
                "{notebook} again.",
                file=paths.shown(file),
                notebook=subject.made_by,
            )
        ) from error
