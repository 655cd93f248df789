"""Time operators on this machine: `python -m helpers.planning.calibration ASKED SECONDS ANSWERS`.

ASKED is a JSON: `forms`, a list of [form, weight] (helpers/planning/counter.py describes a form;
its weight is the share of a training that it is guessed to be), and `probes`, trainings of few
layers with the operators of their step. The heaviest operators are done first, each on tensors made
up for it, all within SECONDS; what is left then goes by the bytes it moves. In a step operators
take longer than by themselves, for what they read lies further away and each has to be called: how
much longer, real steps of the probes tell. ANSWERS takes the seconds by form, and how many times as
long the probes' steps took. Loads torch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from helpers.planning.real_steps import Case, Training

CACHE = 64 * 2**20  # beyond what a processor's cache keeps between two uses of a tensor
MOST = 2**31  # bytes of tensors that are made up for one operator
FEWEST, MOST_TIMES = 3, 30
PATIENCE = 2.0  # seconds that a probe's operators may take by themselves


def made(value: Any) -> Any:
    """Return an argument as its description says; of tensors, one that is like it."""
    if isinstance(value, list):
        return [made(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "shape" in value:
        dtype = getattr(torch, value["dtype"])
        tensor = torch.empty_strided(value["shape"], value["stride"], dtype=dtype)
        return tensor.fill_(0.01) if dtype.is_floating_point else tensor.fill_(1)
    [(kind, name)] = value.items()
    return torch.device(name) if kind == "device" else getattr(torch, name)


def size(value: Any) -> int:
    """Return the bytes of the tensors that a description asks for."""
    if isinstance(value, list):
        return sum(map(size, value))
    if not isinstance(value, dict) or "shape" not in value:
        return 0
    last = sum((n - 1) * s for n, s in zip(value["shape"], value["stride"], strict=True))
    return (last + 1) * getattr(torch, value["dtype"]).itemsize


def operator(name: str) -> Any:
    """Return the operator that is called `aten.mm.default`, say."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def seconds_of(form: str, until: float) -> float | None:
    """Return what an operator takes; None where it cannot be done here."""
    name, args, kwargs = json.loads(form)
    needed = size(args) + size(list(kwargs.values()))
    if needed > MOST:
        return None
    do = operator(name)
    copies = [
        ([made(each) for each in args], {key: made(each) for key, each in kwargs.items()})
        for _ in range(max(1, min(8, CACHE // max(1, needed))))
    ]
    took: list[float] = []
    with torch.no_grad():
        do(*copies[0][0], **copies[0][1])
        while len(took) < MOST_TIMES and (len(took) < FEWEST or time.perf_counter() < until):
            used, named = copies[len(took) % len(copies)]
            begin = time.perf_counter()
            do(*used, **named)
            took.append(time.perf_counter() - begin)
    return median(took)


def timed(forms: list[tuple[str, float]], budget: float) -> dict[str, float]:
    """Return the seconds of each operator, by its form."""
    end = time.perf_counter() + budget
    whole = sum(weight for _, weight in forms) or 1.0
    found: dict[str, float] = {}
    speed: dict[str, list[tuple[int, float]]] = {}
    for form, weight in sorted(forms, key=lambda each: -each[1]):
        now = time.perf_counter()
        name, args, _ = json.loads(form)
        took = None
        if now < end:
            try:
                took = seconds_of(form, now + budget * weight / whole)
            except (RuntimeError, TypeError, IndexError):
                took = None  # its arguments mean something that made-up ones do not
        if took is None:
            known = speed.get(name) or [each for some in speed.values() for each in some]
            rate = sum(s for _, s in known) / max(1, sum(b for b, _ in known))
            took = rate * size(args)
        else:
            speed.setdefault(name, []).append((size(args), took))
        found[form] = took
    return found


def longer(case: Case, forms: list[tuple[str, float]], seconds: dict[str, float]) -> float | None:
    """Return how many times as long a step takes as its operators by themselves.

    Args:
        case: a training of few layers.
        forms: the operators of one of its steps, and how often each is called.
        seconds: of each operator.

    Returns:
        None where such a step takes too long to wait for.
    """
    alone = sum(calls * seconds.get(form, 0.0) for form, calls in forms)  # a view has no form
    if not 0 < alone < PATIENCE:
        return None
    training = Training(case, "cpu")
    training.step()
    return median(training.timed() for _ in range(case.steps)) / alone


def main() -> None:
    """Time the operators that the command line names."""
    import bitsandbytes  # noqa: F401  (its operators)

    asked = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    seconds = timed([(form, weight) for form, weight in asked["forms"]], float(sys.argv[2]))
    found = {
        name: longer(Case.model_validate(probe["case"]), probe["forms"], seconds)
        for name, probe in asked["probes"].items()
    }
    Path(sys.argv[3]).write_text(json.dumps({"seconds": seconds, "longer": found}))


if __name__ == "__main__":
    main()
