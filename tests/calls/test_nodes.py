"""What several machines are given to run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.calls import nodes
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.inputs import settings


@pytest.fixture
def ready(smoke: settings.Settings) -> settings.Settings:
    smoke.model.path.mkdir(parents=True)
    (smoke.model.path / "config.json").write_text('{"model_type": "qwen2"}')
    return smoke


def test_each_machine_has_its_command_and_all_the_same_recipe(ready: settings.Settings) -> None:
    found = nodes.commands(replace(ready, cards=2), "2", "192.168.1.10").splitlines()
    lora = [line for line in found if line.endswith("/lora_nodes.yaml")]
    assert len(found) == 8
    assert found[0] == "# LoRA, machine 1 of 2"
    for rank, line in enumerate(lora):
        assert line.startswith(
            f"FORCE_TORCHRUN=1 NNODES=2 NODE_RANK={rank} NPROC_PER_NODE=2 "
            "MASTER_ADDR=192.168.1.10 MASTER_PORT=29500 llamafactory-cli train "
        )
    recipe = read_yaml(ready.run.recipes / "lora_nodes.yaml")
    # Four cards share the batch of one.
    assert recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"] == 1
    assert recipe["output_dir"].endswith("/nodes/lora")
    assert str(ready.run.root.name) in nodes.needed(ready)


def test_machines_whose_cards_share_the_model_start_accelerate(ready: settings.Settings) -> None:
    apart = replace(ready, cards=2, sharded=True)
    _, first, _, second, *_ = nodes.commands(apart, "2", "10.0.0.1").splitlines()
    typed = "accelerate launch --config_file configs/fsdp2.yaml --num_processes 4 --num_machines 2"
    for rank, line in enumerate((first, second)):
        assert line.startswith(
            f"{typed} --machine_rank {rank} --main_process_ip 10.0.0.1 --main_process_port 29500 "
            "-m llamafactory.launcher "
        )
        assert line.endswith("/lora_nodes.yaml")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("one", "a"), "NODES='one' is no number of machines"),
        (("1", "a"), "NODES='1' is no number of machines"),
        (("", "a"), "NODES='' is no number of machines"),
        (("2", ""), "MASTER_ADDR='' is no address"),
        (("2", "a b; rm"), "is no address"),
        (("2", "a", "0"), "MASTER_PORT='0' is no port"),
        (("3", "a"), "does not divide by 3 cards"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    ready: settings.Settings, asked: tuple[str, ...], words: str
) -> None:
    with pytest.raises(TutorialError, match=words) as caught:
        nodes.commands(ready, *asked)
    assert "\n" not in str(caught.value)
