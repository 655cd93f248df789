"""Hostile situations, made from a seed: `make fuzz`, or .venv/bin/python tests/fuzz.py --seed 7.

A case is a finished run in a sandbox, something hostile that is done to it or around it, and a
command. The command runs in a child of its own, forked with everything imported; where programs
would be started, tests/fuzz_stand_in.py leaves what they leave. Whatever happens, it must end with
an exit code and one sentence, lose nothing that was finished, write nothing outside the run, and
listen on nothing beyond this machine.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fuzz_stand_in as stand_in
from family import family, listening

from helpers import Tutorial, __main__
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import keys
from helpers.programs.steps import _WHOLE

# What a command would load when it needs it: once here, and not in every child.
LOADED = ("calls.evalscope", "calls.inside", "calls.merging", "calls.notebooks", "calls.repeats",
          "calls.serving", "calls.training", "calls.article_memory", "results.checks",
          "results.comparison", "results.comparison_tables", "results.figures",
          "results.memory_figures", "results.mechanism", "results.saving", "results.verdict",
          "doctor.beforehand", "doctor.examination", "inputs.data_tables")  # fmt: skip

RUN = "mine"
NOBODY = 65534
SECONDS = 180  # after which a case counts as hanging, on a machine that is busy with others
ODD = [
    "", " ", "0", "-1", "nan", "inf", "1e9999999", "null", "true", "[]", "{}", "[1, 2", "a: b",
    "..", "/", "/proc/xx", "~", "~nobody/x", "$HOME", "${x}", "`id`", "a b", "a\nb", "a\tb",
    "x" * 300,
    "\x1b[31m", "\u202egnp", "模型", "e\u0301", "🐈", "\udcff", "<script>alert(1)</script>", "%s%n",
    "{x}", "{0}", "$x$", "CON", "-rf", "--help", "../../etc/passwd", "file:///etc/passwd",
    "a" * 4096, "lora", "base", "data", "lora_merged", "1.5", "99999999999999999999",
]  # fmt: skip
SETTINGS = ("PROFILE", "MODEL", "RUN", "DATA", "OVERRIDES", "TUNED", "SEEDS", "METHODS",
            "LANGUAGE", "HEADLESS", "TRAIN", "EVAL", "COLUMNS", "CARDS", "SHARDED")  # fmt: skip
AROUND = {
    "LANG": ["C", "zh_CN.UTF-8", "nonsense"], "LC_ALL": ["C", "tr_TR"], "HOME": ["/proc/xx", ""],
    "TMPDIR": ["/proc/xx", "/" + "t" * 130, ""], "COLUMNS": ["0", "-1", "abc", "1", "100000"],
    "TERM": ["dumb", ""], "NO_COLOR": ["1"], "FORCE_COLOR": ["1"],
    "MPLBACKEND": ["nonsense", "TkAgg"], "CUDA_VISIBLE_DEVICES": ["", "x", "-1", "0,0"],
    "http_proxy": ["nonsense", "http://127.0.0.1:9"],
    "ASCEND_RT_VISIBLE_DEVICES": ["1,0", "x", ""], "CARD_GIB": ["nan", "0", "-3", "1e308", "abc"],
    "SWANLAB_API_KEY": ["x" * 40], "TUTORIAL_JOURNAL": ["/proc/xx/journal"], "PYTHONPATH": ["/tmp"],
    "MODELSCOPE_CACHE": ["/proc/xx"], "TZ": ["nonsense"], "PATH": ["", "/nonsense"],
    "XDG_CACHE_HOME": ["/proc/xx"], "OMP_NUM_THREADS": ["x"], "GLIBC_TUNABLES": ["x"],
}  # fmt: skip
COMMANDS = ("run", "run", "evalscope", "data", "plan", "doctor", "publish", "nonsense")
ACTS = ("obtain", "prepare", "train", "answer", "merge", "verify", "compare", "look", "views",
        "commands", "chat", "judge")  # fmt: skip


@dataclass
class Case:
    """One hostile situation. Everything in it is JSON, so that it can be kept."""

    seed: int
    command: list[str] = field(default_factory=list)  # words after `python -m helpers`
    act: str = ""  # or a call of the face
    env: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    damage: list[list[Any]] = field(default_factory=list)  # [kind, number]
    end: str = ""  # how a program ends that is started
    at: int = 0  # which one
    limits: dict[str, int] = field(default_factory=dict)
    nobody: bool = False  # the run belongs to another user
    parameters: dict[str, Any] = field(
        default_factory=dict
    )  # of Tutorial, where a script gives them


def _values(chance: random.Random) -> Any:
    return chance.choice(
        [chance.choice(ODD), chance.choice(ODD), None, True, -1, 0, 1, 1.5, 10**30, float("nan"),
         float("inf"), [], {}, [1], {"a": 1}, "cosine", 2]
    )  # fmt: skip


def make(seed: int, quick: bool = False) -> Case:
    """Return the case of a seed.

    Args:
        seed: any number.
        quick: leave out the commands that take seconds: six notebooks, and a server that is real.
    """
    chance = random.Random(seed)
    case = Case(seed)
    if chance.random() < 0.6:
        word = chance.choice(COMMANDS[3 * quick :])
        case.command = [word]
        if chance.random() < 0.15:
            option = chance.choice(["--profile", "--model", "--run", "--data", "--limit",
                                    "--card-gib", "--subject", "--nonsense"])  # fmt: skip
            case.command += [option, chance.choice(ODD)]
    else:
        case.act = chance.choice(ACTS)
        if chance.random() < 0.2:
            name = chance.choice(["profile", "model", "run", "data", "tuned", "seeds", "methods",
                                  "overrides"])  # fmt: skip
            case.parameters = {name: _values(chance)}
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        kind = chance.choice(
            ["setting", "around", "override", "file", "file", "file", "folder", "end", "end",
             "limit", "nobody", "places"]
        )  # fmt: skip
        if kind == "setting":
            case.env[f"TUTORIAL_{chance.choice(SETTINGS)}"] = chance.choice(ODD)
        elif kind == "around":
            name = chance.choice(sorted(AROUND))
            case.env[name] = chance.choice(AROUND[name])
        elif kind == "places":
            name = chance.choice(["TUTORIAL_RUNS", "TUTORIAL_MODELS"])
            case.env[name] = chance.choice(
                ["/proc/xx", "/dev/null", "/etc/passwd/x", "/tmp/" + "a" * 300, "/sys/x",
                 "/tmp/" + "b/" * 2000, "/dev/full"]
            )  # fmt: skip
        elif kind == "override":
            key = chance.choice([*sorted(keys.known()), "lora_rnk", "lora_rank", "learning_rate"])
            case.overrides[key] = _values(chance)
        elif kind in ("file", "folder"):
            what = FILE_DAMAGE if kind == "file" else FOLDER_DAMAGE
            case.damage.append([chance.choice(sorted(what)), chance.randrange(10**6)])
        elif kind == "end":
            case.end, case.at = chance.choice(sorted(stand_in.ENDS)), chance.randrange(6)
            case.overrides.setdefault("lora_rank", chance.choice([4, 16]))
        elif kind == "limit":
            case.limits |= chance.choice(
                [{"files": 24}, {"size": 2000}, {"size": 60_000}, {"umask": 0o777},
                 {"umask": 0o077}, {"cwd": 1}]
            )  # fmt: skip
        elif kind == "nobody":
            case.nobody = True
    return case


# ---- damage ----------------------------------------------------------------------------------


def _edited(value: Any, chance: random.Random) -> Any:
    """Return JSON with one value changed, removed or put in another's place."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: _edited(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            return value[:place] + value[place + 1 :]
        return [*value[:place], _edited(value[place], chance), *value[place + 1 :]]
    return _values(chance)


def _edit_json(file: Path, chance: random.Random) -> None:
    try:
        value = json.loads(file.read_text("utf-8"))
    except ValueError:
        value = {"x": 1}
    file.write_text(json.dumps(_edited(value, chance)), "utf-8", "surrogatepass")


def _other(file: Path, make_it: Callable[[Path], object]) -> None:
    file.unlink()
    make_it(file)


FILE_DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "cut": lambda file, chance: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file, chance: os.truncate(file, 0),
    "noise": lambda file, chance: file.write_bytes(chance.randbytes(200)),
    "edited": _edit_json,
    "edited twice": lambda file, chance: (_edit_json(file, chance), _edit_json(file, chance)),
    "a list": lambda file, chance: file.write_text("[]"),
    "nested": lambda file, chance: file.write_text("[" * 5000),
    "removed": lambda file, chance: file.unlink(),
    "a folder": lambda file, chance: _other(file, Path.mkdir),
    "a loop": lambda file, chance: _other(file, lambda it: it.symlink_to(it)),
    "a link to nothing": lambda file, chance: _other(file, lambda it: it.symlink_to("/nonsense/x")),
    "unreadable": lambda file, chance: file.chmod(0),
    "old": lambda file, chance: os.utime(file, (0, 0)),
    "of the future": lambda file, chance: os.utime(file, (2**33, 2**33)),
}
FOLDER_DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "folder removed": lambda folder, chance: shutil.rmtree(folder),
    "folder is a file": lambda folder, chance: (shutil.rmtree(folder), folder.write_text("x")),
    "folder is a link": lambda folder, chance: (
        shutil.rmtree(folder), folder.symlink_to("/nonsense")
    ),
    "folder is locked": lambda folder, chance: folder.chmod(0),
    "folder is read-only": lambda folder, chance: folder.chmod(0o555),
    "odd names in it": lambda folder, chance: [
        (folder / name).write_text("x")
        for name in ("-rf", "a\nb.json", "\x1b[31m.json", "x" * 250, "模型.json", "checkpoint-x")
    ],
    "lock is a folder": lambda folder, chance: (folder.parent / ".step.lock").mkdir(exist_ok=True)
    if not (folder.parent / ".step.lock").is_file() else None,
}  # fmt: skip


def _do_damage(case: Case, box: Path) -> set[Path]:
    """Do a case's damage to its sandbox; return what it touched."""
    touched = set()
    for kind, number in case.damage:
        chance = random.Random(number)
        inside = [p for place in ("runs", "models") for p in sorted((box / place).rglob("*"))]
        if kind in FILE_DAMAGE:
            chosen = chance.choice([p for p in inside if p.is_file() and not p.is_symlink()])
            FILE_DAMAGE[kind](chosen, chance)
        else:
            chosen = chance.choice([p for p in inside if p.is_dir() and not p.is_symlink()])
            FOLDER_DAMAGE[kind](chosen, chance)
        touched.add(chosen)
    return touched


# ---- one case ----------------------------------------------------------------------------------


def _views(tutorial: Any) -> None:
    tutorial._repr_mimebundle_()
    for method in tutorial.methods:
        for view in (method.recipe, method.recipe.changes(), method.training, method.answers):
            view._repr_mimebundle_()
        method.training.curves()
    comparison = tutorial.comparison
    for part in (comparison, comparison.conditions(), comparison.verdict, comparison.examples()):
        part._repr_mimebundle_()
        str(part)


def _act(case: Case) -> None:
    given = {"profile": "smoke", "run": RUN, "overrides": case.overrides} | case.parameters
    tutorial = Tutorial(**given)
    first = tutorial.methods[0]
    acts: dict[str, Callable[[], object]] = {
        "obtain": tutorial.obtain,
        "prepare": lambda: (tutorial.prepare(), tutorial.prepare().check()),
        "train": lambda: (first.train(), first.check()),
        "answer": lambda: (tutorial.base.answer(), first.answer()),
        "merge": lambda: [method.merge() for method in tutorial.methods],
        "verify": lambda: tutorial.verify_merges().check(),
        "compare": lambda: tutorial.compare().check(),
        "look": lambda: (first.layer().picture(), tutorial.methods[-1].block().picture()),
        "views": lambda: _views(tutorial),
        "commands": lambda: (str(tutorial.commands()), str(tutorial.dashboard)),
        "chat": lambda: str(tutorial.chat("<b>$1$</b>", "base")),
        "judge": lambda: str(tutorial.judge(False)),
    }
    acts[case.act]()


def _limit(case: Case) -> None:
    if size := case.limits.get("size"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if files := case.limits.get("files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if (mask := case.limits.get("umask")) is not None:
        os.umask(mask)


def _give_up_rights() -> None:
    """Give up what makes root more than the owner of root's files: permissions count from here."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # capset's version 3; this process
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)())


def _within(case: Case, box: Path) -> int:
    """Be the child: run the case's command, and return its exit code."""
    for name in [name for name in os.environ if name.startswith("TUTORIAL_")]:
        del os.environ[name]
    odd = {name: value for name, value in case.env.items() if "\x00" not in value}
    os.environ.update(
        {"TUTORIAL_RUNS": str(box / "runs"), "TUTORIAL_MODELS": str(box / "models"),
         "TUTORIAL_PROFILE": "smoke", "TUTORIAL_RUN": RUN, "HOME": str(box / "home"),
         "TMPDIR": str(box / "tmp"), "MPLCONFIGDIR": str(box / "tmp")} | odd
    )  # fmt: skip
    if case.command and case.overrides and "TUTORIAL_OVERRIDES" not in case.env:
        words = [f"{key}={value}" for key, value in case.overrides.items()]
        os.environ["TUTORIAL_OVERRIDES"] = " ".join(words)
    tempfile.tempdir = None
    paths.RUNS = paths._place("TUTORIAL_RUNS", "runs")
    paths.MODELS = paths._place("TUTORIAL_MODELS", "models")
    paths.NOTEBOOKS = box / "notebooks"
    stand_in.install(stand_in.Programs(case.end, case.at, case.seed))
    os.chdir(box / "cwd")
    if case.limits.get("cwd"):
        (box / "cwd").rmdir()
    _limit(case)
    _give_up_rights()
    sys.argv = ["helpers", *case.command]
    if not case.act:
        return __main__.main()
    # A script: what IPython shows of an error is the sentence alone.
    try:
        _act(case)
    except TutorialError as error:
        print("\n".join(error._render_traceback_()), file=sys.stderr)
        return 1
    return 0


def _child(case: Case, box: Path) -> None:
    out = os.open(box / "out", os.O_WRONLY | os.O_CREAT, 0o666)
    err = os.open(box / "err", os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = os.fdopen(1, "w", errors="strict")
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace")
    report = os.open(box / "ports", os.O_WRONLY | os.O_CREAT, 0o666)
    code = 70
    try:
        code = _within(case, box)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    with suppress(Exception):
        hosts = [host for host, _ in listening(family(os.getpid()))]
        os.write(report, json.dumps(hosts).encode())
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, as far as it can be read."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            found[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _names(box: Path) -> set[str]:
    return {str(path.relative_to(box)) for path in box.rglob("*")}


def _markers(run: Path) -> dict[str, dict[str, Any]]:
    """Return the markers of a run's steps; of a step whose new output lies in its place already,
    and whose marker is still to follow, the new one: the next run goes on from there."""
    found = {}
    files = {file.stem: file for file in sorted((run / "steps").glob("*.json"))}
    newer = {file.parent.name: file for file in (run / "making").glob(f"*/{_WHOLE}")}
    for step, file in (*files.items(), *newer.items()):
        with suppress(OSError, ValueError):
            value = json.loads(file.read_text("utf-8"))
            if isinstance(value, dict) and isinstance(value.get("outputs"), dict):
                found[step] = value
    return found


def _lost(before: Path, run: Path, touched: set[Path]) -> Iterator[str]:
    """Yield what was finished before and is not there any more, in words.

    Every output of a step has to be as it was, or as the step's new marker has it; what the case
    itself damaged is its own affair.
    """

    def harmed(path: Path) -> bool:
        return any(path == each or each in path.parents for each in touched)

    after = _markers(run)
    for name in _markers(before):
        if harmed(run / "steps" / f"{name}.json"):
            continue
        if name not in after:
            yield f"the marker of {name} is gone"
            continue
        for key, output in after[name]["outputs"].items():
            if harmed(run / key) or "checkpoint-" in key or not isinstance(output, dict):
                continue
            if not (run / key).is_file():
                yield f"{key} is gone"
            elif hashlib.sha256((run / key).read_bytes()).hexdigest() != output.get("sha256"):
                yield f"{key} is not what its marker has"


def _said_wrong(code: int, out: str, err: str) -> Iterator[str]:
    """Yield what is wrong with what a command said, in words."""
    if "Traceback (most recent call last)" in out + err.partition("The last lines of the log:")[0]:
        yield "a traceback"
    if code not in (0, 1, 2, 130):
        yield f"exit code {code}"
    if re.search("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f\u202e]", err):
        yield "control characters"
    if code in (1, 2) and not err.strip() and "┏" not in out and "fit" not in out:
        yield "it failed without a word"
    message = re.split(r"\nThe last lines of the log:|\nLog: ", err.strip())[0]
    if code in (1, 2) and len([line for line in message.splitlines() if line.strip()]) > 1:
        yield "more than one sentence"
    if "does not foresee" in err:
        yield "nobody foresaw it"


def _outside(before: set[str], box: Path) -> list[str]:
    """Return what a case left in places that are none of the run's."""
    allowed = re.compile(
        r"(runs/(mine|error\.log)|runs/[^/]+$|runs/[^/]+/|models|out$|err$|ports$|tmp)"
    )
    return sorted(
        name for name in _names(box) - before
        if not allowed.match(name) or name.startswith("runs/other")
    )  # fmt: skip


def try_case(case: Case, prepared: Path, keep: Path | None = None) -> list[str]:
    """Try a case; return what did not hold, in words.

    Args:
        case: what to try.
        prepared: a sandbox with a finished run, as `prepare` makes it.
        keep: where the sandbox of a case stays that did not hold.
    """
    chance = random.Random(case.seed)
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    box = place / "box"
    try:
        place.chmod(0o755)
        shutil.copytree(prepared, box, symlinks=True)
        for name in ("home", "tmp", "cwd"):
            (box / name).mkdir()
            (box / name).chmod(0o777)
        touched = _do_damage(case, box)
        if case.nobody and os.geteuid() == 0:  # all of it belongs to somebody else
            for path in box.rglob("*"):
                if chance.random() < 0.7 or case.seed % 2:
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        box.chmod(0o777)
        found = list(_hold(case, prepared, box, touched))
        if found and keep:
            shutil.move(box, keep)
        return found
    finally:
        for folder in (p for p in place.rglob("*") if p.is_dir() and not p.is_symlink()):
            with suppress(OSError):
                folder.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)


def _hold(case: Case, prepared: Path, box: Path, touched: set[Path]) -> Iterator[str]:
    before = _names(box)
    child = os.fork()
    if child == 0:
        _child(case, box)
    code = _wait(child, SECONDS)
    if code is None:
        yield f"it hung for {SECONDS} s"
        return
    with suppress(PermissionError):
        for name in ("out", "err", "ports"):
            (box / name).chmod(0o644)
    out = (box / "out").read_text("utf-8", "backslashreplace")
    err = (box / "err").read_text("utf-8", "backslashreplace")
    yield from _said_wrong(code, out, err)
    yield from (
        f"lost: {what}" for what in _lost(prepared / "runs" / RUN, box / "runs" / RUN, touched)
    )
    if left := _outside(before, box):
        yield f"outside the run: {left[:5]}"
    ports = (box / "ports").read_text() or "[]"
    beyond = [ip for ip in json.loads(ports) if ip not in ("127.0.0.1", "::1")]
    if beyond:
        yield f"listens on {beyond}"


def _wait(child: int, seconds: float) -> int | None:
    """Return a child's exit code, as `os.waitstatus_to_exitcode` gives it; None where it hung."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def prepare(folder: Path, **env: str) -> Path:
    """Make a sandbox with a finished run in it, with these variables; return its folder."""
    for name in (*(f"helpers.{each}" for each in LOADED), "matplotlib.figure", "scipy.stats",
                 "matplotlib.backends.backend_agg", "statsmodels.stats.api"):  # fmt: skip
        importlib.import_module(name)
    box = folder / "prepared"
    for name in ("runs", "models", "home", "tmp", "cwd"):
        (box / name).mkdir(parents=True)
    shutil.copytree(paths.NOTEBOOKS, box / "notebooks", ignore=shutil.ignore_patterns(".*"))
    child = os.fork()
    if child == 0:
        _child(Case(0, command=["run"], env=env), box)
    code = _wait(child, 3 * SECONDS)
    if code != 0:
        said = (box / "err").read_text() + (box / "out").read_text()[-3000:]
        raise RuntimeError(f"the stand-in run did not go well ({code}): {said}")
    for name in ("home", "tmp", "cwd"):
        shutil.rmtree(box / name)
    for name in ("out", "err", "ports"):
        (box / name).unlink()
    return box


def main() -> int:
    """Try many cases, and say how many held."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cases", type=int, default=600)
    asked.add_argument("--seed", type=int, default=0, help="the first case's")
    asked.add_argument("--keep", type=Path, help="where sandboxes stay that show something")
    given = asked.parse_args()
    begin = time.monotonic()

    def one(seed: int) -> bool:
        case = make(seed)
        found = try_case(case, prepared, given.keep / str(seed) if given.keep else None)
        if found:
            print(f"{seed}: {'; '.join(found)}\n    {case}", flush=True)
        return not found

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        prepared = prepare(Path(folder))
        held = sum(pool.map(one, range(given.seed, given.seed + given.cases)))
    seconds = time.monotonic() - begin
    print(f"{given.cases} tried, {held} held, from seed {given.seed}, in {seconds:.0f} s")
    return int(held < given.cases)


if __name__ == "__main__":
    sys.exit(main())
