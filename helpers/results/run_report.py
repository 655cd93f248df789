"""A run on one page to hand around: report.html, which needs nothing but a browser.

No script, nothing fetched, pictures inlined; made to be read on a screen and on A4. All of it comes
from comparison.json, the records and the plans, so a run made anywhere, in any language, can be
told in another. What rooms above this one have to tell, such as of a study, they hand over. The
template (templates/report.html) holds no words: they are made here. Jinja2 escapes whatever goes
into it, so that a problem which holds `<script>` shows as what it is.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.calls import article_memory
from helpers.ground import drawing, escaping, fonts, paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_file, write_bytes
from helpers.ground.shown import Code, Picture, Sentence, Several, Shown, Table, facts
from helpers.ground.words import tr
from helpers.inputs.models import Model
from helpers.inputs.settings import Settings, load_profile
from helpers.planning import planner
from helpers.planning.plan import RunPlans
from helpers.programs import process
from helpers.records import store
from helpers.records.schema import Record
from helpers.results import (
    comparison,
    comparison_tables,
    figures,
    memory_figures,
    pairs,
    run_settings,
    saving,
    tables,
    verdict,
)
from helpers.results.schema import Comparison, Example

TEMPLATES = Path(__file__).with_name("templates")
_EACH = 2  # problems of a kind: solved by all, by some, by none
_LONGEST = 1000  # characters of a problem


@dataclass(frozen=True)
class _Elsewhere(paths.RunFolder):
    """A run's folder but for its figures: the report's do not replace those of the notebooks."""

    figures_folder: Path

    @property
    def figures(self) -> Path:
        return self.figures_folder


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    heading: str
    parts: Sequence[Shown]

    def flat(self) -> Iterator[tuple[str, Shown]]:
        """Yield what it shows, each with the name of its kind, by which the template knows it."""

        def walk(part: Shown) -> Iterator[Shown]:
            if isinstance(part, Several):
                for each in part.parts:
                    yield from walk(each)
            else:
                yield part

        for part in self.parts:
            yield from ((type(each).__name__, each) for each in walk(part))


@dataclass(frozen=True)
class _Run:
    """All that a run has left."""

    found: Comparison
    records: Mapping[str, Record]
    plans: RunPlans | None
    settings: Settings

    @property
    def labels(self) -> dict[str, str]:
        return {name: subject.label for name, subject in self.found.subjects.items()}


def nothing_more(run: paths.RunFolder) -> Sequence[Section]:
    """Return no further section."""
    return ()


def write(
    run: paths.RunFolder, more: Callable[[paths.RunFolder], Sequence[Section]] = nothing_more
) -> Path:
    """Write runs/NAME/report.html, and return the file.

    It speaks the language that is set, and where none is, the run's.

    Args:
        run: it has a comparison, or there is more to tell.
        more: makes further sections in the language that is spoken; its argument keeps figures.

    Raises:
        TutorialError: there is nothing to report, or something that it is told from is missing.
    """
    with _spoken(run), tempfile.TemporaryDirectory() as folder:
        elsewhere = _Elsewhere(run.name, Path(folder))
        further = list(more(elsewhere))
        if run.comparison.is_file():
            page = _page_of_run(_gathered(elsewhere), further)
        elif further:
            page = _page(tr("Run {run}", run=run.name), further)
        else:
            raise _nothing(run)
    write_bytes(run.report, page.encode())
    return run.report


def _nothing(run: paths.RunFolder) -> TutorialError:
    return TutorialError(
        tr(
            "Run {run!r} has no comparison to report yet: run 'make run RUN={run}' first; "
            "'make runs' lists what there is.",
            run=run.name,
        )
    )


@contextmanager
def _spoken(run: paths.RunFolder) -> Iterator[None]:
    """Speak the run's language, unless another one is set."""
    own = None if words.asked() else _language_of(run)
    if own:
        words.choose(own)
    try:
        yield
    finally:
        if own:
            words.choose(words.AUTO)


def _language_of(run: paths.RunFolder) -> str | None:
    """Return the language of the edition that a headless run executed; None: there was none."""
    for executed in sorted(run.notebooks.rglob(f"{paths.NOTEBOOK_NAMES[-1]}.ipynb")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            ran = json.loads(executed.read_text("utf-8"))["metadata"]["papermill"]["input_path"]
            return words.of_folder(Path(ran).parent)
    return None


def _gathered(run: paths.RunFolder) -> _Run:
    found = comparison.read(run.comparison)
    records = {name: store.read(run, subject) for name, subject in found.subjects.items()}
    plans = planner.kept(run)
    base = next(iter(records.values()))
    methods = [subject.method for subject in found.subjects.values() if subject.kind == "adapter"]
    settings = Settings(
        profile=load_profile(found.profile),
        model=Model(name=found.model),
        run=run,
        overrides=base.overrides,
        tuned=bool(plans and plans.article),
        seeds=found.verdict.seeds,
        methods=tuple(method for method in methods if method),
    )
    return _Run(found, records, plans, settings)


# ---- the page -----------------------------------------------------------------------------------


def _as_text(value: object) -> object:
    """Return what goes into the page without control characters, and without secrets.

    What the template itself has made is HTML already.
    """
    if hasattr(value, "__html__") or not isinstance(value, str):
        return value
    return process.redacted(escaping.lines(value))


def _inlined(picture: Picture) -> str:
    """Return a picture as an address that holds it."""
    assert picture.figure is not None
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.as_svg(picture.figure)).decode()


def _page(title: str, sections: Sequence[Section], told: str = "", note: str = "") -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_as_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inlined"] = _inlined
    page = environment.get_template("report.html").render(
        language={"zh": "zh-CN"}.get(words.language(), words.language()),
        title=title,
        contents=tr("Contents"),
        colon=tr("{name}: {value}", name="", value=""),
        heading=tr("The verdict"),
        verdict=told,
        note=note,
        sections=[section for section in sections if section.parts],
    )
    style, end, rest = page.partition("</style>")
    return style + _font_face(page) + end + rest


def _font_face(page: str) -> str:
    """Return the rule that brings a page its Chinese font; "" where it needs none."""
    font = fonts.for_page(page)
    if font is None:
        return ""
    source = f"url(data:font/woff;base64,{base64.b64encode(font).decode()})"
    # For Chinese alone, and the first in the page's list: text that a browser has set in another
    # font before this one is there may stay so.
    said = {"font-family": '"Report Chinese"', "src": source,
            "unicode-range": fonts.RANGE, "font-display": "block"}  # fmt: skip
    return "@font-face { " + " ".join(f"{name}: {value};" for name, value in said.items()) + " }\n"


def _page_of_run(of: _Run, further: Sequence[Section]) -> str:
    title = tr(
        "{methods}: run {run}",
        methods=words.series(method.label for method in of.found.methods),
        run=of.found.run,
    )
    told = verdict.sentence(of.found)
    return _page(title, [*_sections(of), *further], told, of.found.origin.note())


def _sections(of: _Run) -> list[Section]:
    found, run = of.found, of.settings.run
    return [
        Section(tr("The comparison"), [comparison_tables.comparison(found)]),
        Section(
            tr("Curves and cost"),
            [figures.comparison_curves(found, run), figures.cost_bars(found, run)],
        ),
        Section(tr("Memory, planned and measured"), list(_memory(of))),
        Section(tr("Answers, with their intervals"), list(_answers(of))),
        Section(tr("Merged models"), list(_merges(of))),
        Section(tr("Examples, right and wrong"), [tables.examples(_examples(of), found)]),
        Section(
            tr("Settings that differ from the article's"),
            [run_settings.differences(found, of.records)],
        ),
        Section(
            tr("What was compared, with which versions, on which machine"),
            [comparison_tables.conditions(found), found.origin.machine.table()],
        ),
        Section(tr("Hashes"), [_hashes(of)]),
        Section(
            tr("The same run again"),
            [
                Code(run_settings.command(found, of.settings, of.records)),
                Sentence(
                    tr(
                        "In the repository. Where this run lies already, its finished steps are "
                        "used again; with another RUN= everything is done anew."
                    )
                ),
            ],
        ),
    ]


def _memory(of: _Run) -> Iterator[Shown]:
    training, settings = of.found.training, of.settings
    if of.plans is None or not all(name in of.plans.run for name in training):
        yield Sentence(tr("This run has no plan of its memory."))
        yield tables.trainings({of.labels[name]: each for name, each in training.items()})
        return
    pairs = {name: (of.plans.run[name], each) for name, each in training.items()}
    yield memory_figures.planned_and_measured(pairs, settings, "planned_and_measured")
    yield tables.planned_and_measured({of.labels[name]: each for name, each in pairs.items()})
    measured = article_memory.kept(settings.run)
    if measured is None or not all(name in of.plans.article for name in measured.training):
        return
    article, run = of.plans.article, of.plans.run
    yield memory_figures.both_settings(run, training, article, measured, settings)
    yield saving.table(run, training, article, measured, settings)
    yield saving.why(training, article, measured, settings)


def _answers(of: _Run) -> Iterator[Shown]:
    found = of.found
    yield figures.accuracy_bars(found, of.settings.run)
    if found.accuracy and found.pairs:
        yield comparison_tables.pairs(found)
    yield comparison_tables.evidence(found)
    if found.verdict.seeds > 1:
        yield comparison_tables.seeds(found.seeds, found.subjects)


def _merges(of: _Run) -> Iterator[Shown]:
    merged = {name: record for name, record in of.records.items() if record.merge}
    if merged:
        scored = bool(of.found.accuracy)
        yield figures.merge_bars(of.found.merges, of.settings, "merges", scored)
        yield tables.merges(merged, of.settings)


def _examples(of: _Run) -> list[Example]:
    """Return a few problems that all adapters solved, some of them, and none."""
    answers = {name: record.answers for name, record in of.records.items()}
    adapters = [method.name for method in of.found.methods]
    told = pairs.telling(answers, adapters, _EACH)
    return [
        example.model_copy(update={"problem": tables.shortened(example.problem, _LONGEST)})
        for example in told
    ]


def _hashes(of: _Run) -> Table:
    base = next(iter(of.records.values()))
    rows: dict[str, Any] = {
        tr("base model"): base.model_sha256,
        tr("data, as they came"): of.found.data.source_sha256,
        tr("training problems"): of.found.data.train_sha256,
        tr("held-out problems"): of.found.data.eval_sha256,
    }
    for name, training in of.found.training.items():
        label = of.labels[name]
        rows[tr("{method}: adapter", method=label)] = training.adapter_sha256
        weights = training.frozen_weights
        rows[tr("{method}: frozen weights in memory, before training", method=label)] = (
            weights.before.digest
        )
        rows[tr("{method}: frozen weights in memory, after it", method=label)] = (
            weights.after.digest
        )
    rows |= {of.labels[name]: merge.model_sha256 for name, merge in of.found.merges.items()}
    rows["comparison.json"] = sha256_file(paths.RunFolder(of.found.run).comparison)
    return facts(rows, [tr("what"), tr("SHA-256; of weights in memory, a digest of their bytes")])
