"""The NPU kernels of `helpers/worker/npu_4bit.py` against bitsandbytes' `default` backend.

    python benchmarks/bench_4bit.py kernels [--device cuda]
    python benchmarks/bench_4bit.py step

`kernels` calls every formulation directly, eagerly and on one thread, on the shapes of Qwen2's
linear layers: the default backend's, pairs of 8 bytes by pieces of 2^20 weights (what there was
before a device's choice was measured), pairs of 4 bytes, and what is chosen on this device.
`step` times training steps of a small Qwen2 on the simulated NPU (tests/npusim).
Neither figure is an Ascend's: they compare two ways to do the same work on one machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "bitsandbytes", "transformers", "peft")
# model: hidden size, intermediate size, size of keys and values (their config.json files)
MODELS = {
    "Qwen2-0.5B": (896, 4864, 128),
    "Qwen2.5-3B": (2048, 11008, 256),
    "Qwen2-7B": (3584, 18944, 512),
}
BLOCKSIZE = 64
BEFORE = 1 << 20  # weights a piece, before a device's choice was measured

app = typer.Typer(add_completion=False)


def linear_shapes() -> dict[str, tuple[int, int]]:
    """(out, in) of each different linear layer, by "model layer"."""
    shapes = {}
    for model, (hidden, intermediate, kv) in MODELS.items():
        shapes[f"{model} q, o"] = (hidden, hidden)
        shapes[f"{model} k, v"] = (kv, hidden)
        shapes[f"{model} gate, up"] = (intermediate, hidden)
        shapes[f"{model} down"] = (hidden, intermediate)
    return shapes


def machine(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    found: dict[str, Any] = {"processor": name, "threads": torch.get_num_threads()}
    if device == "cuda":
        found["device"] = torch.cuda.get_device_name()
    found["python"] = platform.python_version()
    return found | {package: version(package) for package in PACKAGES}


def keep_memory() -> None:
    """Let this process keep the memory it frees, as an accelerator's caching allocator does.

    Otherwise glibc returns every large block to the system, and much of what is measured is the
    system handing out fresh pages (M_MMAP_MAX and M_TRIM_THRESHOLD of mallopt(3)).
    """
    libc = ctypes.CDLL("libc.so.6")
    if not (libc.mallopt(-4, 0) and libc.mallopt(-1, 2**31 - 1)):
        raise SystemExit("This C library has no mallopt: run without --keep-memory.")


# ---- kernels ------------------------------------------------------------------------------------


def seconds(call: Callable[[], Any], device: str) -> float:
    """One call's processor time on a CPU, on CUDA the wall-clock time until its queue is empty.

    With one thread the two are the same on an idle machine; on a shared one, processor time leaves
    out the turns that other processes took.
    """
    import torch

    if device == "cpu":
        begin = time.process_time()
        call()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def temporaries(call: Callable[[], Any], device: str) -> int:
    """Bytes at the peak of one call beyond what it returns.

    On a CPU from the allocator's events in torch.profiler, which see what operators allocate inside
    as well (a TorchDispatchMode would miss the casts within a mixed-dtype product); on CUDA from
    the allocator's own peak.
    """
    import torch

    call()  # tables that stay are made here
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
            result = call()
        now = peak = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
    kept = result if isinstance(result, tuple) else (result,)
    return peak - sum(tensor.nbytes for tensor in kept)


def formulations(
    shape: tuple[int, int], dtype: str, device: str, repeats: int, chosen: str
) -> list:
    """Time, bits and temporaries of every formulation on one matrix."""
    import torch

    from helpers.worker import kernel_timing
    from helpers.worker.dequantise_4bit import dequantize_4bit_by
    from helpers.worker.kernel_choice import BUILT_IN, Choice, parsed

    weights = shape[0] * shape[1]
    arguments = kernel_timing.sample(weights, device, getattr(torch, dtype))
    ways = {
        "default": Choice("default", weights),
        "8-byte pairs": Choice("pairs8", BEFORE),
        "4-byte pairs": BUILT_IN,
        "chosen": parsed(chosen),
    }
    # What is chosen may be one of the others: it is timed once, and stands for both.
    clock = time.process_time if device == "cpu" else time.perf_counter
    different = list(dict.fromkeys(ways.values()))
    rows = kernel_timing.timed(different, arguments, device, repeats, clock)
    for choice, row in zip(different, rows, strict=True):
        used = temporaries(lambda choice=choice: dequantize_4bit_by(choice, *arguments), device)
        row["temporary_bytes_per_weight"] = used / weights
    return [{"name": name, **rows[different.index(choice)]} for name, choice in ways.items()]


def quantise(shape: tuple[int, int], device: str, repeats: int) -> dict:
    """What loading a model does to each weight, by the default backend and by ours."""
    import torch

    from helpers.worker import default_4bit, npu_4bit

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).bfloat16().to(device)
    arguments = (weight, BLOCKSIZE, "nf4", torch.uint8)
    default, ours = default_4bit.kernels()["quantize_4bit"], npu_4bit.quantize_4bit
    equal = all(map(torch.equal, default(*arguments), ours(*arguments)))
    pairs = [
        (seconds(lambda: default(*arguments), device), seconds(lambda: ours(*arguments), device))
        for _ in range(repeats)
    ]
    found = {
        "default_ms": 1000 * statistics.median(slow for slow, _ in pairs),
        "ours_ms": 1000 * statistics.median(fast for _, fast in pairs),
        "ratio": statistics.median(slow / fast for slow, fast in pairs),
        "equal": equal,
    }
    for name, kernel in (("default", default), ("ours", ours)):
        used = temporaries(lambda kernel=kernel: kernel(*arguments), device)
        found[f"{name}_temporary_bytes_per_weight"] = used / weight.numel()
    return found


def measure_kernels(
    device: str = "cpu", repeats: int = 7, dtypes: tuple[str, ...] = ("bfloat16", "float32")
) -> dict[str, Any]:
    """Every linear shape's dequantisation, and the quantisation of shapes below 2^23 weights.

    The default's quantiser takes 100 ns and 130 bytes of temporaries a weight, so the largest
    shapes would need minutes and 9 GB and tell nothing more.
    """
    import torch

    from helpers.worker import kernel_timing

    torch.set_num_threads(1)
    chosen, _ = kernel_timing.measure(device)
    dequantised, quantised = [], []
    for name, shape in linear_shapes().items():
        for dtype in dtypes:
            rows = formulations(shape, dtype, device, repeats, str(chosen))
            dequantised.append({"layer": name, "shape": list(shape), "dtype": dtype, "rows": rows})
        if shape[0] * shape[1] < 2**23:
            row = {"layer": name, "shape": list(shape), "dtype": "bfloat16"}
            quantised.append(row | quantise(shape, device, 3))
    return {
        "machine": machine(device), "repeats": repeats, "blocksize": BLOCKSIZE,
        "chosen": str(chosen), "dequantise": dequantised, "quantise": quantised,
    }  # fmt: skip


def kernel_table(results: dict[str, Any]) -> Table:
    """One line a shape."""
    table = Table(title=f"4-bit kernels, one thread, eager; chosen here: {results['chosen']}")
    names = [row["name"] for row in results["dequantise"][0]["rows"]]
    for column in ("layer", "dtype", "default ms", *(f"{name}, faster" for name in names[1:])):
        table.add_column(column)
    table.add_column("same bits")
    for each in results["dequantise"]:
        weights = each["shape"][0] * each["shape"][1]
        table.add_row(
            each["layer"],
            each["dtype"],
            f"{each['rows'][0]['nanoseconds'] * weights / 1e6:.2f}",
            *(f"{row['times_default']:.1f}" for row in each["rows"][1:]),
            "yes" if all(row["equal"] for row in each["rows"]) else "NO",
        )
    return table


# ---- step ---------------------------------------------------------------------------------------


def child(backend: str, steps: int, tokens: int, checkpointing: bool, model_dir: str) -> None:
    """Train on npu:0 and print a line of JSON; runs in a subprocess of `measure_step`."""
    import bitsandbytes  # noqa: F401  (its entry point must not register before we decide)
    import torch
    import torch_npu  # type: ignore[import-not-found]  # noqa: F401
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig, Qwen2ForCausalLM

    from helpers.worker import npu_4bit

    torch.set_num_threads(1)
    if backend == "qlora ours":
        npu_4bit.register()
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    registered = has("bitsandbytes::dequantize_4bit", "PrivateUse1")
    assert backend == "lora" or registered == (backend == "qlora ours"), (backend, registered)

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.bfloat16,  # as LLaMA-Factory sets it
    )
    begin = time.perf_counter()
    model = Qwen2ForCausalLM.from_pretrained(
        model_dir,
        dtype=torch.bfloat16,
        quantization_config=None if backend == "lora" else config,
        device_map={"": "npu:0"},
    )
    load = time.perf_counter() - begin
    model.config.use_cache = False
    model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(0)
    model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear")).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4)
    batch = torch.randint(0, model.config.vocab_size, (2, tokens // 2)).to("npu:0")
    torch.npu.reset_peak_memory_stats()
    times, losses = [], []
    # One thread at a time works: processor time, so that other processes do not count.
    for _ in range(steps + 1):
        begin = time.process_time()
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.process_time() - begin)
    found = {"load_s": load, "step_s": times[1:], "losses": losses}
    print(json.dumps(found | {"peak_bytes": torch.npu.max_memory_allocated()}))


def make_model(folder: Path) -> None:
    """A random Qwen2 of hidden size 1024 and 8 layers, with a small vocabulary."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=1024,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=2,
        intermediate_size=2816,
        vocab_size=1000,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def simulated_environment() -> dict[str, str]:
    """The environment in which npu:0 is the simulated device."""
    sys.path.insert(0, str(ROOT))
    from tests import npusim  # type: ignore[import-not-found]

    if reason := npusim.available():
        raise SystemExit(reason)
    found = npusim.environment(TORCHDYNAMO_DISABLE="1", OMP_NUM_THREADS="1")
    found["PYTHONPATH"] = os.pathsep.join([str(ROOT), found.get("PYTHONPATH", "")])
    return found


# In the child the tutorial's own entry point must not decide which kernels are used.
CHILD = """
import importlib.metadata as metadata, sys
real = metadata.entry_points
metadata.entry_points = lambda **k: [] if k.get("group") == "bitsandbytes.backends" else real(**k)
sys.path.insert(0, "benchmarks")
import bench_4bit, json
bench_4bit.child(**json.loads(sys.argv[1]))
"""


def measure_step(
    folder: Path, steps: int = 4, tokens: int = 256, checkpointing: bool = True, rounds: int = 2
) -> dict[str, Any]:
    """Step times of LoRA and of QLoRA with either backend, `rounds` processes of each in turns.

    Args:
        folder: where the model is put.
        tokens: in a batch of two sequences.
    """
    environment = simulated_environment()
    make_model(folder)
    backends = ("lora", "qlora ours", "qlora default")
    found: dict[str, list[dict[str, Any]]] = {backend: [] for backend in backends}
    for _ in range(rounds):
        for backend in backends:
            arguments = {"backend": backend, "steps": steps, "tokens": tokens}
            arguments |= {"checkpointing": checkpointing, "model_dir": str(folder)}
            done = subprocess.run(
                [sys.executable, "-c", CHILD, json.dumps(arguments)],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{backend}: {done.stderr[-2000:]}")
            found[backend].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {backend: summary(runs) for backend, runs in found.items()}
    for row in rows.values():
        row["times_lora"] = row["step_s"] / rows["lora"]["step_s"]
    losses = [run["losses"] for name in ("qlora ours", "qlora default") for run in found[name]]
    settings = {"tokens": tokens, "checkpointing": checkpointing, "steps": steps, "rounds": rounds}
    return {
        "machine": machine("cpu") | {"threads": 1, "device": "simulated NPU, not an Ascend"},
        "model": "Qwen2, hidden size 1024, 8 layers, random weights",
        **settings,
        "same_losses_with_either_backend": all(one == losses[0] for one in losses),
        "qlora_losses": losses,
        "rows": rows,
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over every step (the first of each process left out) and every load."""
    steps = [step for run in runs for step in run["step_s"]]
    return {
        "step_s": statistics.median(steps),
        "step_min_s": min(steps),
        "step_max_s": max(steps),
        "load_s": statistics.median(run["load_s"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "losses": runs[0]["losses"],
    }


def step_table(results: dict[str, Any]) -> Table:
    """One line a way of training."""
    table = Table(
        title="Training steps, processor time, on the simulated NPU (never an Ascend's speed)"
    )
    for column in ("", "step s", "spread", "times LoRA", "load s", "peak MB"):
        table.add_column(column)
    for name, row in results["rows"].items():
        table.add_row(
            name,
            f"{row['step_s']:.2f}",
            f"{row['step_min_s']:.2f}-{row['step_max_s']:.2f}",
            f"{row['times_lora']:.2f}",
            f"{row['load_s']:.1f}",
            f"{row['peak_bytes'] / 1e6:.1f}",
        )
    return table


def write(results: dict[str, Any], path: Path) -> None:
    """Save as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


@app.command()
def kernels(
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    repeats: int = 7,
    keep: Annotated[
        bool, typer.Option("--keep-memory", help="Do not return freed memory to the system")
    ] = False,
) -> None:
    """Compare the kernels and write benchmarks/results/dequant_4bit[_cuda][_kept].json."""
    sys.path.insert(0, str(ROOT))
    if keep:
        keep_memory()
    results = measure_kernels(device, repeats) | {"keeps_memory": keep}
    suffix = ("" if device == "cpu" else f"_{device}") + ("_kept" if keep else "")
    write(results, RESULTS / f"dequant_4bit{suffix}.json")
    Console(width=140).print(kernel_table(results))


@app.command()
def step(steps: int = 4, tokens: int = 256, rounds: int = 2, checkpointing: bool = True) -> None:
    """Compare training steps on the simulated NPU and write benchmarks/results/step_4bit.json."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        results = measure_step(Path(folder), steps, tokens, checkpointing, rounds)
    write(results, RESULTS / "step_4bit.json")
    Console(width=140).print(step_table(results))


if __name__ == "__main__":
    app()
