"""Where everything lies. No other module spells a folder's name."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helpers.ground.errors import TutorialError
from helpers.ground.words import SOURCE, language, tr

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
PROFILES = CONFIGS / "profiles"
NOTEBOOKS = ROOT / "notebooks"


def _place(variable: str, name: str) -> Path:
    """Return the folder that a variable names, from the repository wherever one is called."""
    typed = os.environ.get(variable) or name
    with suppress(RuntimeError):  # "~": nobody's home
        typed = str(Path(typed).expanduser())
    return Path(os.path.realpath(ROOT / typed))  # unlike resolve(), goes on where links lead round


# Both can lie on another disk (AutoDL's data disk, say): they are what takes room.
RUNS = _place("TUTORIAL_RUNS", "runs")
MODELS = _place("TUTORIAL_MODELS", "models")

BENCHMARKS = ROOT / "benchmarks" / "results"
CARDS = BENCHMARKS / "cards"  # what `make card` found on real ones

NOTEBOOK_NAMES = ("01_env", "02_data", "03_lora", "04_qlora", "05_merge", "06_compare")


def edition(folder: Path, language: str) -> Path:
    """Return the folder of an edition: the English one, `folder`, holds the others'."""
    return folder if language == SOURCE else folder / language


def shown(path: Path) -> str:
    """Return `path` as readers see it: relative to the repository where it lies inside."""
    path = Path(os.path.realpath(path))
    for base, prefix in ((ROOT, ""), (RUNS, "runs/"), (MODELS, "models/")):
        if path.is_relative_to(base):
            return (prefix + path.relative_to(base).as_posix()).removesuffix("/.")
    return str(path)


@dataclass(frozen=True)
class RunFolder:
    """The folder `runs/NAME` of one run, and what lies where in it."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.name):
            raise TutorialError(
                tr(
                    "RUN={name!r} cannot name a folder: use at most 100 letters, digits, '.', '_' "
                    "and '-'.",
                    name=self.name[:120],
                )
            )

    @property
    def root(self) -> Path:
        return RUNS / self.name

    @property
    def data(self) -> Path:
        """LLaMA-Factory's `dataset_dir`: the two sets and `dataset_info.json`."""
        return self.root / "data"

    @property
    def results(self) -> Path:
        """One record a subject: the base model, each adapter, each merged model."""
        return self.root / "results"

    @property
    def recipes(self) -> Path:
        """What each call of llamafactory-cli really used, one YAML each."""
        return self.root / "recipes"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def figures(self) -> Path:
        """What is drawn, in the reader's language; English lies where the others' folders lie."""
        return edition(self.root / "figures", language())

    @property
    def notebooks(self) -> Path:
        """The executed notebooks of a headless run, the English edition's; see `edition`."""
        return self.root / "notebooks"

    @property
    def steps(self) -> Path:
        """Markers of finished steps (helpers/programs/steps.py)."""
        return self.root / "steps"

    @property
    def running(self) -> Path:
        """What runs in a process of its own (helpers/programs/detached.py)."""
        return self.root / "running"

    @property
    def making(self) -> Path:
        """What steps have not finished making (helpers/programs/making.py)."""
        return self.root / "making"

    @property
    def inside(self) -> Path:
        """What was found in trained layers (helpers/calls/inside.py)."""
        return self.root / "inside"

    @property
    def swanlab(self) -> Path:
        return self.root / "swanlab"

    @property
    def cache(self) -> Path:
        """What Hugging Face's libraries cache, kept off the system disk."""
        return self.root / "cache"

    @property
    def comparison(self) -> Path:
        return self.root / "comparison.json"

    @property
    def report(self) -> Path:
        """One page to hand around (helpers/results/run_report.py)."""
        return self.root / "report.html"

    def adapter(self, method: str) -> Path:
        return self.root / method

    def merged(self, subject: str) -> Path:
        """A merged model, by its subject's name (helpers/inputs/subjects.py)."""
        return self.root / subject

    @property
    def divergence(self) -> Path:
        """How far each merged model lies from base + adapter."""
        return self.root / "divergence.json"

    def answers(self, subject: str) -> Path:
        """LLaMA-Factory's predict output for one subject, by its name."""
        return self.root / "answers" / subject


def in_recipe(path: Path) -> str:
    """Return `path` as a recipe spells it: relative to the repository, where commands start."""
    path = Path(os.path.realpath(path))
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def as_typed(text: str) -> Path:
    """Return the path that a reader typed: relative to the repository, "~" understood.

    Raises:
        TutorialError: it cannot be a path.
    """
    try:
        path = (ROOT / Path(text).expanduser()).resolve()
        path.exists()
        str(path).encode()
    except (OSError, RuntimeError, ValueError) as error:
        # Too long, no such home, a link that leads to itself, a null byte, not UTF-8.
        raise TutorialError(
            tr("{text!r} cannot be the path of a file or folder.", text=text[:60])
        ) from error
    return path
