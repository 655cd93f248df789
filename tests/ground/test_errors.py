"""The one error that readers see."""

from __future__ import annotations

from pathlib import Path

from helpers.ground.errors import TutorialError


def test_an_error_is_its_sentence_then_the_logs_tail_and_path() -> None:
    error = TutorialError("It broke: mend it.", Path("x.log"), "last words", "disk full")
    assert str(error).splitlines() == [
        "It broke: mend it.", "The last lines of the log:", "last words", "Log: x.log",
    ]  # fmt: skip
    assert error._render_traceback_() == str(error).splitlines()
    assert (error.message, error.fault) == ("It broke: mend it.", "disk full")


def test_a_bare_error_is_its_sentence_and_no_known_fault() -> None:
    error = TutorialError("It broke: mend it.")
    assert str(error) == "It broke: mend it."
    assert error.fault == ""
