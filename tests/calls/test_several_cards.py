"""One training on several cards: on two processes of the CPU, and what is said where it cannot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import smoke_with_data
from family import asked
from safetensors.torch import load_file

from helpers.calls import nodes, prediction, training
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import settings
from helpers.planning import planner
from helpers.records.schema import Training
from helpers.results import checks
from helpers.worker import events, stopping

METHODS = ("lora", "qlora")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    with smoke_with_data(tmp_path_factory.mktemp("cards")) as found:
        yield found


def with_cards(ready: settings.Settings, cards: int, sharded: bool = False) -> settings.Settings:
    """Return the settings of a run beside another, with the same data."""
    run = paths.RunFolder(f"cards{cards}{'sharded' * sharded}")
    run.root.mkdir(exist_ok=True)
    if not run.data.exists():
        run.data.symlink_to(ready.run.data)
    return replace(ready, run=run, cards=cards, sharded=sharded)


@pytest.fixture(scope="module")
def trained(ready: settings.Settings) -> dict[tuple[str, int], Training]:
    """Each method on one card and on two."""
    return {
        (method, cards): training.train(method, with_cards(ready, cards), lambda line: None)
        for method in METHODS
        for cards in (1, 2)
    }


@pytest.mark.parametrize("method", METHODS)
def test_two_cards_train_what_one_card_trains(
    trained: dict[tuple[str, int], Training], method: str
) -> None:
    """The same problems at each step: every loss is that of one card, but for roundings."""
    one, two = trained[method, 1], trained[method, 2]
    assert (one.cards, two.cards) == (1, 2)
    assert two.optimizer_steps == one.optimizer_steps == 12
    assert two.samples == one.samples == 48
    assert [point.loss for point in two.loss] == pytest.approx([p.loss for p in one.loss], rel=1e-3)
    for other, own in zip(two.eval_loss, one.eval_loss, strict=True):
        assert other.loss == pytest.approx(own.loss, rel=0.01)
    assert two.final_eval_loss == pytest.approx(one.final_eval_loss, rel=0.01)
    assert two.final_eval_loss == pytest.approx(one.final_eval_loss, rel=1e-3)
    assert [each.tokens for each in two.problem_losses] == [e.tokens for e in one.problem_losses]
    assert [each.nats for each in two.problem_losses] == pytest.approx(
        [each.nats for each in one.problem_losses], rel=1e-2
    )


@pytest.mark.parametrize("method", METHODS)
def test_one_process_tells_and_all_are_told_of(
    trained: dict[tuple[str, int], Training], ready: settings.Settings, method: str
) -> None:
    told = events.read(with_cards(ready, 2).run.adapter(method) / events.FILE)
    assert [event["step"] for event in told if event["event"] == "step"] == list(range(1, 13))
    assert [event["event"] for event in told].count("loaded") == 1
    one, two = trained[method, 1], trained[method, 2]
    assert two.frozen_weights == one.frozen_weights  # each holds all of them
    assert two.peaks.training
    assert two.peaks.training_longest
    assert two.peaks.evaluation_longest


@pytest.mark.parametrize("method", METHODS)
def test_a_card_takes_what_was_planned_for_it(
    trained: dict[tuple[str, int], Training], ready: settings.Settings, method: str
) -> None:
    chosen = with_cards(ready, 2)
    plan = planner.for_run(chosen, lambda line: None)[method]
    assert plan.question.cards == 2
    [check] = checks.of_memory("cpu", plan, trained[method, 2])
    assert check.holds, check.figures
    by_itself = plan.question.model_copy(update={"cards": 1})
    [alone] = planner.ask([by_itself], chosen.run.logs / "plan.log")
    # As many bytes again as the adapter's: what the cards exchange.
    apart = plan.training.peak_bytes - alone.training.peak_bytes
    assert apart == plan.training.parts["adapter"] > 0


@pytest.fixture(scope="module")
def sharded(ready: settings.Settings) -> dict[str, Training]:
    """Each method on two cards that share its model out."""
    return {
        method: training.train(method, with_cards(ready, 2, sharded=True), lambda line: None)
        for method in METHODS
    }


@pytest.mark.parametrize("method", METHODS)
def test_two_cards_that_share_the_model_train_what_one_card_trains(
    trained: dict[tuple[str, int], Training], sharded: dict[str, Training], method: str
) -> None:
    one, two = trained[method, 1], sharded[method]
    assert (two.cards, two.sharded, one.sharded) == (2, True, False)
    assert two.optimizer_steps == one.optimizer_steps == 12
    assert two.samples == one.samples
    assert [point.loss for point in two.loss] == pytest.approx([p.loss for p in one.loss], rel=1e-2)
    assert two.final_eval_loss == pytest.approx(one.final_eval_loss, rel=0.01)
    assert two.final_eval_loss == pytest.approx(one.final_eval_loss, rel=1e-3)
    # All bits of the frozen weights, gathered from both, are those that one card holds.
    assert two.frozen_weights == one.frozen_weights


@pytest.mark.parametrize("method", METHODS)
def test_its_adapter_is_an_ordinary_one(
    trained: object, sharded: object, ready: settings.Settings, method: str
) -> None:
    apart = with_cards(ready, 2, sharded=True)
    one, two = (
        load_file(chosen.run.adapter(method) / "adapter_model.safetensors")
        for chosen in (with_cards(ready, 1), apart)
    )
    form = {name: (tensor.dtype, tensor.shape) for name, tensor in one.items()}
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in two.items()} == form
    assert all(tensor.any() for tensor in two.values())
    assert prediction.answer(method, apart, lambda line: None).n == 12


@pytest.mark.parametrize("method", METHODS)
def test_a_card_takes_at_most_what_was_planned_for_its_part(
    trained: dict[tuple[str, int], Training],
    sharded: dict[str, Training],
    ready: settings.Settings,
    method: str,
) -> None:
    plan = planner.for_run(with_cards(ready, 2, sharded=True), lambda line: None)[method]
    assert plan.question.sharded
    [check] = checks.of_memory("cpu", plan, sharded[method])
    assert check.holds, check.figures


def test_a_reader_can_repeat_it(ready: settings.Settings, trained: object, sharded: object) -> None:
    text = (with_cards(ready, 2).run.recipes / "lora.yaml").read_text("utf-8")
    assert "FORCE_TORCHRUN=1 NPROC_PER_NODE=2 llamafactory-cli train" in text
    assert "ddp_backend: gloo" in text
    shared = (with_cards(ready, 2, sharded=True).run.recipes / "lora.yaml").read_text("utf-8")
    assert "accelerate launch --config_file configs/fsdp2.yaml --num_processes 2 -m" in shared
    alone = (with_cards(ready, 1).run.recipes / "lora.yaml").read_text("utf-8")
    assert "FORCE_TORCHRUN" not in alone
    assert "ddp_backend" not in alone


TRAIN = """
import sys
from helpers.calls import training
from helpers.inputs import settings
chosen = settings.resolve("smoke", run=sys.argv[1])
training.train("lora", chosen, lambda line: print(line, flush=True))
"""


class Elsewhere:
    """A training on two cards in a process of its own, with more steps than it will take."""

    def __init__(
        self, ready: settings.Settings, name: str, stop: Path | None = None, sharded: bool = False
    ) -> None:
        self.run = paths.RunFolder(name)
        self.run.root.mkdir()
        self.run.data.symlink_to(ready.run.data)
        self.making = self.run.root / "making" / "lora" / "lora"
        self.env = os.environ | {
            "TUTORIAL_RUNS": str(paths.RUNS), "TUTORIAL_HEADLESS": "1", "TUTORIAL_CARDS": "2",
            "TUTORIAL_OVERRIDES": "num_train_epochs=4.0 save_steps=8 eval_steps=24",
        }  # fmt: skip
        if sharded:
            self.env["TUTORIAL_SHARDED"] = "yes"
        if stop:
            self.env[stopping.VARIABLE] = str(stop)
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", TRAIN, self.run.name], env=self.env, text=True,
            cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait_for_a_checkpoint(self) -> None:
        while not any(self.making.glob("checkpoint-*/trainer_state.json")):  # later ones replace it
            assert self.process.poll() is None, self.process.communicate()[0]
            time.sleep(0.02)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def ranks_of(family: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that train, in their order."""
    told = asked(family, lambda member: (member.environ().get("RANK"), member.cmdline()))
    ranks = [(rank, member) for member, (rank, words) in told if rank and "launcher" in str(words)]
    return [member for _, member in sorted(ranks, key=lambda found: found[0])]


@pytest.mark.parametrize("sharded", [False, True])
def test_a_killed_card_is_one_sentence_and_the_training_goes_on(
    ready: settings.Settings, sharded: bool
) -> None:
    elsewhere = Elsewhere(ready, f"killed{sharded}", sharded=sharded)
    elsewhere.wait_for_a_checkpoint()
    family = elsewhere.family()
    _, second = ranks_of(family)
    second.kill()
    said, _ = elsewhere.process.communicate(timeout=120)
    assert "The process of one card was killed from outside" in said
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]
    again = elsewhere.start()
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert "Going on with the interrupted training lora from step" in said
    told = events.read(elsewhere.run.adapter("lora") / events.FILE)
    assert [event["step"] for event in told if event["event"] == "step"] == list(range(1, 49))


def test_one_that_is_asked_to_stop_leaves_a_checkpoint_of_all_cards(
    ready: settings.Settings, tmp_path: Path
) -> None:
    elsewhere = Elsewhere(ready, "stopped", tmp_path / "stop")
    elsewhere.wait_for_a_checkpoint()
    (tmp_path / "stop").touch()
    elsewhere.process.communicate(timeout=120)
    last = max(elsewhere.making.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    step = json.loads((last / "trainer_state.json").read_text())["global_step"]
    told = [e["step"] for e in events.read(elsewhere.making / events.FILE) if e["event"] == "step"]
    assert told[-1] == step < 48
    assert {file.name for file in last.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_what_two_machines_are_given_trains_what_one_card_trains(
    ready: settings.Settings, trained: dict[tuple[str, int], Training]
) -> None:
    """Both on this machine: the commands as they are printed, started in two shells."""
    here = with_cards(ready, 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    typed = nodes.commands(here, "2", "127.0.0.1", port).splitlines()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            line, shell=True, env=env, text=True, cwd=paths.ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for line in typed if line.endswith("/lora_nodes.yaml")
    ]  # fmt: skip
    assert len(started) == 2
    for each in started:
        said, _ = each.communicate(timeout=400)
        assert each.returncode == 0, said[-3000:]
    folder = here.run.root / "nodes" / "lora"
    found = json.loads((folder / "all_results.json").read_text())["eval_loss"]
    assert found == pytest.approx(trained["lora", 1].final_eval_loss, rel=1e-3)


def test_a_port_that_is_taken_is_one_sentence(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(TutorialError, match="MASTER_PORT") as caught:
            training.train("lora", replace(ready, cards=2), lambda line: None)
    assert "\n" not in str(caught.value)
