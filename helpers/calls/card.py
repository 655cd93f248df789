"""The first hour on a card: what it does with our kernels and recipes, in ten minutes.

The doctor, the kernels' bits and speed, optimizer steps with random weights and the operators of
one of them, planned against allocated memory, and the tuned settings one by one. Nothing is
downloaded. What was found is one JSON without anything of the host (helpers/records/card.py), and
a page made from it (helpers/results/card_page.py).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers.doctor import examination
from helpers.ground import paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml, write_json
from helpers.ground.words import tr
from helpers.inputs import methods, models
from helpers.inputs.settings import Profile, Settings
from helpers.planning import planner
from helpers.planning.plan import Question
from helpers.programs import faults, process
from helpers.records import versions
from helpers.records.card import Card, KernelRow, Steps

CHOSEN, DEFAULT = "chosen", "default"
# Of the tuned settings, what decides nothing about a step, and what only means something together.
NOT_OF_A_STEP = ("dataloader_num_workers", "per_device_eval_batch_size")
TOGETHER = ("per_device_train_batch_size", "gradient_accumulation_steps")


class Asked(BaseModel):
    """What configs/card.yaml asks for."""

    model_config = ConfigDict(extra="forbid")

    models: dict[str, dict[str, Any] | None] = Field(min_length=1)  # None: the catalogue's config
    tokens: int = Field(ge=16, multiple_of=8)
    steps: int = Field(ge=1)
    seconds: int = Field(ge=1)


@dataclass(frozen=True)
class Setting:
    """One of the profile's tuned settings, by itself."""

    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A training whose steps are taken."""

    model: str
    method: methods.Method
    setting: Setting
    kernels: str

    @property
    def key(self) -> str:
        return "|".join((self.model, self.method.name, self.setting.name, self.kernels))


ARTICLE = Setting("")


def asked(file: Path) -> Asked:
    """Read what to do on a card.

    Raises:
        TutorialError: the file is missing, or asks for something that cannot be.
    """
    try:
        return Asked.model_validate(read_yaml(file))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise TutorialError(
            tr(
                "{file}: {key} cannot be ({reason}); correct it, or restore the file with git.",
                file=paths.shown(file),
                key=".".join(map(str, wrong["loc"])),
                reason=wrong["msg"],
            )
        ) from error


def settings_of(profile: Profile) -> list[Setting]:
    """Return a profile's tuned settings one by one, those that a step can show."""
    if profile.tuned is None:
        return []
    recipe = {k: v for k, v in profile.tuned.recipe.items() if k not in NOT_OF_A_STEP}
    batch = {k: recipe.pop(k) for k in TOGETHER if k in recipe}
    found = [Setting(f"{key}={value}", {key: value}) for key, value in recipe.items()]
    if batch:
        found.insert(1, Setting(" ".join(f"{k}={v}" for k, v in batch.items()), batch))
    return found + [
        Setting(f"{key}={value}", environment={key: value})
        for key, value in profile.tuned.environment.items()
    ]


def cases_of(profile: Profile, wanted: Asked) -> list[Case]:
    """Return all trainings, what matters most first."""
    tried = [methods.load(name) for name in methods.default()]
    own = "bitsandbytes" if profile.device == "cuda" else CHOSEN

    def kernels(method: methods.Method) -> str:
        return own if method.quantised else ""

    first = next(iter(wanted.models))
    article = [Case(name, m, ARTICLE, kernels(m)) for name in wanted.models for m in tried]
    # bitsandbytes' own kernels cannot be left out on the cards that it has them for.
    default = [Case(name, m, ARTICLE, DEFAULT) for name in wanted.models for m in tried
               if m.quantised and own == CHOSEN]  # fmt: skip
    one_by_one = [Case(first, m, each, kernels(m)) for each in settings_of(profile) for m in tried]
    return article + default + one_by_one


def recipe_of(case: Case) -> dict[str, Any]:
    """Return what a case trains with.

    Gradients that wait for the next micro-batch are there with two as with more.
    """
    used = case.method.recipe | case.setting.recipe
    return used | {"gradient_accumulation_steps": min(2, used["gradient_accumulation_steps"])}


def _config(name: str, wanted: Asked) -> dict[str, Any]:
    config = wanted.models[name]
    if config is None and name in (known := models.catalogue()):
        config = known[name].config
    if config is None:
        raise TutorialError(
            tr(
                "Nothing is known of the shapes of {model}: name a model of configs/models.yaml "
                "that has a config, or write one into configs/card.yaml.",
                model=name,
            )
        )
    return config


def matrices(wanted: Asked) -> dict[str, tuple[int, int]]:
    """Return the different linear layers of the models, rows and columns by name."""
    found: dict[str, tuple[int, int]] = {}
    for name in wanted.models:
        config = _config(name, wanted)
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        narrow = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
        found |= {f"{name} q, o": (hidden, hidden), f"{name} k, v": (narrow, hidden),
                  f"{name} gate, up": (inner, hidden), f"{name} down": (hidden, inner)}  # fmt: skip
    return found


def _planned(cases: list[Case], wanted: Asked, profile: Profile, simulated: bool,
             log: Path) -> dict[str, int]:  # fmt: skip
    """Return what a step of each case is planned to take, in bytes, by its key.

    Only what a plan knows of: not the environment, nor how a kernel dequantises.
    """
    known = [case for case in cases if case.kernels != DEFAULT and not case.setting.environment]
    attention = "math" if simulated else "fused"
    questions = [
        Question(
            recipe=recipe_of(case), config=_config(case.model, wanted), device=profile.device,
            attention=attention, length=wanted.tokens, eval_length=wanted.tokens,
        )
        for case in known
    ]  # fmt: skip
    plans = planner.ask(questions, log)
    return {case.key: plan.training.peak_bytes for case, plan in zip(known, plans, strict=True)}


class Visit:
    """One visit to a card.

    Args:
        settings: a run's settings, whose profile is the card's.
        wanted: what to do.
        say: takes the lines that tell what happens.
    """

    def __init__(self, settings: Settings, wanted: Asked, say: Callable[[str], None]) -> None:
        self.settings, self.wanted, self.say = settings, wanted, say
        self.profile = settings.profile
        self.begin = time.time()
        self.cases = cases_of(self.profile, wanted)
        self.found: dict[str, dict[str, Any]] = {}  # by case
        self.card: dict[str, Any] = {}  # name, total_bytes, choice, kernels
        self.fallbacks: list[str] = []

    def groups(self) -> list[tuple[dict[str, str], list[Case]]]:
        """Return the cases that one process can take, with the environment that it needs."""
        found: dict[tuple[tuple[str, str], ...], list[Case]] = {}
        for case in self.cases:
            env = dict(case.setting.environment)
            if case.kernels == DEFAULT:
                env["TUTORIAL_KERNELS"] = DEFAULT
            found.setdefault(tuple(env.items()), []).append(case)
        return [(dict(env), cases) for env, cases in found.items()]

    def take(self, name: str, env: Mapping[str, str], cases: list[Case]) -> None:
        """Take the steps of a group, in a process of its own; what it finds until it dies counts.

        Args:
            name: of its log.
            env: what its environment has beside.
            cases: its trainings. The first group also times the kernels.
        """
        first, log = not self.card, self.settings.run.logs / f"{name}.log"
        until = self.begin + self.wanted.seconds
        if not first and time.time() > until:
            self.found |= {case.key: {"fault": "late"} for case in cases}
            return
        with tempfile.TemporaryDirectory() as folder:
            result, plan = Path(folder) / "found.json", Path(folder) / "plan.json"
            write_json(
                plan,
                {
                    "device": self.profile.device,
                    "kernels": matrices(self.wanted) if first else {},
                    "until": until,
                    "result": str(result),
                    "cases": [
                        {
                            "key": case.key,
                            "recipe": recipe_of(case),
                            "config": _config(case.model, self.wanted),
                            "length": self.wanted.tokens,
                            "steps": self.wanted.steps,
                            "profile": case.model == next(iter(self.wanted.models))
                            and case.setting == ARTICLE,
                        }
                        for case in cases
                    ],
                },
            )
            command = [sys.executable, "-m", "helpers.planning.real_steps", str(plan)]
            around = process.environment(self.profile.device) | dict(env)
            fault = ""
            try:
                process.run(command, log, env=around)
            except TutorialError as error:
                fault = error.fault or "ended"
                self.say(str(error.message))
            with suppress(OSError, ValueError):
                seen = json.loads(result.read_text("utf-8"))
                self.found |= {each.pop("key"): each for each in seen.pop("cases")}
                self.card = self.card or seen
            for case in cases:
                self.found.setdefault(case.key, {"fault": fault})
            with suppress(OSError):
                self.fallbacks += faults.cpu_fallbacks(log.read_text("utf-8", "replace"))

    def steps(self, planned: Mapping[str, int]) -> list[Steps]:
        """Return what was found of each case."""
        return [
            Steps.model_validate(
                {
                    "model": case.model,
                    "method": case.method.name,
                    "kernels": case.kernels,
                    "setting": case.setting.name,
                    "planned_bytes": planned.get(case.key),
                    **self.found[case.key],
                }
            )
            for case in self.cases
        ]

    def make(self) -> Card:
        """Do all of it.

        Raises:
            TutorialError: there is no card, or nothing could be run on it.
        """
        self.say(tr("Checking the machine ..."))
        with words.spoken(words.SOURCE):  # whoever reads the file, the checks' names are these
            checks = examination.examine(self.settings)
        with ThreadPoolExecutor(1) as aside:
            plans: Future[dict[str, int]] | None = None
            for number, (env, cases) in enumerate(self.groups()):
                self.say(
                    tr(
                        "Taking steps on the card, process {number} of {all} ({count} trainings)"
                        " ...",
                        number=number + 1,
                        all=len(self.groups()),
                        count=len(cases),
                    )
                )
                self.take(f"card-{number + 1}", env, cases)
                if not self.card:
                    raise TutorialError(
                        tr(
                            "Nothing could be run on the card: run 'make doctor PROFILE={profile}' "
                            "and correct what it finds, then run this again.",
                            profile=self.profile.name,
                        ),
                        log=self.settings.run.logs / f"card-{number + 1}.log",
                    )
                simulated = "simulated" in self.card["name"]
                if plans is None:  # traced on the processor, beside the card's work
                    log = self.settings.run.logs / "card-plans.log"
                    plans = aside.submit(
                        _planned, self.cases, self.wanted, self.profile, simulated, log
                    )
            planned: dict[str, int] = {}
            if plans is not None:
                with suppress(TutorialError):  # without plans, what was measured still counts
                    planned = plans.result()
        return Card(
            day=date.today(),
            profile=self.profile.name,
            device=self.profile.device,
            name=self.card["name"],
            simulated=simulated,
            total_bytes=self.card["total_bytes"],
            versions=versions.recorded(),
            length=self.wanted.tokens,
            checks={check.name: check.status.value for check in checks},
            choice=self.card["choice"],
            kernels=[KernelRow.model_validate(row) for row in self.card["kernels"]],
            steps=self.steps(planned),
            fallbacks=list(dict.fromkeys(self.fallbacks)),
            seconds=round(time.time() - self.begin, 1),
        )


def visit(settings: Settings, file: Path, say: Callable[[str], None] = print) -> Card:
    """Find out what a card does with our kernels and recipes.

    Args:
        settings: a run's settings, whose profile is the card's: npu or cuda.
        file: what to do (configs/card.yaml).
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: the profile trains on a processor, there is no card, or nothing runs on it.
    """
    if settings.profile.device == "cpu":
        raise TutorialError(
            tr("'make card' is for a card: run it with PROFILE=npu or PROFILE=cuda on its host.")
        )
    return Visit(settings, asked(file), say).make()


def stem(card: Card) -> str:
    """Return what a card's files are called: its name, CANN or torch, and the day."""
    software = card.versions.get("CANN") or card.versions.get("torch", "")
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{card.name} {software} {card.day}").strip("-")
