"""A study while it runs: Ray does the trials (on_ray.py), and what they come to is seen here."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.inputs.settings import AUTO, Settings
from helpers.machine import hardware
from helpers.programs import process
from helpers.study import clusters, planned, record
from helpers.study.asked import settings_of
from helpers.study.record import Row, State, Study

RETRIES = 2
PYTHON = paths.ROOT / ".venv-study" / "bin" / "python"
_HERE = Path(__file__).parent
# What makes a trial a run of its own; the rest of a reader's settings hold for all of them.
_OWN = ("TUTORIAL_PROFILE", "TUTORIAL_MODEL", "TUTORIAL_RUN", "TUTORIAL_METHODS", "TUTORIAL_SEEDS",
        "TUTORIAL_OVERRIDES", "TUTORIAL_CARDS", "TUTORIAL_SHARDED")  # fmt: skip


def log_of(row: Row) -> Path:
    """Return the log of a trial's command."""
    return paths.RunFolder(row.trial.run).logs / "trial.log"


def state_names() -> dict[State, str]:
    """Return where a trial can be, in words."""
    return {
        "refused": tr("does not fit"),
        "waiting": tr("waiting"),
        "running": tr("running"),
        "done": tr("done"),
        "failed": tr("failed"),
    }


def command(row: Row, settings: Settings) -> list[str]:
    """Return the command that does a trial."""
    return [sys.executable, "-m", "helpers", "trial", "--profile", settings.profile.name,
            "--model", row.trial.model, "--run", row.trial.run]  # fmt: skip


def environment(row: Row, settings: Settings) -> dict[str, str]:
    """Return the variables that are a trial's own."""
    given = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.overrides.items())
    return dict.fromkeys(_OWN, AUTO) | {
        "TUTORIAL_METHODS": row.trial.method,
        "TUTORIAL_OVERRIDES": given,
        "TUTORIAL_RUNS": str(paths.RUNS),
        "TUTORIAL_MODELS": str(paths.MODELS),
        "TUTORIAL_HEADLESS": "1",
    }


def plan_of(
    study: Study, told: Path, folder: Path, retries: int, address: str = ""
) -> dict[str, Any]:
    """Return what on_ray.py is to do."""
    left = planned.order(study)
    settings = {row.trial.run: settings_of(row.trial, study.asked) for row in left}
    device = settings[left[0].trial.run].profile.device
    return {
        "trials": [
            {
                "name": row.trial.run,
                "command": command(row, settings[row.trial.run]),
                "env": environment(row, settings[row.trial.run]),
                "log": str(log_of(row)),
            }
            for row in left
        ],
        "kind": device,
        "cards": planned.cards_here(device),
        "workers": study.workers,
        "cores": hardware.usable_cores(),
        "retries": retries,
        "guard": str(_HERE.parent / "programs" / "guard.py"),
        "root": str(paths.ROOT),
        "told": str(told),
        "folder": str(folder),
        "address": address,
    }


class Follower:
    """Takes what on_ray.py tells into a study."""

    def __init__(self, study: Study, told: Path) -> None:
        self.study, self.told = study, told
        self.refused: dict[str, str] = {}  # why a cluster takes no trials
        self._read = 0
        self._since: dict[str, float] = {}

    def look(self) -> list[Row]:
        """Return the rows that have changed since the last look; study.json is then written."""
        if not self.told.is_file():
            return []
        with self.told.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        changed = []
        for event in map(json.loads, whole.splitlines()):
            if event["event"] == "refused":
                self.refused = event
            else:
                changed.append(self._take(event))
        if changed:
            record.write(self.study)
        return changed

    def _take(self, event: dict[str, Any]) -> Row:
        row = self.study.row(event["trial"])
        if event["event"] == "running":
            row.state, row.attempts, row.where = "running", event["attempt"], event["where"]
            self._since[row.trial.run] = event["at"]
        elif event["code"] == 0:
            row.state = "done"
            row.seconds = round(event["at"] - self._since.get(row.trial.run, event["at"]), 1)
        else:
            row.state = "waiting" if event["again"] else "failed"
            row.sentence_of = str(log_of(row).relative_to(paths.RUNS))
        return row


@contextmanager
def _plan_file(plan: dict[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        file.write_text(json.dumps(plan))
        yield file


def run(
    study: Study,
    tick: Callable[[Study, list[Row]], None],
    address: str = "",
    retries: int = RETRIES,
) -> None:
    """Do all trials of a study that are left, and keep study.json as they go.

    Args:
        study: as planned.make returned it; its rows change.
        tick: called often, with the rows that have changed.
        address: of a cluster, as `clusters.check` returned it; "" for this machine.
        retries: how often a trial that failed goes on from its checkpoint.

    Raises:
        TutorialError: Ray is not here, or did not start, or the cluster takes no trials; the
            trials' own failures stand in their rows.
    """
    record.write(study)
    if not planned.order(study):
        return
    if not PYTHON.is_file():
        raise TutorialError(
            tr("Ray is not installed yet: run 'make study', which does it, instead of this.")
        )
    logs = paths.RunFolder(study.name).logs
    logs.mkdir(parents=True, exist_ok=True)
    told = logs / "told.jsonl"
    told.unlink(missing_ok=True)
    follower = Follower(study, told)
    with (
        process.socket_folder() as folder,
        _plan_file(plan_of(study, told, folder, retries, address)) as file,
    ):
        process.run(
            [str(PYTHON), str(_HERE / "on_ray.py"), str(file)],
            logs / "ray.log",
            env=clusters.environment(address),
            on_tick=lambda: tick(study, follower.look()),
        )
    tick(study, follower.look())
    if follower.refused:
        raise clusters.refusal(follower.refused, address, logs / "ray.log")
