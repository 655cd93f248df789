"""What a study is made of: models, methods, seeds; each combination is a trial with its own run."""

from __future__ import annotations

import re
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.ground.words import series, tr
from helpers.inputs import methods, models
from helpers.inputs.settings import AUTO, Settings, resolve

MOST_SEEDS = 20
STUDIES = paths.CONFIGS / "studies"


class Asked(BaseModel):
    """A study, as a file under configs/studies/ or the command line asks for it."""

    model_config = ConfigDict(extra="forbid")

    profile: str = AUTO
    models: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    seeds: int = Field(default=1, ge=1, le=MOST_SEEDS)


def known() -> list[str]:
    """Return the names of the files under configs/studies."""
    return sorted(file.stem for file in STUDIES.glob("*.yaml"))


def of_file(name: str) -> Asked:
    """Return the study of configs/studies/NAME.yaml.

    Raises:
        TutorialError: there is none, or it asks for something that cannot be.
    """
    if name not in known():
        raise TutorialError(
            tr(
                "There is no study {name!r}: STUDY= takes one of {known}, or write MODELS= and "
                "METHODS= instead.",
                name=name[:60],
                known=series(known()),
            )
        )
    file = STUDIES / f"{name}.yaml"
    try:
        return Asked.model_validate(read_yaml(file))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise TutorialError(
            tr(
                "{file} is no study: {key}: {reason}.",
                file=paths.shown(file),
                key=".".join(map(str, wrong["loc"])),
                reason=wrong["msg"],
            )
        ) from error


def asked(study: str, names: str, of: str, seeds: str, profile: str) -> Asked:
    """Return what a command asks for: a file, and what is said beside it instead of its lines.

    Args:
        study: a name under configs/studies; "" for none.
        names: models, by spaces.
        of: methods, by spaces.
        seeds: how many trainings of each.
        profile: a profile, or "auto".

    Raises:
        TutorialError: nothing is asked for, or a number is none.
    """
    if seeds and not (seeds.isdecimal() and 1 <= int(seeds) <= MOST_SEEDS):
        raise TutorialError(
            tr("SEEDS={asked!r} is not understood: say a number from 1 to 20.", asked=seeds[:60])
        )
    if not study and not names:
        raise TutorialError(
            tr(
                "Say what to study: MODELS='Qwen2-0.5B Qwen2.5-3B', or STUDY= with one of {known}.",
                known=series(known()),
            )
        )
    said = {"models": names.split(), "methods": of.split(), "seeds": int(seeds) if seeds else 0}
    if profile != AUTO:
        said["profile"] = profile
    before = of_file(study).model_dump() if study else {"methods": list(methods.default())}
    return Asked.model_validate(before | {key: value for key, value in said.items() if value})


class Trial(BaseModel):
    """A training and its answers."""

    model: str  # as MODEL= names it
    method: str
    seed: int
    run: str  # the folder under runs/


def trials(study: str, wanted: Asked) -> list[Trial]:
    """Return the trials of a study, in the order of what was asked for.

    Args:
        study: its name, with which the names of the runs begin.
        wanted: what to combine.

    Raises:
        TutorialError: a model or method is unknown, or two trials have one name.
    """
    for method in wanted.methods:
        methods.load(method)
    found = []
    for name in wanted.models:
        slug = models.find(name).slug
        for method in wanted.methods:
            first = methods.load(method).recipe.get("seed", 42)
            found += [
                Trial(model=name, method=method, seed=seed, run=f"{study}-{slug}-{method}-{seed}")
                for seed in range(first, first + wanted.seeds)
            ]
    runs = [each.run.lower() for each in found]
    twice = next((each.run for each in found if runs.count(each.run.lower()) > 1), None)
    if twice:
        raise TutorialError(
            tr("Two trials are called {name}: name each model and each method once.", name=twice)
        )
    return found


def settings_of(trial: Trial, wanted: Asked) -> Settings:
    """Return the settings of a trial's run.

    Raises:
        TutorialError: as for any run.
    """
    found = resolve(wanted.profile, trial.model, trial.run, methods=trial.method, seeds=1)
    return replace(found, overrides=found.overrides | {"seed": trial.seed})


def check_name(name: str) -> str:
    """Return a study's name, which is a folder's.

    Raises:
        TutorialError: it cannot be.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
        raise TutorialError(
            tr(
                "RUN={name!r} cannot name a study: use at most 40 letters, digits, '_' and '-'.",
                name=name[:60],
            )
        )
    return name
