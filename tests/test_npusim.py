"""LoRA and QLoRA through LLaMA-Factory on the simulated NPU. Nothing here measures an Ascend."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import npusim
import pytest
import yaml

from helpers.inputs import sharing
from helpers.planning import planner
from helpers.planning.plan import Question
from helpers.worker import events

REASON = npusim.available()
needs_compiler = pytest.mark.skipif(REASON is not None, reason=str(REASON))

# Between QLoRA's peak and LoRA's. What a reader sees of LoRA then is in test_npu_run.py.
LITTLE_MEMORY_MB = 20
STEPS = 4
# The article's recipe, made small.
LORA = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "dataset": "tiny",
    "eval_dataset": "tiny_eval",
    "template": "qwen",
    "cutoff_len": 128,
    "logging_steps": 1,
    "max_steps": STEPS,
    "save_steps": STEPS // 2,
    "report_to": "none",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1.0e-2,
    "lr_scheduler_type": "cosine",
    "bf16": True,
    "do_eval": True,
    "per_device_eval_batch_size": 2,
    "eval_strategy": "steps",
    "eval_steps": STEPS // 2,
}
QLORA = LORA | {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": False}
# The simulated NPU computes attention step by step, the CPU in a fused kernel that rounds
# differently: for a comparison of the digits the CPU has to take the steps too.
CPU_CLI = (
    "import torch; torch.backends.cuda.enable_flash_sdp(False); "
    "from llamafactory.cli import main; main()"
)


@dataclass(frozen=True)
class Training:
    """What one call of llamafactory-cli left behind."""

    output: Path
    code: int  # the process's; negative where a signal ended it
    log: str

    @property
    def losses(self) -> list[float]:
        history = json.loads((self.output / "trainer_state.json").read_text())["log_history"]
        return [entry["loss"] for entry in history if "loss" in entry]

    @property
    def peak_bytes(self) -> int:
        stats = json.loads(self.output.with_suffix(".stats").read_text())
        assert "simulated" in stats["device"]
        (peak,) = stats["peak_bytes"]
        return peak

    @property
    def operators(self) -> dict[str, int]:
        return json.loads(self.output.with_suffix(".trace").read_text())


Train = Callable[..., Training]


def write_model(folder: Path, sentences: list[str]) -> None:
    """A random Qwen2 of many thin layers.

    Quantising one weight takes temporaries of a hundred times its size, so QLoRA's peak is below
    LoRA's only where there are many more weights than the largest has.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(sentences, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:],
    ).save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=304,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    set_seed(0)
    Qwen2ForCausalLM(config).bfloat16().save_pretrained(folder)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains the tiny model as a reader would: llamafactory-cli on a recipe in a file."""
    folder = tmp_path_factory.mktemp("npusim")
    rows = [
        {"instruction": f"What is {a} plus {b}?", "input": "", "output": f"The answer is {a + b}."}
        for a in range(4)
        for b in range(4)
    ]
    (folder / "tiny.json").write_text(json.dumps(rows))
    (folder / "tiny_eval.json").write_text(json.dumps(rows[:4]))
    files = {name: {"file_name": f"{name}.json"} for name in ("tiny", "tiny_eval")}
    (folder / "dataset_info.json").write_text(json.dumps(files))
    write_model(folder / "model", [text for row in rows for text in row.values()])

    def run(name: str, recipe: dict[str, Any], on_npu: bool = True, **settings: str) -> Training:
        output = folder / name
        paths = {"model_name_or_path": folder / "model", "dataset_dir": folder}
        texts = {key: str(path) for key, path in (paths | {"output_dir": output}).items()}
        output.with_suffix(".yaml").write_text(yaml.safe_dump(recipe | texts))
        if on_npu:
            command = [str(Path(sys.executable).with_name("llamafactory-cli"))]
            env = npusim.environment(
                NPUSIM_TRACE=str(output.with_suffix(".trace")),
                NPUSIM_STATS=str(output.with_suffix(".stats")),
                **settings,
            )
        else:
            command = [sys.executable, "-c", CPU_CLI]
            env = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "train", str(output.with_suffix(".yaml"))],
            env=env | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        return Training(output, done.returncode, done.stdout)

    return run


@pytest.fixture(scope="module")
def lora(train: Train) -> Training:
    return train("lora", LORA)


@pytest.fixture(scope="module")
def qlora(train: Train) -> Training:
    return train("qlora", QLORA)


@pytest.fixture(scope="module")
def qlora_in_little_memory(train: Train) -> Training:
    return train("qlora-little", QLORA, NPUSIM_MEMORY_MB=str(LITTLE_MEMORY_MB))


@needs_compiler
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_training_reaches_the_device_and_learns(
    method: str, request: pytest.FixtureRequest
) -> None:
    training: Training = request.getfixturevalue(method)
    assert training.code == 0, training.log[-3000:]
    assert "device: npu:0" in training.log
    assert len(training.losses) == STEPS
    assert all(map(math.isfinite, training.losses))
    assert training.losses == sorted(training.losses, reverse=True)


@needs_compiler
def test_losses_are_the_cpus(lora: Training, train: Train) -> None:
    cpu = train("cpu", LORA | {"use_cpu": True}, on_npu=False)
    assert cpu.code == 0, cpu.log[-3000:]
    assert "device: cpu" in cpu.log
    assert lora.losses == cpu.losses


@needs_compiler
def test_qlora_needs_less_memory_and_always_the_same(
    lora: Training, qlora: Training, qlora_in_little_memory: Training
) -> None:
    assert qlora.peak_bytes < LITTLE_MEMORY_MB << 20 < lora.peak_bytes
    assert qlora_in_little_memory.code == 0, qlora_in_little_memory.log[-3000:]
    assert qlora_in_little_memory.losses == qlora.losses
    assert qlora_in_little_memory.peak_bytes == qlora.peak_bytes


@needs_compiler
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_two_devices_train_what_one_trains_in_the_planned_memory(
    method: str, request: pytest.FixtureRequest, train: Train, tmp_path: Path
) -> None:
    """LLaMA-Factory starts torchrun by itself where it sees two."""
    alone: Training = request.getfixturevalue(method)
    whole = {"lora": LORA, "qlora": QLORA}[method]
    told = tmp_path / "events.jsonl"
    two = train(
        f"{method}-two",
        sharing.shared(whole, 2),
        NPUSIM_DEVICES="2",
        ASCEND_RT_VISIBLE_DEVICES="0,1",
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        TUTORIAL_EVENTS=str(told),
    )
    assert two.code == 0, two.log[-3000:]
    assert "device: npu:0" in two.log
    assert "device: npu:1" in two.log
    assert two.losses == pytest.approx(alone.losses, rel=1e-3)
    results = [json.loads((each.output / "all_results.json").read_text()) for each in (alone, two)]
    assert results[1]["eval_loss"] == pytest.approx(results[0]["eval_loss"], rel=1e-3)
    # What DDP keeps for the exchange is in the plan, and counted by the device's own allocator.
    used = yaml.safe_load(two.output.with_suffix(".yaml").read_text())
    question = Question(recipe=used, device="npu", attention="math", cards=2)
    [plan] = planner.ask([question], tmp_path / "plan.log")
    taken = max(
        event["bytes"] for event in events.read(told)
        if event["event"] == "peak" and event["of"] == "training"
    )  # fmt: skip
    assert plan.training.peak_bytes == pytest.approx(taken, rel=0.01), plan.training.parts


UPDATES = ("aten::_fused_adamw_", "aten::addcdiv.out")


@needs_compiler
def test_a_resumed_training_gives_the_losses_of_one_left_alone(
    lora: Training, train: Train
) -> None:
    checkpoint = lora.output / f"checkpoint-{STEPS // 2}"
    resumed = train("resumed", LORA | {"resume_from_checkpoint": str(checkpoint)})
    assert resumed.code == 0, resumed.log[-3000:]
    # Its own steps only, behind those that the checkpoint brought. With which operator AdamW ends a
    # step depends on torch: transformers takes the fused one from 2.8 on.
    updates = [name for name in UPDATES if lora.operators.get(name)]
    assert updates
    for name in updates:
        assert resumed.operators[name] * STEPS == lora.operators[name] * (STEPS - STEPS // 2)
    assert resumed.losses == lora.losses


# An older one takes other operators for the same work (`make generations`).
NEWEST = "2.10"


@needs_compiler
@pytest.mark.skipif(
    not metadata.version("torch").startswith(NEWEST + "."),
    reason=f"the recorded operators are those of torch {NEWEST}",
)
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_device_operators_are_the_recorded_ones(
    method: str, request: pytest.FixtureRequest
) -> None:
    used = request.getfixturevalue(method).operators
    recorded = npusim.FOLDER / f"operators_{method}.txt"
    if os.environ.get("NPUSIM_UPDATE") == "1":
        recorded.write_text("\n".join(sorted(used)) + "\n")
    changed = npusim.operators_changed(recorded.read_text().split(), used)
    assert changed is None, changed


def test_a_new_operator_is_noticed() -> None:
    recorded = (npusim.FOLDER / "operators_lora.txt").read_text().split()
    assert npusim.operators_changed(recorded, recorded) is None
    changed = npusim.operators_changed(recorded, [*recorded, "aten::planted"])
    assert changed is not None
    assert "new ['aten::planted']" in changed
    assert "NPUSIM_UPDATE=1" in changed
    assert npusim.operators_changed(recorded, recorded[1:]) is not None


# The device itself, without LLaMA-Factory.


def python(code: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=npusim.environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


DEVICE = """
import importlib.metadata
import torch

assert torch.npu.get_device_name() == "Ascend910B2 (simulated)"
assert importlib.metadata.version("torch-npu").endswith("+sim")

# Every storage counts, in units of 512 bytes, while it lives.
tensor = torch.ones(1000, device="npu")
assert torch.npu.memory_allocated() == 4096
view = tensor[:10].view(2, 5)
assert torch.npu.memory_allocated() == 4096
double = tensor * 2
assert torch.npu.memory_allocated() == 8192
del double
assert (torch.npu.memory_allocated(), torch.npu.max_memory_allocated()) == (4096, 8192)
torch.npu.reset_peak_memory_stats()
assert torch.npu.max_memory_allocated() == 4096

# What an operator does to its arguments besides writing values.
tensor.resize_(2000)
assert tensor[:1000].tolist() == [1.0] * 1000
assert torch.npu.memory_allocated() == 8192
other = torch.empty(0, device="npu").set_(tensor)
assert other.data_ptr() == tensor.data_ptr()
tensor.unsqueeze_(0)
assert tensor.shape == (1, 2000)

# Moving a model to the device keeps its parameters, and so their ties.
layer = torch.nn.Linear(4, 4)
weight = layer.weight
assert layer.npu().weight is weight
assert weight.is_npu

# Only indices may stay on the host.
assert weight[torch.tensor([0, 1])].shape == (2, 4)
for mixed in (lambda: weight + torch.ones(4, 4), lambda: weight.index_select(0, torch.tensor([0]))):
    try:
        mixed()
    except RuntimeError as error:
        assert "at least two devices" in str(error), error
    else:
        raise AssertionError("computed with host and device tensors")

# The random state can be kept and restored.
state = torch.npu.get_rng_state()
first = torch.rand(3, device="npu")
torch.npu.set_rng_state(state)
assert torch.equal(first, torch.rand(3, device="npu"))

with torch.autocast("npu", dtype=torch.bfloat16):
    assert (weight @ weight).dtype == torch.bfloat16

try:
    torch.empty(2 << 20, device="npu")
except RuntimeError as error:
    assert type(error) is RuntimeError
    assert "NPU out of memory. Tried to allocate 8.00 MiB (NPU 0; 4.00 MiB total" in str(error)
else:
    raise AssertionError("allocated more than there is")
"""


@needs_compiler
def test_the_device_counts_shares_and_refuses() -> None:
    done = python(DEVICE, NPUSIM_MEMORY_MB="4")
    assert done.returncode == 0, done.stderr


@needs_compiler
@pytest.mark.parametrize(("visible", "count"), [("0,1", 2), ("1,0", 0), ("", 0)])
def test_visible_devices_are_counted_as_torch_npu_does(visible: str, count: int) -> None:
    done = python(
        "import torch; print(torch.npu.device_count(), torch.npu.is_available())",
        NPUSIM_DEVICES="2",
        ASCEND_RT_VISIBLE_DEVICES=visible,
    )
    assert done.stdout.split() == [str(count), str(count > 0)], done.stderr


def test_a_missing_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    reason = npusim.available()
    assert reason is not None
    assert "no-such-compiler" in reason
    done = python("import torch_npu")
    assert "there is no no-such-compiler: install g++" in done.stderr
