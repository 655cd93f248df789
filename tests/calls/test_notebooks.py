"""Which runs the notebooks can be executed for; that they are, is in tests/test_run.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import run_sync

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


def test_recipes_that_differ_in_more_than_the_method_are_refused_before_anything_starts(
    runs: Path, executed: Mock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison at the end would refuse them, after hours of training."""
    folder = tmp_path / "configs"
    shutil.copytree(paths.CONFIGS, folder)
    monkeypatch.setattr(paths, "CONFIGS", folder)
    recipe = (folder / "lora.yaml").read_text("utf-8")
    (folder / "mine.yaml").write_text(f"# Mine: faster\n{recipe}lora_rank: 64\nweight_decay: 0.5\n")
    named = {"run": "test", "methods": "lora qlora mine"}
    with pytest.raises(TutorialError, match=r"Mine differs from LoRA in weight_decay, .* not be"):
        notebooks.run_notebooks(settings.resolve("smoke", **named), {}, lambda line: None)
    executed.assert_not_called()
    # Where an override sets it for all, they do not differ in it.
    same = settings.resolve("smoke", **named, overrides={"weight_decay": 0.1})
    notebooks.run_notebooks(same, {}, lambda line: None)
    assert executed.call_count == len(paths.NOTEBOOK_NAMES)


def test_further_methods_and_another_order_are_taken(runs: Path, executed: Mock) -> None:
    chosen = settings.resolve("smoke", run="test", methods="dora qlora lora")
    said: list[str] = []
    notebooks.run_notebooks(chosen, {}, said.append)
    names = [Path(call.args[0]).stem for call in executed.call_args_list]
    assert tuple(names) == paths.NOTEBOOK_NAMES
    assert said[0] == "== 01_env"


def test_what_a_kernel_logs_is_not_among_the_readers_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Interrupted while it handles a message, as at its shutdown, ipykernel logs an error."""
    log = tmp_path / "kernels.log"
    with log.open("wb") as stderr:
        _interrupted(notebooks._local_kernels(tmp_path, stderr)(kernel_name="python3"))
    assert "KeyboardInterrupt" in log.read_text()
    assert capfd.readouterr().err == ""


def _interrupted(manager: AsyncKernelManager) -> None:
    """Have a kernel say what it says in `dispatch_shell`, whose moment cannot be met at will."""
    run_sync(manager.start_kernel)()
    client = manager.client()
    client.start_channels()
    try:
        run_sync(client.wait_for_ready)()
        said = "get_ipython().kernel.log.error('KeyboardInterrupt caught in kernel.')"
        run_sync(client.execute_interactive)(said, timeout=60, output_hook=lambda message: None)
    finally:
        client.stop_channels()
        run_sync(manager.shutdown_kernel)(now=True)
