"""One run's settings: profile + model + run folder + the reader's overrides.

A notebook's `parameters` cell holds "auto" for each; "auto" means the environment variable
TUTORIAL_PROFILE, TUTORIAL_MODEL, ... (which `make` sets), and without it the profile's default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.ground.shown import Table, facts
from helpers.ground.words import series, tr
from helpers.inputs import keys, models, sources, subjects
from helpers.inputs.data_settings import DataSettings, columns_asked, rows_asked
from helpers.inputs.methods import Method, default, named
from helpers.inputs.subjects import Subject
from helpers.machine import hardware

AUTO = "auto"


class Tuned(BaseModel):
    """What makes the same work faster on one kind of machine, and changes nothing else of it."""

    model_config = ConfigDict(extra="forbid")

    default: bool = Field(description="whether a run uses it unless told otherwise")
    recipe: dict[str, Any] = {}
    environment: dict[str, str] = {}


class WithoutBf16(BaseModel):
    """What differs on a CPU that has no bf16.

    Emulated, a training step of SmolLM2-135M took 325 s on two cores; in float32, about 10 s.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: dict[str, Any]
    predict: dict[str, Any]


class Profile(BaseModel):
    """What differs on one kind of machine. The recipes hold everything else."""

    model_config = ConfigDict(extra="forbid")

    name: str
    model: str
    data: DataSettings
    recipe: dict[str, Any] = {}
    predict: dict[str, Any] = {}
    environment: dict[str, str] = {}  # of every llamafactory-cli call; the reader's own wins
    chat: bool = True  # whether its model has anything to say
    tuned: Tuned | None = None
    without_bf16: WithoutBf16 | None = None

    @property
    def device(self) -> str:
        """The device that training asks for: npu, cuda or cpu."""
        return "cpu" if self.recipe.get("use_cpu") else self.name

    def for_this_processor(self) -> Profile:
        """Return the profile as it holds for the processor that is here."""
        if self.device != "cpu" or self.without_bf16 is None or hardware.has_bf16():
            return self
        changed = self.without_bf16
        return self.model_copy(
            update={
                "recipe": self.recipe | changed.recipe,
                "predict": self.predict | changed.predict,
            }
        )


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run does."""

    profile: Profile
    model: models.Model
    run: paths.RunFolder
    overrides: dict[str, Any]
    tuned: bool
    seeds: int  # trainings of each method
    methods: tuple[Method, ...]  # what is compared; the first is what the others are compared with
    cards: int = 1  # on which one training runs
    sharded: bool = False  # whether each of them holds a part of the model (FSDP2), not all of it

    @property
    def subjects(self) -> dict[str, Subject]:
        """All that this run compares, by name, in the order of its tables."""
        return subjects.of(self.methods)

    def subject(self, name: str) -> Subject:
        """Return what this run compares under a name.

        Raises:
            TutorialError: there is nothing of that name; the sentence says what there is.
        """
        found = self.subjects
        if name not in found:
            raise TutorialError(
                tr(
                    "This run has no {name!r}: it has {names}. METHODS= names what it compares.",
                    name=name,
                    names=series(found),
                )
            )
        return found[name]

    def method(self, name: str) -> Method:
        """Return one of the run's methods.

        Raises:
            TutorialError: the run does not compare it.
        """
        subject = self.subject(name)
        if subject.kind != "adapter" or subject.method is None:
            raise TutorialError(tr("{name} is no method of this run.", name=name))
        return subject.method

    @property
    def changes(self) -> dict[str, Any]:
        """What this run sets in the recipes of its trainings.

        The profile's keys, then its tuned ones, then the overrides, each replacing what stood
        before.
        """
        tuned = self.profile.tuned.recipe if self.tuned and self.profile.tuned else {}
        return self.profile.recipe | tuned | self.overrides

    @property
    def precision(self) -> str:
        """The numbers that trainings compute in: "bf16", "fp16" or "float32"."""
        used = self.methods[0].recipe | self.changes
        return next((name for name in ("bf16", "fp16") if used.get(name)), "float32")

    @property
    def environment(self) -> dict[str, str]:
        """Variables for every llamafactory-cli call."""
        tuned = self.profile.tuned.environment if self.tuned and self.profile.tuned else {}
        return self.profile.environment | tuned

    def table(self) -> Table:
        """Return the settings as a table of two columns."""
        tuned = tr("yes") if self.tuned else tr("no, the article's batch as it is")
        rows = {
            tr("profile"): self.profile.name,
            tr("device"): self.profile.device,
            tr("precision"): self.precision,
            tr("model"): self.model.name,
            tr("methods"): series(method.label for method in self.methods),
            tr("data"): self.profile.data.source,
            tr("train / eval rows"): f"{self.profile.data.train} / {self.profile.data.eval}",
            tr("run folder"): paths.shown(self.run.root),
            tr("tuned for speed"): tuned,
            tr("overrides"): yaml.safe_dump(self.overrides, default_flow_style=True).strip(),
        }
        if self.cards > 1:
            rows[tr("cards of a training")] = str(self.cards)
        if self.sharded:
            rows[tr("its model")] = tr("sharded over them (FSDP2)")
        renamed = self.profile.data.columns
        if renamed:
            rows[tr("columns")] = " ".join(f"{ours}={theirs}" for ours, theirs in renamed.items())
        return facts(rows, [tr("setting"), tr("value")])


def profile_names() -> list[str]:
    """Return the names of the profiles in configs/profiles."""
    return sorted(file.stem for file in paths.PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Return the profile called `name`.

    Raises:
        TutorialError: there is none, or its file does not hold what a profile holds.
    """
    known = profile_names()
    if name not in known:
        raise TutorialError(
            tr(
                "There is no profile {name!r}: choose one of {known}.",
                name=name,
                known=series(known),
            )
        )
    file = paths.PROFILES / f"{name}.yaml"
    try:
        return Profile.model_validate(read_yaml(file) | {"name": name})
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(".".join(str(part) for part in first["loc"]).split())
        raise TutorialError(
            tr(
                "{file} is no profile: {where}: {reason}.",
                file=paths.shown(file),
                where=where,
                reason=first["msg"],
            )
        ) from error


def parse_overrides(text: str) -> dict[str, Any]:
    """Return overrides written as "key=value key=value"; values are read as YAML.

    Raises:
        TutorialError: a word is not of the form key=value.
    """
    overrides: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise TutorialError(
                tr(
                    "The override {word!r} is not of the form key=value, as in "
                    "learning_rate=5.0e-5.",
                    word=word,
                )
            )
        try:
            overrides[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise TutorialError(
                tr("The value of the override {word!r} is not valid YAML.", word=word)
            ) from error
    return overrides


def _chosen(value: str, variable: str) -> str:
    return (os.environ.get(variable, "") or AUTO) if value == AUTO else value


def _tuned(profile: Profile, wanted: str) -> bool:
    wanted = _chosen(wanted, "TUTORIAL_TUNED")
    if wanted not in (AUTO, "yes", "no"):
        raise TutorialError(tr("TUNED={wanted!r} is not understood: say yes or no.", wanted=wanted))
    if wanted == AUTO:
        return profile.tuned is not None and profile.tuned.default
    if wanted == "yes" and profile.tuned is None:
        raise TutorialError(
            tr("The profile {name} has no tuned settings: leave out TUNED.", name=profile.name)
        )
    return wanted == "yes"


def _seeds(wanted: str | int) -> int:
    asked = str(_chosen(str(wanted), "TUTORIAL_SEEDS"))
    if asked == AUTO:
        return 1
    if not asked.isdecimal() or not 1 <= int(asked) <= 20:
        raise TutorialError(
            tr("SEEDS={asked!r} is not understood: say a number from 1 to 20.", asked=asked)
        )
    return int(asked)


def _cards(wanted: str | int, device: str) -> int:
    asked = _chosen(str(wanted), "TUTORIAL_CARDS")
    if asked == AUTO:
        return 1
    if asked == "all":
        return max(1, len(hardware.visible_cards(device)))
    if not asked.isdecimal() or not 1 <= int(asked[:5]) <= 1024:
        raise TutorialError(
            tr("CARDS={asked!r} is not understood: say a number, or all.", asked=asked[:60])
        )
    return int(asked)


def _sharded(wanted: str) -> bool:
    wanted = _chosen(wanted, "TUTORIAL_SHARDED")
    if wanted not in (AUTO, "yes", "no"):
        raise TutorialError(
            tr("SHARDED={wanted!r} is not understood: say yes or no.", wanted=wanted[:60])
        )
    return wanted == "yes"


def _rows(wanted: str | int, variable: str) -> int | None:
    asked = _chosen(str(wanted), f"TUTORIAL_{variable}")
    return None if asked == AUTO else rows_asked(asked, variable)


def _columns(wanted: str | Mapping[str, str]) -> dict[str, str] | None:
    asked = _chosen(wanted, "TUTORIAL_COLUMNS") if isinstance(wanted, str) else wanted
    return None if asked == AUTO else columns_asked(asked)


def _methods(wanted: str | Sequence[str]) -> tuple[Method, ...]:
    if isinstance(wanted, str):
        asked = _chosen(wanted, "TUTORIAL_METHODS")
        wanted = default() if asked == AUTO else asked.replace(",", " ").split()
    return named(wanted)


def resolve(
    profile: str = AUTO,
    model: str = AUTO,
    run: str = AUTO,
    data: str = AUTO,
    overrides: Mapping[str, Any] | None = None,
    tuned: str = AUTO,
    seeds: str | int = AUTO,
    methods: str | Sequence[str] = AUTO,
    train: str | int = AUTO,
    evaluate: str | int = AUTO,
    columns: str | Mapping[str, str] = AUTO,
    cards: str | int = AUTO,
    sharded: str = AUTO,
) -> Settings:
    """Return the settings that a notebook's parameters and the environment ask for.

    Args:
        profile: smoke, cpu, cuda, npu, or "auto": what the hardware calls for.
        model: a name of configs/models.yaml, a ModelScope id, a folder, or "auto": the profile's.
        run: the name of the run folder, or "auto": the profile's name, with the model's if it is
            not the profile's own.
        data: math10k, generated, the path of a file (parquet, JSON, JSON Lines, CSV) or of a folder
            of them, a ModelScope id, or "auto": the profile's.
        overrides: recipe keys to set for every training, as LLaMA-Factory spells them.
        tuned: yes, no, or "auto": what the profile does by default.
        seeds: how often each method is trained, with another seed each time; "auto": once.
        methods: what to compare, names of recipes in configs/, as a list or in one string;
            "auto": those of configs/tutorial.yaml.
        train: how many rows to train on, or "auto": the profile's.
        evaluate: how many rows to hold out, or "auto": the profile's.
        columns: what the data call their columns, as "instruction=question output=solution" or as
            a mapping; "auto": as helpers/inputs/rows.py does.
        cards: on how many one training runs, with the same batch for each of its steps; all: those
            that are visible (on a CPU, a process for each core); "auto": one.
        sharded: yes: these cards shard the model (FSDP2); no or "auto": each holds all of it.

    Raises:
        TutorialError: an unknown profile, model, method, column or recipe key, or a name or number
            that cannot be used.
    """
    profile = _chosen(profile, "TUTORIAL_PROFILE")
    chosen = load_profile(hardware.detect_device() if profile == AUTO else profile)
    chosen = chosen.for_this_processor()
    source = _chosen(data, "TUTORIAL_DATA")
    asked = {
        "source": None if source == AUTO else sources.named(source),
        "train": _rows(train, "TRAIN"),
        "eval": _rows(evaluate, "EVAL"),
        "columns": _columns(columns),
    }
    wanted = {key: value for key, value in asked.items() if value is not None}
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update=wanted)})
    model = _chosen(model, "TUTORIAL_MODEL")
    entry = models.find(chosen.model if model == AUTO else model)
    run = _chosen(run, "TUTORIAL_RUN")
    if run == AUTO:
        same = entry.name == chosen.model
        run = chosen.name if same else f"{chosen.name}-{entry.slug}"
    if overrides is None or not overrides:
        overrides = parse_overrides(os.environ.get("TUTORIAL_OVERRIDES", ""))
    keys.check(overrides)
    return Settings(
        chosen,
        entry,
        paths.RunFolder(run),
        dict(overrides),
        _tuned(chosen, tuned),
        _seeds(seeds),
        _methods(methods),
        _cards(cards, chosen.device),
        _sharded(sharded),
    )
