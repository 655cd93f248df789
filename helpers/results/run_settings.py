"""How a run was set, from its records: what differs from the article's, and the command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from helpers.ground import paths
from helpers.ground.files import read_yaml
from helpers.ground.shown import Table
from helpers.ground.words import clauses, tr
from helpers.inputs import data, keys, methods, models, recipes
from helpers.inputs.settings import Profile, Settings, load_profile
from helpers.inputs.subjects import Subject
from helpers.records.schema import Record
from helpers.results import tables
from helpers.results.schema import Comparison

ARTICLE = "npu"  # the profile that changes nothing of the article's recipes
# A path says where something lay on one machine, which is nobody else's business.
_PATH = re.compile(r"(?<![\w.:/…])/(?:[^\s/'\",;:\])}]+/)+(?=[^\s/'\",;:\])}])")


def without_folders(text: str) -> str:
    """Return text in which absolute paths are reduced to their last names."""
    return _PATH.sub("…/", text)


def _value(value: Any) -> str:
    return without_folders(tables.recipe_value(value))


# ---- what differs from the article's ------------------------------------------------------------


def differences(found: Comparison, records: Mapping[str, Record]) -> Table:
    """Return every setting in which a run differs from the article's: a row each, and of what.

    Args:
        found: the run's comparison.
        records: its records, by subject.
    """
    article = load_profile(ARTICLE)
    rows: dict[tuple[str, str, str], list[str]] = {}
    subjects = found.subjects
    everything = tr("everything")
    asked = (
        found.data.train + unusable(found, data.TRAIN),
        found.data.eval + unusable(found, data.EVAL),
    )
    for what, theirs, ours in (
        (tr("device"), article.device, found.device),
        (tr("model"), article.model, found.model),
        (tr("data"), _source(article), found.data.words()),
        (tr("training problems"), str(article.data.train), str(asked[0])),
        (tr("held-out problems"), str(article.data.eval), str(asked[1])),
    ):
        if theirs != ours:
            rows[what, theirs, ours] = [everything]
    for method in found.methods:
        article_recipe = recipes.without_places(recipes.article(method.name))
        for key, one, two in recipes.differences(article_recipe, method.recipe):
            what = tr("training: {key}", key=key)
            rows.setdefault((what, _value(one), _value(two)), []).append(method.label)
        cards = found.training[method.name].cards
        if cards > 1:
            rows.setdefault((tr("cards"), "1", str(cards)), []).append(method.label)
        if found.training[method.name].sharded:
            row = (tr("model"), tr("on one card"), tr("sharded over the cards (FSDP2)"))
            rows.setdefault(row, []).append(method.label)
    for name, subject in subjects.items():
        used = recipes.without_places(records[name].recipes["predict"])
        for key, one, two in recipes.differences(_article_prediction(subject), used):
            what = tr("answering: {key}", key=key)
            rows.setdefault((what, _value(one), _value(two)), []).append(subject.label)
    for name, training in found.training.items():
        for variable, value in (training.origin.environment or {}).items():
            what = tr("variable {name}", name=variable)
            row = (what, tables.recipe_value(None), _value(value))
            rows.setdefault(row, []).append(subjects[name].label)
    header = [tr("setting"), tr("article"), tr("here"), tr("of what")]
    every = {
        tuple(method.label for method in found.methods): tr("every training"),
        tuple(subject.label for subject in subjects.values()): tr("every model"),
    }
    return Table(
        header,
        [[*row, every.get(tuple(names), clauses(names))] for row, names in rows.items()],
    )


def _source(profile: Profile) -> str:
    sources = {"math10k": "Math10K", "generated": tr("generated word problems")}
    return sources.get(profile.data.source, profile.data.source)


def unusable(found: Comparison, which: str) -> int:
    """Return how many rows of a set were drawn and could not be used."""
    return sum(row.set == which for row in found.data.unusable)


def _article_prediction(subject: Subject) -> dict[str, Any]:
    """Return how the article would have a subject answer, without places."""
    plain = read_yaml(paths.CONFIGS / "predict.yaml")
    name = subject.method.name if subject.method else methods.default()[0]
    held: set[str] = {*recipes.READING_KEYS, *recipes.PRECISION_KEYS}
    if subject.kind == "adapter":
        held |= keys.quantisation()
    return plain | {k: v for k, v in recipes.article(name).items() if k in held}


# ---- the command --------------------------------------------------------------------------------


def command(found: Comparison, settings: Settings, records: Mapping[str, Record]) -> str:
    """Return the command that makes this run again, from the repository.

    A folder or file of the reader's own stands in it as path/to/NAME.

    Args:
        found: the run's comparison.
        settings: those that it was made with.
        records: its records, by subject.
    """
    base = next(iter(records.values()))
    said = dict(_variables(found, settings, base))
    return " ".join(
        ["make run", *(f"{name}={_quoted(value)}" for name, value in said.items())]
    )  # fmt: skip


def _quoted(value: str) -> str:
    """Return a value as a shell and make take it."""
    return shlex.quote(value.replace("$", "$$"))


def _variables(found: Comparison, settings: Settings, base: Record) -> Iterator[tuple[str, str]]:
    profile = settings.profile
    yield "PROFILE", profile.name
    yield "RUN", found.run
    if found.model != profile.model:
        yield "MODEL", _model(base)
    source = _data(found)
    if source != profile.data.source:
        yield "DATA", source
    for name, which, asked, default in (
        ("TRAIN", data.TRAIN, found.data.train, profile.data.train),
        ("EVAL", data.EVAL, found.data.eval, profile.data.eval),
    ):
        if asked + unusable(found, which) != default:
            yield name, str(asked + unusable(found, which))
    if found.data.columns and source not in ("math10k", "generated"):
        pairs = [f"{ours}={shlex.quote(name)}" for ours, name in found.data.columns.items()]
        yield "COLUMNS", " ".join(pairs)
    if base.overrides:
        yield "OVERRIDES", " ".join(f"{k}={_as_yaml(v)}" for k, v in base.overrides.items())
    if profile.tuned and settings.tuned != profile.tuned.default:
        yield "TUNED", "yes" if settings.tuned else "no"
    if settings.seeds > 1:
        yield "SEEDS", str(settings.seeds)
    training = found.training[settings.methods[0].name]
    if training.cards > 1:
        yield "CARDS", str(training.cards)
    if training.sharded:
        yield "SHARDED", "yes"
    names = [method.name for method in settings.methods]
    if names != list(methods.default()):
        yield "METHODS", " ".join(names)


def _model(base: Record) -> str:
    code, _, detail = base.model_source.partition(":")
    if code == "folder":
        return f"path/to/{base.model}"
    return detail if code == "modelscope" and base.model not in models.catalogue() else base.model


def _data(found: Comparison) -> str:
    if found.data.source in ("file", "folder"):
        return f"path/to/{found.data.name}"
    return found.data.name if found.data.source == "modelscope" else found.data.source


def _as_yaml(value: Any) -> str:
    """Return an override's value as OVERRIDES= takes it: YAML without spaces, of which JSON is."""
    if isinstance(value, str):
        return without_folders(value).replace("…/", "path/to/")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
