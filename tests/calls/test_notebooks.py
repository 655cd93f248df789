"""Which runs the notebooks can be executed for; that they are, is in tests/test_run.py."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from helpers.calls import notebooks
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import settings


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """papermill is only said to execute a notebook."""
    stand_in = Mock()
    monkeypatch.setattr(notebooks.papermill, "execute_notebook", stand_in)
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    return stand_in


@pytest.mark.parametrize("methods", ["lora", "qlora dora"])
def test_a_run_without_what_the_notebooks_tell_of_is_refused_before_anything_starts(
    runs: Path, executed: Mock, methods: str
) -> None:
    chosen = settings.resolve("smoke", run="test", methods=methods)
    missing = "qlora" if methods == "lora" else "lora"
    with pytest.raises(TutorialError, match=f"tell of lora, qlora, .* leaves out {missing}: add"):
        notebooks.run_notebooks(chosen, {}, lambda line: None)
    executed.assert_not_called()
    assert not chosen.run.root.exists()


def test_further_methods_and_another_order_are_taken(runs: Path, executed: Mock) -> None:
    chosen = settings.resolve("smoke", run="test", methods="dora qlora lora")
    said: list[str] = []
    notebooks.run_notebooks(chosen, {}, said.append)
    names = [Path(call.args[0]).stem for call in executed.call_args_list]
    assert tuple(names) == paths.NOTEBOOK_NAMES
    assert said[0] == "== 01_env"
