"""One run's settings: profile + model + run folder + the reader's overrides.

A notebook's `parameters` cell holds "auto" for each; "auto" means the environment variable
TUTORIAL_PROFILE, TUTORIAL_MODEL, ... (which `make` sets), and without it the profile's default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers import hardware, models, paths
from helpers.errors import TutorialError
from helpers.files import read_yaml

AUTO = "auto"


class DataSettings(BaseModel):
    """Which problems, and how many of them."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="math10k, generated, or the path of a parquet file")
    train: int = Field(gt=0, description="rows sampled from the first 90 %")
    eval: int = Field(gt=0, description="rows sampled from the last 10 %, held out")


class Tuned(BaseModel):
    """What makes the same work faster on one kind of machine, and changes nothing else of it."""

    model_config = ConfigDict(extra="forbid")

    default: bool = Field(description="whether a run uses it unless told otherwise")
    recipe: dict[str, Any] = {}
    environment: dict[str, str] = {}


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

    @property
    def device(self) -> str:
        """The device that training asks for: npu, cuda or cpu."""
        return "cpu" if self.recipe.get("use_cpu") else self.name


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run does."""

    profile: Profile
    model: models.Model
    run: paths.RunFolder
    overrides: dict[str, Any]
    tuned: bool
    seeds: int  # trainings of each method

    @property
    def environment(self) -> dict[str, str]:
        """Variables for every llamafactory-cli call."""
        tuned = self.profile.tuned.environment if self.tuned and self.profile.tuned else {}
        return self.profile.environment | tuned

    def table(self) -> list[tuple[str, str]]:
        """Return the settings as (name, value) rows for the notebooks."""
        return [
            ("profile", self.profile.name),
            ("device", self.profile.device),
            ("model", self.model.name),
            ("data", self.profile.data.source),
            ("train / eval rows", f"{self.profile.data.train} / {self.profile.data.eval}"),
            ("run folder", paths.shown(self.run.root)),
            ("tuned for speed", "yes" if self.tuned else "no, the article's batch as it is"),
            ("overrides", yaml.safe_dump(self.overrides, default_flow_style=True).strip()),
        ]


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
        raise TutorialError(f"There is no profile {name!r}: choose one of {', '.join(known)}.")
    file = paths.PROFILES / f"{name}.yaml"
    try:
        return Profile.model_validate(read_yaml(file) | {"name": name})
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(".".join(str(part) for part in first["loc"]).split())
        raise TutorialError(f"{paths.shown(file)}: {where}: {first['msg']}.") from error


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
                f"The override {word!r} is not of the form key=value, as in learning_rate=5.0e-5."
            )
        try:
            overrides[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise TutorialError(f"The value of the override {word!r} is not valid YAML.") from error
    return overrides


def _chosen(value: str, variable: str) -> str:
    return (os.environ.get(variable, "") or AUTO) if value == AUTO else value


def _tuned(profile: Profile, wanted: str) -> bool:
    wanted = _chosen(wanted, "TUTORIAL_TUNED")
    if wanted not in (AUTO, "yes", "no"):
        raise TutorialError(f"TUNED={wanted!r} is not understood: say yes or no.")
    if wanted == AUTO:
        return profile.tuned is not None and profile.tuned.default
    if wanted == "yes" and profile.tuned is None:
        raise TutorialError(f"The profile {profile.name} has no tuned settings: leave out TUNED.")
    return wanted == "yes"


def _seeds(wanted: str | int) -> int:
    asked = str(_chosen(str(wanted), "TUTORIAL_SEEDS"))
    if asked == AUTO:
        return 1
    if not asked.isdecimal() or not 1 <= int(asked) <= 20:
        raise TutorialError(f"SEEDS={asked!r} is not understood: say a number from 1 to 20.")
    return int(asked)


def resolve(
    profile: str = AUTO,
    model: str = AUTO,
    run: str = AUTO,
    data: str = AUTO,
    overrides: Mapping[str, Any] | None = None,
    tuned: str = AUTO,
    seeds: str | int = AUTO,
) -> Settings:
    """Return the settings that a notebook's parameters and the environment ask for.

    Args:
        profile: smoke, cpu, cuda, npu, or "auto": what the hardware calls for.
        model: a name of configs/models.yaml, a ModelScope id, a folder, or "auto": the profile's.
        run: the name of the run folder, or "auto": the profile's name, with the model's if it is
            not the profile's own.
        data: math10k, generated, the path of a parquet file, or "auto": the profile's.
        overrides: recipe keys to set for both trainings, as LLaMA-Factory spells them.
        tuned: yes, no, or "auto": what the profile does by default.
        seeds: how often each method is trained, with another seed each time; "auto": once.

    Raises:
        TutorialError: an unknown profile or model, or a name that cannot be used.
    """
    profile = _chosen(profile, "TUTORIAL_PROFILE")
    chosen = load_profile(hardware.detect_device() if profile == AUTO else profile)
    source = _chosen(data, "TUTORIAL_DATA")
    if source != AUTO:
        if source not in ("math10k", "generated"):
            source = str(paths.as_typed(source))
        chosen = chosen.model_copy(
            update={"data": chosen.data.model_copy(update={"source": source})}
        )
    model = _chosen(model, "TUTORIAL_MODEL")
    entry = models.find(chosen.model if model == AUTO else model)
    run = _chosen(run, "TUTORIAL_RUN")
    if run == AUTO:
        same = entry.name == chosen.model
        run = chosen.name if same else f"{chosen.name}-{entry.slug}"
    if overrides is None or not overrides:
        overrides = parse_overrides(os.environ.get("TUTORIAL_OVERRIDES", ""))
    return Settings(
        chosen, entry, paths.RunFolder(run), dict(overrides), _tuned(chosen, tuned), _seeds(seeds)
    )
