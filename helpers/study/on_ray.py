"""Do trials side by side with Ray: `.venv-study/bin/python helpers/study/on_ray.py PLAN`.

With `start` and its options for an argument it is `ray start`, but for its patience.

Runs in a .venv of its own that has Ray and nothing of this project, so it imports nothing of it.
PLAN is a JSON: `trials` (each with `name`, `command`, `env` and `log`, in the order in which they
are begun), `kind` (cpu, cuda or npu), `cards`, `workers`, `cores`, `retries`, `guard` (the program
under which a command ends with whoever started it), `root` (the folder from which it is run),
`told` (the file that takes a line of JSON for all that happens), `folder` (for Ray's sockets and
logs) and `address` (of a cluster that is there; "" starts Ray on this machine, for it alone).

A trial is one task with one whole card, or its share of the cores. Of this machine alone, Ray's
ports are bound to a loopback address; they want a token, there is no dashboard, and nothing is
told to anyone. Ray and all that it has started end with this program.
"""

from __future__ import annotations

import inspect
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HOST = "127.0.0.2"  # of this machine alone; 127.0.0.1 Ray takes for the address others see
STARTING = 600  # seconds that Ray may take on a busy machine
ANSWERING = 10  # seconds in which a cluster's first machine takes a connection
PORTS = ("node-manager-port", "object-manager-port", "runtime-env-agent-port",
         "dashboard-agent-grpc-port", "dashboard-agent-listen-port",
         "metrics-export-port")  # fmt: skip
STORE = 80 * 2**20  # bytes: trials pass nothing through Ray's store, and 75 MiB is its least
VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}
RESOURCE = {"npu": "NPU", "cuda": "GPU", "cpu": "CPU"}  # as Ray calls them
# Before Ray is imported. Its memory monitor would kill the largest training; that they fit, the
# plan has seen to.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": str(1000 * STARTING),
    # Who does not know the token is not served, not even on this machine.
    "RAY_AUTH_MODE": "token",
}


def tell(plan: dict[str, Any], **event: Any) -> None:
    """Add a line to the file of events."""
    with Path(plan["told"]).open("a", encoding="utf-8") as told:
        told.write(json.dumps({"at": time.time(), **event}) + "\n")


def guarded(guard: str, command: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """Start a program that ends, with all that it has started, when this process does.

    The life line is the guard's standard input: closed, it ends them too.
    """
    told, telling = os.pipe()
    started = subprocess.Popen(
        [sys.executable, "-I", "-S", guard, str(telling), *command],
        stdin=subprocess.PIPE, pass_fds=(telling,), **how,
    )  # fmt: skip
    os.close(telling)
    os.read(told, 32)
    os.close(told)
    return started


def do(trial: dict[str, Any], plan: dict[str, Any]) -> Iterator[str | int]:
    """Run a trial's command where Ray has put it; yield where that is, then its exit code."""
    import ray

    cores = max(1, plan["cores"] // plan["workers"])
    card = os.environ.get(VISIBLE.get(plan["kind"], ""), "")
    here = f"{plan['kind']} {card}" if card else f"cpu x {cores}"
    yield f"{ray.util.get_node_ip_address()}, {here}" if plan["address"] else here
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env = own | {"OMP_NUM_THREADS": str(cores)} | trial["env"]
    if card:
        env[VISIBLE[plan["kind"]]] = card
    Path(trial["log"]).parent.mkdir(parents=True, exist_ok=True)
    with Path(trial["log"]).open("ab") as log:
        guard = guarded(
            plan["guard"], trial["command"], stdout=log, stderr=subprocess.STDOUT,
            cwd=plan["root"], env=env,
        )  # fmt: skip
        yield guard.wait()


def missing(plan: dict[str, Any]) -> list[str]:
    """Return which of the files that a trial needs are not where it looks for them."""
    needed = (plan["told"], plan["guard"], plan["trials"][0]["command"][0])
    return [file for file in needed if not Path(file).exists()]


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def begin(ray: Any, plan: dict[str, Any]) -> subprocess.Popen[bytes] | None:
    """Start Ray on this machine, for this machine; return its guard, None where it did not start.

    Where it ends before that, it is started again.
    """
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    until = time.monotonic() + STARTING
    while True:
        port, *others = free_ports(1 + len(PORTS))
        head = guarded(plan["guard"], head_command(plan, port, others))
        while head.poll() is None:
            try:
                ray.init(f"{HOST}:{port}", log_to_driver=False, logging_level="ERROR")
                return head
            except Exception:  # it raises ConnectionError, RuntimeError, and just that
                time.sleep(1)
                if time.monotonic() > until:
                    end(head)
        if time.monotonic() > until:
            return None


def start() -> None:
    """Be `ray start`, with patience for a busy machine.

    Ray gives its raylet 30 s to be known, and the raylet gives each of its agents 15 s to say at
    which port it is, and ends (ray-project/ray#65983). Here the ports are said beforehand: without
    a dashboard the agents have but one, which is chosen.
    """
    from ray import _raylet
    from ray._private import services
    from ray.scripts.scripts import main

    until = time.monotonic() + STARTING
    started, known = services.start_raylet, services.get_node

    def start_raylet(*arguments: Any, **named: Any) -> Any:
        given = inspect.signature(started).bind(*arguments, **named).arguments
        ports = {
            _raylet.METRICS_AGENT_PORT_NAME: -1,
            _raylet.METRICS_EXPORT_PORT_NAME: -1,
            _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME: -1,
            _raylet.RUNTIME_ENV_AGENT_PORT_NAME: given["runtime_env_agent_port"],
        }
        for name, port in ports.items():
            _raylet.persist_port(given["session_dir"], given["node_id"], name, port)
        return started(*arguments, **named)

    def get_node(*arguments: Any, **named: Any) -> Any:
        while True:
            try:
                return known(*arguments, **named)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)

    services.start_raylet, services.get_node = start_raylet, get_node
    main()


def end(head: subprocess.Popen[bytes]) -> None:
    """End Ray and all that it has started; asked to end by itself, it takes its time."""
    assert head.stdin
    head.stdin.close()
    head.wait()


def head_command(plan: dict[str, Any], port: int, others: list[int]) -> list[str]:
    """Return the command that starts Ray."""
    on_cpu, kind = plan["kind"] == "cpu", plan["kind"]
    npus = ["--resources=" + json.dumps({"NPU": plan["cards"]})] if kind == "npu" else []
    return [
        sys.executable, __file__, "start", "--head", "--block",
        f"--node-ip-address={HOST}", f"--port={port}", "--include-dashboard=false",
        *(f"--{name}={number}" for name, number in zip(PORTS, others, strict=True)),
        f"--num-cpus={plan['workers'] if on_cpu else plan['cores']}",
        f"--num-gpus={plan['cards'] if kind == 'cuda' else 0}",
        f"--object-store-memory={STORE}", f"--temp-dir={plan['folder']}", "--disable-usage-stats",
        # Each is one more program that starts: for the autoscaler, and for logs that nobody reads.
        "--no-monitor", "--include-log-monitor=false", *npus,
    ]  # fmt: skip


def join(ray: Any, plan: dict[str, Any]) -> dict[str, str] | None:
    """Take part in a cluster; return why trials cannot be done there, None where they can."""
    host, _, port = plan["address"].rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWERING).close()
    except OSError:
        return {"why": "silent"}
    try:
        ray.init(plan["address"], log_to_driver=False, logging_level="ERROR")
    except (RuntimeError, ConnectionError) as error:
        print(error, flush=True)
        return {"why": "versions" if "ersion mismatch" in str(error) else "silent"}
    kind = RESOURCE[plan["kind"]]
    if ray.cluster_resources().get(kind, 0) < per_trial(plan)[kind]:
        return {"why": "cards"}
    looks = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node["NodeID"], soft=False
            )
            look = ray.remote(num_cpus=0, scheduling_strategy=there)(missing)
            looks[node["NodeManagerAddress"]] = look.remote(plan)
    for address, look in looks.items():
        if lacking := ray.get(look):
            return {"why": "folder", "node": address, "file": lacking[0]}
    return None


def per_trial(plan: dict[str, Any]) -> dict[str, float]:
    """Return what a trial takes of a machine, as Ray counts."""
    if plan["kind"] != "cpu":
        return {"CPU": 0, RESOURCE[plan["kind"]]: 1}
    # Of its own Ray, this machine says that it has as many processors as trials may be beside each
    # other; in a cluster each machine says how many it has.
    return {"CPU": max(1, plan["cores"] // plan["workers"]) if plan["address"] else 1}


def do_all(ray: Any, plan: dict[str, Any]) -> None:
    """Do all trials, each until it is done or given up."""
    takes = per_trial(plan)
    # What fails is tried again here, where it is told; a worker does one trial and goes.
    task = ray.remote(
        max_retries=0, max_calls=1, num_returns="streaming", num_cpus=takes.pop("CPU"),
        num_gpus=takes.pop("GPU", 0), resources=takes,
    )(do)  # fmt: skip
    waiting: dict[Any, tuple[dict[str, Any], int]] = {}
    for trial in plan["trials"]:
        waiting[task.remote(trial, plan)] = (trial, 1)
    while waiting:
        [ready], _ = ray.wait(list(waiting), num_returns=1)
        trial, attempt = waiting[ready]
        try:
            said = ray.get(next(ready))
        except ray.exceptions.RayError:  # the worker was killed, and its trial with it
            said = -9
        if isinstance(said, str):
            tell(plan, trial=trial["name"], event="running", attempt=attempt, where=said)
            continue
        del waiting[ready]
        again = said != 0 and attempt <= plan["retries"]
        tell(plan, trial=trial["name"], event="ended", code=said, again=again)
        if again:
            waiting[task.remote(trial, plan)] = (trial, attempt + 1)


def main() -> None:
    """Do the plan that the command line names, or start Ray."""
    if sys.argv[1] == "start":
        start()
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    Path(plan["told"]).touch()
    os.environ.update(QUIET)
    import ray

    head, refused = None, None
    if plan["address"]:
        refused = join(ray, plan)
    else:
        head = begin(ray, plan)
        refused = None if head else {"why": "slow"}
    if refused:
        tell(plan, event="refused", **refused)
    else:
        do_all(ray, plan)
    ray.shutdown()
    if head:
        end(head)


if __name__ == "__main__":
    main()
