"""Tables and texts of what was found, as notebooks, terminals and logs show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from helpers.ground import paths
from helpers.ground.shown import Dialogue, Entry, Table, facts
from helpers.ground.words import clauses, sentences, series, tr, trn
from helpers.inputs import recipes
from helpers.inputs.methods import Method
from helpers.inputs.settings import Settings
from helpers.inputs.subjects import Subject
from helpers.machine import memory
from helpers.planning.plan import Plan
from helpers.records import store
from helpers.records.schema import Answers, Origin, Record, Training
from helpers.results import chance, peaks
from helpers.results.pairs import paired_counts
from helpers.results.schema import Comparison, Example

if TYPE_CHECKING:
    from helpers.calls.serving import Said
    from helpers.records.inside import Block, Layer
    from helpers.records.schema import Score

NONE = "-"


def notes(origins: Iterable[Origin]) -> str:
    """Return where and when several things were measured, each place and day once."""
    return sentences(dict.fromkeys(origin.note() for origin in origins))


def _side_by_side(columns: Mapping[str, Mapping[str, str]], note: str) -> Table:
    """Return a column of named facts each; "-" where one lacks a fact that another has."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [[name, *(column.get(name, NONE) for column in columns.values())] for name in names]
    return Table(["", *columns], rows, note=note)


def _of(part: int, whole: int) -> str:
    return tr("{part} of {whole}", part=part, whole=whole)


# ---- recipes ------------------------------------------------------------------------------------


def recipe_value(value: Any) -> str:
    """Return a recipe's value as its YAML has it."""
    if value is None:
        return tr("not set")
    return str(value).lower() if isinstance(value, bool) else str(value)


def recipe_changes(recipe: Mapping[str, Any], here: Mapping[str, Any]) -> Table:
    """Return what a run changes of a method's recipe.

    Args:
        recipe: as its file has it.
        here: as the run trains with it.
    """
    rows = recipes.differences(recipe, here)
    header = [tr("key"), tr("article"), tr("here")]
    return Table(header, [(key, recipe_value(a), recipe_value(b)) for key, a, b in rows])


def recipe_differences(first: Method, other: Method) -> Table:
    """Return the lines in which the files of two methods differ."""
    rows = recipes.differences(first.recipe, other.recipe)
    header = [tr("key"), first.label, other.label]
    return Table(header, [(key, recipe_value(a), recipe_value(b)) for key, a, b in rows])


# ---- trainings and answers ----------------------------------------------------------------------


def _training(training: Training) -> dict[str, str]:
    sampled, allocated = training.memory, training.peaks
    rows = {
        tr("optimizer steps"): str(training.optimizer_steps),
        tr("training loss, first and last logged"): (
            f"{training.loss[0].loss:.3f} → {training.loss[-1].loss:.3f}"
            if training.loss
            else tr("none: fewer optimizer steps than logging_steps")
        ),
        tr("held-out loss after training"): f"{training.final_eval_loss:.4f}",
        tr("the whole call"): seconds(training.call_seconds),
        tr("of it the training loop"): seconds(training.train_seconds),
        tr("of that its evaluations"): seconds(training.evaluation_seconds),
        tr("speed without evaluations"): tr(
            "{speed} samples/s", speed=f"{training.samples_per_second:.2f}"
        ),
    }
    for name, peak in (
        (tr("peak of tensors in a training step (allocator)"), allocated.training),
        (tr("peak of tensors in an evaluation (allocator)"), allocated.evaluation),
        (tr("peak of tensors while the model was loaded (allocator)"), allocated.loading),
    ):
        if peak is not None:
            rows[name] = peaks.decimal(peak)
    name = tr("peak of {what}", what=memory.named(sampled.measure))
    rows[name] = peaks.decimal(sampled.peak_bytes)
    if training.cards > 1:
        rows[tr("cards")] = str(training.cards)
    if training.sharded:
        rows[tr("model")] = tr("sharded over the cards (FSDP2)")
    rows[tr("adapter on disk")] = f"{training.adapter_bytes / 1e6:.1f} MB"
    if training.resumed_at:
        name = tr("interrupted; went on from step (times without what was lost)")
        rows[name] = series(training.resumed_at)
    return rows


def trainings(found: Mapping[str, Training]) -> Table:
    """Return what trainings did, a column each; "-" where one lacks a row.

    Args:
        found: the trainings by the label to show.
    """
    columns = {label: _training(training) for label, training in found.items()}
    return _side_by_side(columns, notes(training.origin for training in found.values()))


def answers(found: Mapping[str, Answers]) -> Table:
    """Return the counts of right answers, a column a subject; only of how many, if none is scored.

    Args:
        found: answers by the label to show.
    """
    columns = {}
    for label, each in found.items():
        right = {
            tr("exact match"): _of(each.correct, each.n),
            tr("without ####: last number or letter"): _of(each.correct_without_mark, each.n),
        }
        unscored = {tr("problems answered; they cannot be scored"): str(each.n)}
        columns[label] = (right if each.scored else unscored) | {
            tr("time of the predict call"): seconds(each.seconds)
        }
    return _side_by_side(columns, notes(each.origin for each in found.values()))


def examples(
    found: Iterable[Example],
    comparison: Comparison | None = None,
    origins: Iterable[Origin] = (),
) -> Dialogue:
    """Return problems with each worked answer, right and wrong marked where that can be said.

    Those who wrote the same to the letter share a line.

    Args:
        found: the problems.
        comparison: whose they are; None: their names are labels already.
        origins: where and when they were answered, if that is not the comparison's.
    """
    subjects = comparison.subjects if comparison else {}
    mark = {True: "✓", False: "✗"}
    entries = []
    for example in found:
        authors: dict[tuple[str, bool], list[str]] = {}
        for name, answer in example.answers.items():
            label = subjects[name].label if comparison else name
            authors.setdefault(answer, []).append(label)
        entries.append(
            Entry(
                tr("{problem} Expected: {answer}", problem=example.problem,
                   answer=example.expected) if example.expected else example.problem,
                [
                    (mark[right] if example.expected else "", clauses(names), shortened(text))
                    for (text, right), names in authors.items()
                ],
            )
        )  # fmt: skip
    return Dialogue(entries, comparison.origin.note() if comparison else notes(origins))


def chat(conversations: Mapping[str, Sequence[Said]]) -> Dialogue:
    """Return what several models answered to the same questions.

    Args:
        conversations: what was said, by the label to show.
    """
    return Dialogue(
        [
            Entry(
                turns[0].question,
                [
                    ("", label, shortened(turn.answer))
                    for label, turn in zip(conversations, turns, strict=True)
                ],
            )
            for turns in zip(*conversations.values(), strict=True)
        ]
    )


def seconds(taken: float) -> str:
    """Return how long something took, in whole seconds."""
    return tr("{n} s", n=f"{taken:.0f}")


def shortened(text: str, most: int = 400) -> str:
    """Return text on one line, cut where it is longer than `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most] + " ..."


def planned_and_measured(found: Mapping[str, tuple[Plan, Training]]) -> Table:
    """Return planned peaks of tensors beside those that the allocator counted.

    A plan is for the longest example: what was measured without it is not compared.

    Args:
        found: plan and training by the label to show.
    """
    rows = []
    for label, (plan, training) in found.items():
        measured = training.peaks
        for what, planned, peak, longest in (
            (
                tr("{method}, training step", method=label),
                plan.training.peak_bytes,
                measured.training,
                measured.training_longest,
            ),
            (
                tr("{method}, evaluation", method=label),
                plan.evaluation.peak_bytes,
                measured.evaluation,
                measured.evaluation_longest,
            ),
        ):
            difference = f"{100 * (peak / planned - 1):+z.1f} %" if peak and longest else NONE
            shown = NONE if peak is None else peaks.binary(peak)
            rows.append([what, peaks.binary(planned), shown, difference])
    header = [tr("peak of tensors"), tr("planned"), tr("measured"), tr("difference")]
    trainings = [training for _, training in found.values()]
    note = sentences([peaks.why_none(trainings), notes(each.origin for each in trainings)])
    return Table(header, rows, note=note)


# ---- merged models ------------------------------------------------------------------------------


def merged_folders(subjects: Iterable[Subject], run: paths.RunFolder) -> Table:
    """Return where merged models lie, and how large they are."""
    rows = []
    for subject in subjects:
        folder = run.merged(subject.name)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        rows.append([subject.label, paths.shown(folder), f"{size / 1e6:.1f} MB"])
    return Table([tr("merged model"), tr("folder"), tr("on disk")], rows)


def merges(records: Mapping[str, Record], settings: Settings) -> Table:
    """Return how far merged models lie from base + adapter, on the problems that both were asked.

    One that has the very weights from which base + adapter answered was not asked: compared with
    them are its next-token distributions alone, which stand against the adapter beside its base.

    Args:
        records: theirs, by subject.
        settings: the run's settings; the records of base + adapter lie in its folder.

    Raises:
        TutorialError: one of these is missing, with the notebook that makes it.
    """
    header = [tr("merged model"), tr("same final answer"), tr("same text"), tr("KL (nats/token)"),
              tr("same likeliest token"), tr("exact match before"), tr("after"),
              tr("on disk")]  # fmt: skip
    rows, origins, known = [], [], []
    for name, record in records.items():
        subject, merge = settings.subjects[name], record.merge
        assert merge is not None
        assert subject.method is not None
        before = store.read(settings.run, settings.subjects[subject.method.name])
        both, only_before, only_after, _ = paired_counts(before.answers, record.answers)
        scored = record.data.scored
        origins.append(merge.origin)
        asked = not merge.divergence.same_weights
        if not asked:
            known.append(subject.label)
        rows.append(
            [
                subject.label,
                f"{merge.same_answer}/{merge.n}" if scored and asked else NONE,
                f"{merge.same_text}/{merge.n}" if asked else NONE,
                f"{merge.divergence.kl:.1e}",
                f"{100 * merge.divergence.same_token:.1f} %",
                _of(both + only_before, record.answers.n) if scored else NONE,
                _of(both + only_after, record.answers.n) if scored and asked else NONE,
                f"{merge.bytes_on_disk / 1e6:.1f} MB",
            ]
        )
    return Table(header, rows, note=sentences([not_asked(known), notes(origins)]))


def not_asked(known: Sequence[str]) -> str:
    """Return why some merged models were not asked; "" where all were.

    Args:
        known: their labels.
    """
    if not known:
        return ""
    return trn(
        "{models} was not asked again: base + adapter answered from its weights, bit for bit.",
        "{models} were not asked again: base + adapter answered from their weights, bit for bit.",
        len(known),
        models=series(known),
    )


# ---- inside a layer, inside a block -------------------------------------------------------------


def layer(found: Layer) -> Table:
    """Return what was trained of one linear layer, and how large it is beside the frozen weight."""
    rows = {
        tr("layer"): found.name,
        tr("W, frozen"): tr("{rows} by {columns}", rows=found.rows, columns=found.columns),
        tr("A, trained"): tr("{rows} by {columns}", rows=found.rank, columns=found.columns),
        tr("B, trained"): tr("{rows} by {columns}", rows=found.rows, columns=found.rank),
    }
    if found.magnitude is not None:
        rows[tr("magnitudes, trained: one for each output")] = str(found.rows)
    rows |= {
        tr("numbers trained for this layer"): _share(found.trained, found.parameters),
        tr("numbers trained in the whole model"): _share(
            found.model_trained, found.model_parameters
        ),
        tr("scale: alpha / rank"): f"{found.scale:g}",
        tr("size of W (Frobenius norm)"): f"{found.norm_weight:.3g}",
        tr("size of scale · B · A"): f"{found.norm_product:.3g}",
        tr("size of what training changes in W"): tr(
            "{norm} ({percent} % of W's)",
            norm=f"{found.norm_change:.3g}",
            percent=f"{100 * found.ratio:.2f}",
        ),
    }
    return facts(rows, [tr("what"), tr("value")], found.origin.note())


def _share(trained: int, numbers: int) -> str:
    return tr(
        "{trained}, beside {numbers} ({percent} %)",
        trained=f"{trained:,}",
        numbers=f"{numbers:,}",
        percent=f"{100 * trained / numbers:.2f}",
    )


def block(found: Block) -> Table:
    """Return what quantisation does to one block of weights, and to the matrix that it is from."""
    rows = {
        tr("layer"): found.name,
        tr("weights in the block"): str(len(found.before)),
        tr("codes used, of those that 4 bits can name"): _of(
            len(set(found.indices)), len(found.codes)
        ),
        tr("scale: the largest weight"): f"{found.scale:.4g}",
        tr("largest error"): f"{found.error_max:.3g}",
        tr("error against the weights (root mean square)"): f"{100 * found.error_relative:.1f} %",
        tr("the same, of the whole matrix"): f"{100 * found.matrix_error_relative:.1f} %",
        tr("the matrix in 16 bits"): f"{found.bytes_16 / 1e6:.3f} MB",
        tr("the matrix in 4 bits: codes and scales"): f"{found.bytes_4 / 1e6:.3f} MB",
        tr("bits a weight"): f"{found.bits_a_weight:.2f}",
    }
    return facts(rows, [tr("what"), tr("value")], found.origin.note())


# ---- evalscope ---------------------------------------------------------------------------------


def scores(found: Sequence[Score], subjects: Mapping[str, Subject]) -> Table:
    """Return evalscope's scores: a row each.

    Args:
        found: the scores.
        subjects: what is compared, by name.
    """
    benchmarks = {"held_out": tr("held-out problems"), "gsm8k": "GSM8K"}
    header = [tr("model"), tr("problems"), tr("right, as evalscope reads them (95 % interval)"),
              tr("right, as this tutorial reads them"), tr("evalscope took")]  # fmt: skip
    rows = []
    for score in found:
        low, high = chance.wilson(score.correct, score.n)
        rows.append(
            [
                subjects[score.subject].label,
                benchmarks[score.benchmark],
                f"{score.correct}/{score.n} ({100 * low:.0f}-{100 * high:.0f} %)",
                NONE if score.ours is None else f"{score.ours}/{score.n}",
                seconds(score.seconds),
            ]
        )
    return Table(header, rows)
