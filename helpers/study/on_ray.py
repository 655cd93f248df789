"""Do trials side by side with Ray: `.venv-study/bin/python helpers/study/on_ray.py PLAN`.

Runs in a .venv of its own that has Ray and nothing of this project, so it imports nothing of it.
PLAN is a JSON: `trials` (each with `name`, `command`, `env` and `log`, in the order in which they
are begun), `kind` (cpu, cuda or npu), `cards`, `workers`, `cores`, `retries`, `guard` (the program
under which a command ends with whoever started it), `told` (the file that takes a line of JSON for
all that happens) and `folder` (for Ray's sockets and logs).

It is run under a guard itself (helpers/programs/process.py), which ends what Ray leaves behind.
A trial is one task with one whole card, or its share of the cores. Ray serves this machine alone:
its ports are bound to a loopback address and want a token, there is no dashboard, and nothing is
told to anyone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HOST = "127.0.0.2"  # of this machine alone; 127.0.0.1 Ray takes for the address others see
STARTING = 240  # seconds that Ray may take on a busy machine
PORTS = ("node-manager-port", "object-manager-port", "runtime-env-agent-port",
         "dashboard-agent-grpc-port", "dashboard-agent-listen-port",
         "metrics-export-port")  # fmt: skip
STORE = 80 * 2**20  # bytes: trials pass nothing through Ray's store, and 75 MiB is its least
VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
# Before Ray is imported. Its memory monitor would kill the largest training; that they fit, the
# plan has seen to.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def tell(file: str, **event: Any) -> None:
    """Add a line to the file of events."""
    with Path(file).open("a", encoding="utf-8") as told:
        told.write(json.dumps({"at": time.time(), **event}) + "\n")


def do(trial: dict[str, Any], plan: dict[str, Any], attempt: int) -> int:
    """Run a trial's command where Ray has put it, and return its exit code."""
    cores = max(1, plan["cores"] // plan["workers"])
    card = os.environ.get(VISIBLE.get(plan["kind"], ""), "")
    where = f"{plan['kind']} {card}" if card else f"cpu x {cores}"
    tell(plan["told"], trial=trial["name"], event="running", attempt=attempt, where=where)
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env = own | {"OMP_NUM_THREADS": str(cores)} | trial["env"]
    if card:
        env[VISIBLE[plan["kind"]]] = card
    told, telling = os.pipe()
    Path(trial["log"]).parent.mkdir(parents=True, exist_ok=True)
    with Path(trial["log"]).open("ab") as log:
        # The guard's standard input ends with this process, and with it all that the trial started.
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", plan["guard"], str(telling), *trial["command"]],
            stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=plan["root"],
            env=env, pass_fds=(telling,),
        )  # fmt: skip
        os.close(telling)
        os.read(told, 32)
        os.close(told)
        return guard.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def begin(ray: Any, plan: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start Ray on this machine, for this machine, and return its head.

    Its raylet gives its agents 15 s to say at which ports they are (ray-project/ray#65983), and
    ends where a busy machine does not give them that: then it is started again.
    """
    until = time.monotonic() + STARTING
    while True:
        port, *others = free_ports(1 + len(PORTS))
        head = subprocess.Popen(head_command(plan, port, others))
        while head.poll() is None:
            try:
                ray.init(f"{HOST}:{port}", log_to_driver=False, logging_level="ERROR")
                return head
            except Exception:  # it raises ConnectionError, RuntimeError, and just that
                time.sleep(1)
                if time.monotonic() > until:
                    head.kill()
        if time.monotonic() > until:
            sys.exit("Ray did not start.")


def head_command(plan: dict[str, Any], port: int, others: list[int]) -> list[str]:
    """Return the command that starts Ray."""
    on_cpu, kind = plan["kind"] == "cpu", plan["kind"]
    npus = ["--resources=" + json.dumps({"NPU": plan["cards"]})] if kind == "npu" else []
    return [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        f"--node-ip-address={HOST}", f"--port={port}", "--include-dashboard=false",
        *(f"--{name}={number}" for name, number in zip(PORTS, others, strict=True)),
        f"--num-cpus={plan['workers'] if on_cpu else plan['cores']}",
        f"--num-gpus={plan['cards'] if kind == 'cuda' else 0}",
        f"--object-store-memory={STORE}", f"--temp-dir={plan['folder']}", "--disable-usage-stats",
        *npus,
    ]  # fmt: skip


def main() -> None:
    """Do all trials of the plan that the command line names, each until it is done or given up."""
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    # Who does not know the token is not served, not even on this machine.
    os.environ.update(QUIET | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    import ray

    head = begin(ray, plan)
    of_kind: dict[str, dict[str, Any]] = {
        "cpu": {"num_cpus": 1},
        "cuda": {"num_cpus": 0, "num_gpus": 1},
        "npu": {"num_cpus": 0, "resources": {"NPU": 1}},
    }
    options = of_kind[plan["kind"]]
    # What fails is tried again here, where it is told; a worker does one trial and goes.
    task = ray.remote(max_retries=0, max_calls=1, **options)(do)
    waiting: dict[Any, tuple[dict[str, Any], int]] = {}
    for trial in plan["trials"]:
        waiting[task.remote(trial, plan, 1)] = (trial, 1)
    while waiting:
        [ready], _ = ray.wait(list(waiting), num_returns=1)
        trial, attempt = waiting.pop(ready)
        try:
            code = ray.get(ready)
        except ray.exceptions.RayError:  # the worker was killed, and its trial with it
            code = -9
        again = code != 0 and attempt <= plan["retries"]
        tell(plan["told"], trial=trial["name"], event="ended", code=code, again=again)
        if again:
            waiting[task.remote(trial, plan, attempt + 1)] = (trial, attempt + 1)
    ray.shutdown()
    head.kill()  # asked to end, it takes its time; the guard ends what it has started


if __name__ == "__main__":
    main()
