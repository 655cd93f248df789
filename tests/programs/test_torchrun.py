"""How several processes are started, and what keeps them from starting."""

from __future__ import annotations

import socket
import sysconfig

import pytest
from accelerate.commands import launch

from helpers.ground.errors import TutorialError
from helpers.machine import cards
from helpers.programs import process, torchrun


def test_a_free_port_is_taken_and_other_machines_are_out() -> None:
    found = torchrun.variables(2, {"PATH": "/usr/bin", "NNODES": "4", "NODE_RANK": "3"})
    assert (found["NPROC_PER_NODE"], found["NNODES"], found["NODE_RANK"]) == ("2", "1", "0")
    assert found["MASTER_ADDR"] == "127.0.0.1"
    assert found["PATH"].endswith(":/usr/bin")
    with socket.create_server(("127.0.0.1", int(found["MASTER_PORT"]))):
        pass


def test_the_readers_own_port_is_taken_if_it_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(TutorialError, match="is in use by another program") as caught:
            torchrun.variables(2, {"MASTER_PORT": port})
    assert caught.value.fault == "port in use"
    assert torchrun.variables(2, {"MASTER_PORT": port})["MASTER_PORT"] == port


@pytest.mark.parametrize("port", ["many", "0", "65536", "-1", "9" * 5000])
def test_what_is_no_port_is_one_sentence(port: str) -> None:
    with pytest.raises(TutorialError, match="is no port: give a number") as caught:
        torchrun.variables(2, {"MASTER_PORT": port})
    assert len(str(caught.value)) < 200


def test_a_folder_with_a_space_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/my work/.venv/lib")
    with pytest.raises(TutorialError, match="has a space: move the repository"):
        torchrun.variables(2, {})
    assert torchrun.variables(2, {}, sharded=True)["NPROC_PER_NODE"] == "2"


def test_accelerate_starts_cards_that_share_the_model_from_a_config_that_it_knows() -> None:
    program, *words = torchrun.sharding(2, main_process_port=29501)
    assert program == "accelerate"
    asked = launch.launch_command_parser().parse_args(words[1:])
    args, *_ = launch._validate_launch_command(asked)
    assert (args.use_fsdp, args.fsdp_version, args.num_processes) == (True, 2, 2)
    assert (args.main_process_port, args.module) == (29501, True)
    assert args.training_script == "llamafactory.launcher"
    assert args.fsdp_state_dict_type == "FULL_STATE_DICT"


@pytest.mark.parametrize(
    ("given", "count", "shown"),
    [(None, 1, "0"), (None, 2, "0,1"), ("", 2, "0,1"), ("4,5,6", 2, "4,5"), (" 4 , 5", 1, "4"),
     ("3", 2, "3")],
)  # fmt: skip
def test_a_call_sees_as_many_cards_as_it_is_to_take(
    monkeypatch: pytest.MonkeyPatch, given: str | None, count: int, shown: str
) -> None:
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", given)
    assert process.environment("npu", count=count)["ASCEND_RT_VISIBLE_DEVICES"] == shown
    assert process.environment("cpu", count=count)["ASCEND_RT_VISIBLE_DEVICES"] == ""
    assert cards.visible("ASCEND_RT_VISIBLE_DEVICES", count) == shown
