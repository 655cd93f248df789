"""What stands where programs would be started: it leaves what they leave, in milliseconds.

For tests/fuzz.py, whose cases are about what happens around the programs, not in them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import yaml

import helpers
from helpers.calls import factory, notebooks
from helpers.doctor import examination
from helpers.doctor.probe import Probe
from helpers.ground import paths
from helpers.machine.memory import Reader
from helpers.planning.plan import PARTS, Phase, Plan, Question
from helpers.planning.work import Operators, Work
from helpers.programs import process
from helpers.worker import events

DIGEST = {"digest": "0123456789abcdef", "tensors": 2, "bytes": 64}
STEPS = 12


def _write(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), "utf-8")


def _train(recipe: dict[str, Any], folder: Path) -> None:
    loss = 2.0 - (0.1 if "quantization_bit" in recipe else 0.0)
    rows: list[dict[str, float]] = [{"step": i, "loss": 4.0 - i / 10} for i in range(1, STEPS + 1)]
    rows += [{"step": 6, "eval_loss": loss + 0.5, "eval_runtime": 1.0},
             {"step": STEPS, "eval_loss": loss, "eval_runtime": 1.0}]  # fmt: skip
    _write(folder / "all_results.json", {"eval_loss": loss, "train_runtime": 9.0})
    _write(folder / "trainer_state.json", {"global_step": STEPS, "log_history": rows})
    problems = json.loads(
        (_at(recipe["dataset_dir"]) / f"{recipe['eval_dataset']}.json").read_text("utf-8")
    )
    told: list[dict[str, Any]] = [
        {"event": "loaded", "at": 1.0, **DIGEST},
        {"event": "train_begin", "at": 2.0, "step": 0, "total": STEPS},
        {"event": "evaluated", "at": 3.0, "step": STEPS, "loss": loss, "seconds": 1.0},
        {"event": "train_end", "at": 8.0, "step": STEPS},
        {"event": "digest", "at": 8.0, **DIGEST},
        {"event": "peak", "at": 8.0, "of": "training", "bytes": 1 << 20, "longest": True},
        {"event": "peak", "at": 9.0, "of": "evaluation", "bytes": 1 << 19, "longest": True},
        {"event": "losses", "at": 9.0, "step": STEPS, "nats": [loss * 9] * len(problems),
         "tokens": [9] * len(problems)},
    ]  # fmt: skip
    (folder / events.FILE).write_text("".join(json.dumps(event) + "\n" for event in told))
    (folder / "adapter_model.safetensors").write_bytes(str(sorted(recipe)).encode())
    _write(folder / "adapter_config.json", {"r": recipe.get("lora_rank")})


def _answer(recipe: dict[str, Any], folder: Path) -> None:
    file = _at(recipe["dataset_dir"]) / f"{recipe['eval_dataset']}.json"
    problems = json.loads(file.read_text("utf-8"))[: recipe.get("max_samples")]
    trained = "adapter_name_or_path" in recipe or "_merged" in str(recipe["model_name_or_path"])
    lines = [
        {
            "label": row["output"],
            "predict": row["output"] if trained and place % 2 else "Hm. #### 1",
        }
        for place, row in enumerate(problems)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "generated_predictions.jsonl").write_text(text, "utf-8")
    (folder / events.FILE).write_text("")


def _merge(recipe: dict[str, Any]) -> None:
    folder = _at(recipe["export_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", {"model_type": "qwen2"})
    (folder / "model.safetensors").write_bytes(b"merged" + folder.name.encode())


def _at(named: str) -> Path:
    return paths.ROOT / named


_LAYER = {
    "name": "model.layers.1.self_attn.q_proj", "rows": 4, "columns": 4, "rank": 2, "scale": 2.0,
    "a": [[0.1] * 4] * 2, "b": [[0.1] * 2] * 4, "weight": [[0.5] * 4] * 4,
    "product": [[0.04] * 4] * 4, "change": [[0.04] * 4] * 4, "norm_weight": 2.0,
    "norm_product": 0.16, "norm_change": 0.16, "magnitude": None, "trained": 16, "parameters": 16,
    "model_trained": 160, "model_parameters": 1600,
}  # fmt: skip
_BLOCK = {
    "name": "model.layers.1.self_attn.q_proj", "rows": 8, "columns": 8, "quant_type": "nf4",
    "codes": [i / 8 - 1 for i in range(16)], "scale": 1.0, "before": [0.25] * 64,
    "indices": [10] * 64, "after": [0.25] * 64, "error_max": 0.1, "error_rms": 0.05,
    "error_relative": 0.1, "matrix_error_max": 0.1, "matrix_error_rms": 0.05,
    "matrix_error_relative": 0.1, "bytes_16": 128, "bytes_codes": 32, "bytes_scales": 4,
}  # fmt: skip


def _own_module(module: str, words: Sequence[str]) -> None:
    """Leave what one of the project's own modules leaves."""
    if module == "helpers.planning.traced_step":
        asked = [Question.model_validate(each) for each in json.loads(Path(words[0]).read_text())]
        phase = Phase(rows=1, length=64, peak_bytes=1 << 20, parts=dict.fromkeys(PARTS, 1 << 17))
        evaluation = phase.model_copy(update={"peak_bytes": 1 << 19})
        plans = [Plan(question=each, training=phase, evaluation=evaluation, largest_micro_batch=2,
                      seconds=0.1) for each in asked]  # fmt: skip
        _write(Path(words[1]), [plan.model_dump() for plan in plans])
    elif module == "helpers.planning.traced_work":
        some = [Operators(kind="vector", calls=1, flops=100, bytes=100, form="[]")]
        work = Work(length=64, eval_length=64, micro_batch=some, update=some, evaluation=some,
                    token=some)  # fmt: skip
        _write(Path(words[1]), [work.model_dump() for _ in json.loads(Path(words[0]).read_text())])
    elif module == "helpers.planning.calibration":
        forms = json.loads(Path(words[0]).read_text())["forms"]
        _write(Path(words[2]), {"seconds": {form: 1e-5 for form, _ in forms}, "longer": {}})
    elif module == "helpers.worker.arguments":
        _write(Path(words[0]), None)
    elif module == "helpers.inputs.tiny_model":
        _write(Path(words[1]) / "config.json", {"model_type": "qwen2"})
        (Path(words[1]) / "model.safetensors").write_bytes(b"tiny")
    else:
        plan = yaml.safe_load(_at(words[0]).read_text("utf-8"))
        if module == "helpers.worker.dequantised_merge":
            _merge(plan)
        elif module == "helpers.worker.divergence":
            found = {
                name: {"kl": 0.1 if name.endswith("qlora_merged") else 0.0001, "same_token": 1.0,
                       "tokens": 100}
                for name in plan["pairs"]
            }  # fmt: skip
            _write(_at(plan["result"]), found)
        elif module == "helpers.worker.inside":
            _write(_at(plan["result"]), _LAYER if plan["what"] == "layer" else _BLOCK)
        elif module == "helpers.worker.short_training":
            _write(_at(plan["result"]), dict.fromkeys(plan["recipes"], 1 << 20))
        else:
            raise NotImplementedError(module)


def leave(command: Sequence[str]) -> None:
    """Leave what a command leaves."""
    if command[1:2] == ["-m"] and command[2].startswith("helpers."):
        _own_module(command[2], command[3:])
    elif command[0] == factory.CLI:
        recipe = yaml.safe_load(_at(command[2]).read_text("utf-8"))
        if command[1] == "export":
            _merge(recipe)
            return
        folder = _at(recipe["output_dir"])
        folder.mkdir(parents=True, exist_ok=True)
        _train(recipe, folder) if recipe.get("do_train") else _answer(recipe, folder)
    else:
        raise NotImplementedError(command)


# What a program can do besides its work: by name, the text that it logs and how it ends.
Spoil = Callable[[Sequence[str]], None]
ENDS: dict[str, tuple[bytes, int]] = {
    "fails": (b"Traceback (most recent call last):\nKeyError: 'odd'\n", 1),
    "fails, hostile log": (
        b"\x1b[2J<script>\x00\xff {braces} %s $x$ \xe2\x80\xae\nValueError: {x}\n",
        1,
    ),
    "silent": (b"", 3),
    "killed": (b"half a li", -9),
    "terminated": (b"", -15),
    "segmentation fault": (b"", -11),
    "out of memory": (b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n", 1),
    "no network": (b"ConnectionError: Max retries exceeded\n", 1),
    "disk full": (b"OSError: [Errno 28] No space left on device\n", 1),
    "long log": (b"x" * 300_000 + b"\nRuntimeError: " + b"y" * 9_000, 1),
    "nothing left": (b"", 0),
    "garbage left": (b"", 0),
    "half left": (b"", 0),
}


class Programs:
    """Stands where `process.run` is. At the call `at`, counted from 0, it ends as `end` says."""

    def __init__(self, end: str = "", at: int = 0, seed: int = 0) -> None:
        self.end, self.at, self.calls = end, at, 0
        self.random = random.Random(seed)

    def __call__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        on_start: Callable[[int], None] | None = None,
        on_tick: Callable[[], None] | None = None,
        tick_seconds: float = 0.5,
    ) -> float:
        number, self.calls = self.calls, self.calls + 1
        if on_start:
            on_start(os.getpid())
            time.sleep(0.02)  # for one sample of the memory
        with process.refusals_explained(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            text, code = ENDS.get(self.end, (b"", 0)) if number == self.at else (b"all well\n", 0)
            log.write_bytes(text)
        program = command[1] if command[1:2] != ["-m"] else command[2]
        if "download" in command:
            raise process.failure(command, log, 1) if text else _no_network(command, log)
        if code:
            raise process.failure(command, log, code)
        if number == self.at and self.end == "nothing left":
            return 0.1
        if program in ("train", "export") or program.startswith("helpers."):
            leave(command)
        if number == self.at and self.end in ("garbage left", "half left"):
            self._spoil(command)
        return 0.1

    def _spoil(self, command: Sequence[str]) -> None:
        """Damage one of the files that the program has just written."""
        folders: list[Path] = []
        for word in command[2:]:
            if word.endswith(".yaml") and "helpers.worker.arguments" not in command:
                recipe = yaml.safe_load(_at(word).read_text("utf-8"))
                folders += [_at(recipe[key]) for key in ("export_dir", "result", "output_dir")
                            if key in recipe]  # fmt: skip
            elif word.endswith(".json"):
                folders.append(Path(word))
        files = sorted(
            file for folder in folders
            for file in ([folder] if folder.is_file() else folder.rglob("*")) if file.is_file()
        )  # fmt: skip
        if files:
            file = self.random.choice(files)
            whole = file.read_bytes()
            file.write_bytes(whole[: len(whole) // 2] if self.end == "half left" else b"\xff[]")


def _no_network(command: Sequence[str], log: Path) -> Exception:
    log.write_text("ConnectionError: Max retries exceeded\n")
    return process.failure(command, log, 1)


def _execute(source: Path, executed: Path, parameters: dict[str, Any], kernels: object) -> None:
    """Run a notebook's cells here, and show what each ends with, as a kernel would."""
    import ast

    notebook = nbformat.read(source, as_version=4)
    names: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, source.stem, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= parameters
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), source.stem, "eval"), names)
            if hasattr(shown, "_repr_mimebundle_"):
                shown._repr_mimebundle_()
                with contextlib.redirect_stdout(io.StringIO()):
                    print(shown)
    nbformat.write(notebook, executed)


def install(programs: Programs) -> None:
    """Put it all where the programs are, for as long as this process lives."""
    process.run = programs  # type: ignore[assignment]
    often = Reader("resident", lambda pid: 1 << 20, interval_seconds=0.002)
    factory.reader = lambda device: often  # type: ignore[attr-defined]
    notebooks._execute = _execute
    here = ModuleType("here")  # what lies beside the notebooks looks for a checkout above them
    here.__dict__["Tutorial"] = helpers.Tutorial
    sys.modules["here"] = here
    found = Probe(torch="2.10.0", nf4_error=0.09)
    examination.examine.__kwdefaults__["ask"] = lambda device: found  # type: ignore[index]
