"""A training that is asked to stop saves a checkpoint first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, trainer

from helpers.worker import callback, events, stopping


@pytest.fixture
def stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that asks the training to stop; it is not there yet."""
    monkeypatch.setenv(stopping.VARIABLE, str(tmp_path / "stop"))
    return tmp_path / "stop"


@pytest.mark.parametrize("moment", ["on_step_end", "on_evaluate"])
def test_it_saves_and_then_ends(stop: Path, moment: str) -> None:
    asked = stopping.callback()()
    control = TrainerControl()
    getattr(asked, moment)(None, None, control)
    assert not control.should_save
    asked.on_save(None, None, control)  # a checkpoint on the way ends nothing
    stop.touch()
    getattr(asked, moment)(None, None, control)
    assert control.should_save
    with pytest.raises(SystemExit) as ended:
        asked.on_save(None, None, control)
    assert ended.value.code == stopping.STOPPED


def registered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the callbacks that every Trainer of a process gets."""
    added: list[Any] = []
    monkeypatch.setattr(callback, "_registered", False)
    monkeypatch.setattr(trainer, "DEFAULT_CALLBACKS", added)
    callback.register()
    return [kind.__name__ for kind in added]


def test_only_a_training_that_can_be_asked_listens(
    stop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(events.VARIABLE, str(tmp_path / "events"))
    monkeypatch.setenv(events.UNMEASURED, "1")  # else all that follows would be recorded
    assert registered(monkeypatch) == ["Events", "Stopping"]
    monkeypatch.delenv(stopping.VARIABLE)
    assert registered(monkeypatch) == ["Events"]
