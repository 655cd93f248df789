"""Tables of what was found: columns that fit, and where and when it was measured."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pytest
from conftest import ORIGIN, make_answers, make_merge, make_training
from results import made

from helpers.ground import escaping
from helpers.inputs import methods
from helpers.inputs.settings import Settings
from helpers.machine.memory import MemoryTrace
from helpers.records.schema import ProblemLoss, Score, SeedResult
from helpers.results import comparison, comparison_tables, pairs, tables
from helpers.results.schema import Comparison


@pytest.fixture
def three(runs: object) -> Settings:
    """The settings of a run with three methods, whose records are there."""
    chosen = made.chosen("lora qlora dora")
    made.write(chosen)
    return chosen


@pytest.fixture
def compared(three: Settings) -> Comparison:
    return comparison.compare(three)


def column(table: tables.Table, place: int = 1) -> dict[str, str]:
    """Return a column of a table by the names in its first."""
    return {str(row[0]): str(row[place]) for row in table.rows}


# ---- trainings and answers ----------------------------------------------------------------------


def test_facts_of_a_training_name_the_memory_for_what_it_is() -> None:
    rows = column(tables.trainings({"LoRA": make_training()}))
    assert rows["peak of tensors in a training step (allocator)"] == "0.40 GB"
    assert rows["peak of tensors in an evaluation (allocator)"] == "0.30 GB"
    assert rows["peak of resident memory of the training process"] == "1.00 GB"
    assert rows["training loss, first and last logged"] == "2.000 → 0.250"
    assert "peak of tensors while the model was loaded (allocator)" not in rows
    on_a_card = make_training(peaks={"training": 4 * 10**8, "loading": 2 * 10**8})
    shown = column(tables.trainings({"LoRA": on_a_card}))
    assert shown["peak of tensors while the model was loaded (allocator)"] == "0.20 GB"
    names = list(rows)
    assert names.index("peak of tensors in a training step (allocator)") < (
        names.index("peak of resident memory of the training process")
    )


def test_little_memory_is_shown_in_a_unit_in_which_it_is_something() -> None:
    rows = column(tables.trainings({"LoRA": make_training(peaks={"training": 4_501_696})}))
    assert rows["peak of tensors in a training step (allocator)"] == "4.5 MB"
    plan = made.plan(training_bytes=7 * 2**20)
    table = tables.planned_and_measured({"LoRA": (plan, make_training())})
    assert table.rows[0][1] == "7.00 MiB"


def test_facts_of_a_training_too_short_to_log_a_loss() -> None:
    rows = column(tables.trainings({"LoRA": make_training(loss=[])}))
    assert rows["training loss, first and last logged"].startswith("none")


def test_facts_side_by_side_where_only_one_training_was_interrupted() -> None:
    table = tables.trainings({"a": make_training(), "b": make_training(resumed_at=[4])})
    assert table.header == ["", "a", "b"]
    assert all(len(row) == 3 for row in table.rows)
    rows = [row[1:] for row in table.rows if str(row[0]).startswith("interrupted")]
    assert rows == [["-", "4"]]


def test_facts_that_only_one_of_two_devices_tells() -> None:
    card = MemoryTrace(measure="npu_smi", seconds=[1.0], bytes_used=[2 * 10**9])
    table = tables.trainings({"a": make_training(), "b": make_training(memory=card, peaks={})})
    assert column(table, 2)["peak of HBM in use on the NPU (npu-smi)"] == "2.00 GB"
    assert column(table, 1)["peak of HBM in use on the NPU (npu-smi)"] == "-"


def test_it_is_said_once_where_and_when_it_was_measured() -> None:
    later = ORIGIN.model_copy(update={"day": date(2026, 8, 1)})
    trainings = {"a": make_training(), "b": make_training(), "c": make_training(origin=later)}
    assert tables.trainings(trainings).note == f"{ORIGIN.note()} {later.note()}"
    assert "2026-07-29" in tables.answers({"base": make_answers([True])}).markdown()


def test_answers_are_counted_side_by_side() -> None:
    table = tables.answers({"base": make_answers([False] * 2), "LoRA": make_answers([True] * 2)})
    assert table.header == ["", "base", "LoRA"]
    assert table.rows[0] == ["exact match", "0 of 2", "2 of 2"]


def test_worked_answers_are_marked_and_not_rendered() -> None:
    before, after = make_answers([False]), make_answers([True])
    before.items[0].text = "$5 * 3$ <b>is</b> [it](http://x)\n\n# 8 #### 8"
    line = escaping.markdown("$5 * 3$ <b>is</b> [it](http://x) # 8 #### 8")
    text = tables.examples(pairs.examples({"base model": before, "LoRA": after}, 1)).markdown()
    assert f"✗ *base model*: {line}" in text
    assert "Measured on" not in text
    noted = tables.examples(pairs.examples({"LoRA": after}, 1), origins=[ORIGIN])
    assert noted.note == ORIGIN.note()
    assert "<b>" not in text
    assert "✓ *LoRA*" in text
    assert "Expected: 7.0" in text


def test_a_problem_is_not_rendered_either() -> None:
    answers = make_answers([True])
    answers.items[0].problem = "<script>alert(1)</script> | `x`\n- a list"
    text = tables.examples(pairs.examples({"LoRA": answers}, 1)).markdown()
    assert "<script>" not in text
    assert r"\| \`x\` - a list" in text.splitlines()[0]


def test_who_wrote_the_same_shares_a_line() -> None:
    same, other = make_answers([True]), make_answers([False])
    text = tables.examples(
        pairs.examples({"LoRA": same, "LoRA, merged": same, "QLoRA": other}, 1)
    ).markdown()
    assert "✓ *LoRA; LoRA, merged*" in text
    assert "✗ *QLoRA*" in text


def test_every_subject_of_a_comparison_is_shown_by_its_label(compared: Comparison) -> None:
    dialogue = tables.examples(compared.examples, compared)
    shown = {label for entry in dialogue.entries for _, who, _ in entry.answers
             for label in who.split("; ")}  # fmt: skip
    assert shown == {subject.label for subject in compared.subjects.values()}
    assert dialogue.note == compared.origin.note()


def test_a_long_answer_is_cut() -> None:
    said = {"LoRA": [SimpleNamespace(question="Why?", answer="because " * 100)]}
    [entry] = tables.chat(said).entries  # type: ignore[arg-type]
    assert entry.heading == "Why?"
    assert entry.answers[0][2].endswith(" ...")
    assert len(entry.answers[0][2]) < 410


# ---- recipes, seeds -----------------------------------------------------------------------------


def test_recipes_are_shown_as_their_yaml_has_them() -> None:
    table = tables.recipe_differences(methods.load("lora"), methods.load("qlora"))
    assert table.header == ["key", "LoRA", "QLoRA"]
    assert ("quantization_bit", "not set", "4") in table.rows
    assert ("double_quantization", "not set", "false") in table.rows
    changes = tables.recipe_changes({"bf16": True, "seed": 1}, {"bf16": False, "seed": 1})
    assert changes.rows == [("bf16", "true", "false")]


def test_seeds_have_a_mean_and_a_deviation_where_there_are_several(three: Settings) -> None:
    results = [
        SeedResult(method="lora", seed=seed, held_out_loss=loss, correct=right, n=50,
                   call_seconds=seed)
        for seed, loss, right in ((42, 0.5, 20), (43, 0.6, 22))
    ]  # fmt: skip
    results.append(SeedResult(method="dora", seed=42, held_out_loss=0.4, correct=9, n=50,
                              call_seconds=50))  # fmt: skip
    table = comparison_tables.seeds(results, three.subjects)
    assert [list(row) for row in table.rows] == [
        ["LoRA", "42", "0.5000", "42 s", "20 of 50"],
        ["LoRA", "43", "0.6000", "43 s", "22 of 50"],
        ["DoRA", "42", "0.4000", "50 s", "9 of 50"],
        ["LoRA", "2 seeds", "0.5500 ± 0.0707", "42 ± 1 s", "21.0 ± 1.4 of 50"],
    ]
    assert table.note == ""
    results[0].scored = False
    unscored = comparison_tables.seeds(results, three.subjects, [ORIGIN, ORIGIN])
    assert unscored.note == ORIGIN.note()
    assert unscored.header == ["method", "seed", "held-out loss", "train call"]
    assert {len(row) for row in unscored.rows} == {4}


# ---- plans, merges, the inside ------------------------------------------------------------------


def test_planned_and_measured_stand_side_by_side() -> None:
    plan = made.plan(training_bytes=2**30, evaluation_bytes=2**29)
    peaks = {"training": 2**30 * 102 // 100, "training_longest": True, "evaluation": 2**28}
    table = tables.planned_and_measured({
        "LoRA": (plan, make_training(peaks=peaks)), "QLoRA": (plan, make_training(peaks={}))
    })  # fmt: skip
    assert [list(row) for row in table.rows] == [
        ["LoRA, training step", "1.000 GiB", "1.020 GiB", "+2.0 %"],
        # measured without the longest example, for which the plan is made
        ["LoRA, evaluation", "0.500 GiB", "0.250 GiB", "-"],
        ["QLoRA, training step", "1.000 GiB", "-", "-"],
        ["QLoRA, evaluation", "0.500 GiB", "-", "-"],
    ]
    assert table.note == ORIGIN.note()
    over = make_training(peaks={}, resumed_at=[8])
    note = tables.planned_and_measured({"LoRA": (plan, over)}).note
    assert note.startswith("A training that went on from after its last step had none left")


def test_merged_models_beside_base_and_adapter(three: Settings) -> None:
    merged = make_merge(same_answer=3, kl=2.9e-5)
    record = made.record(three, "qlora_merged_dequantised", merge=merged)
    table = tables.merges({record.subject: record}, three)
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["merged model"] == "QLoRA, merged (dequantised base)"
    assert (cells["same final answer"], cells["KL (nats/token)"]) == ("3/4", "2.9e-05")
    assert (cells["exact match before"], cells["after"]) == ("2 of 4", "2 of 4")
    assert table.note == ORIGIN.note()


def test_a_merged_model_that_was_not_asked_says_why(three: Settings) -> None:
    merged = make_merge()
    merged.divergence.same_weights = True
    record = made.record(three, "lora_merged", merge=merged)
    table = tables.merges({record.subject: record}, three)
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert [cells[name] for name in ("same final answer", "same text", "after")] == ["-"] * 3
    assert (cells["exact match before"], cells["KL (nats/token)"]) == ("2 of 4", "0.0e+00")
    assert table.note.startswith(
        "LoRA, merged was not asked again: base + adapter answered from its weights, bit for bit."
    )


def test_merged_folders(three: Settings) -> None:
    folder = three.run.merged("dora_merged")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(2_000_000))
    [row] = tables.merged_folders([three.subject("dora_merged")], three.run).rows
    assert list(row) == ["DoRA, merged", "runs/test/dora_merged", "2.0 MB"]


def test_what_was_trained_of_a_layer() -> None:
    rows = column(tables.layer(made.layer()))
    assert (rows["A, trained"], rows["B, trained"]) == ("2 by 6", "4 by 2")
    assert rows["numbers trained for this layer"] == "20, beside 24 (83.33 %)"
    assert rows["numbers trained in the whole model"] == "80, beside 1,000 (8.00 %)"
    assert rows["size of what training changes in W"] == "0.01 (1.00 % of W's)"
    with_magnitudes = column(tables.layer(made.layer(magnitude=[1.0] * 4)))
    assert set(with_magnitudes) - set(rows) == {"magnitudes, trained: one for each output"}


def test_what_quantisation_does_to_a_block() -> None:
    rows = column(tables.block(made.block()))
    assert rows["codes used, of those that 4 bits can name"] == "16 of 16"
    assert rows["bits a weight"] == "4.50"
    assert rows["error against the weights (root mean square)"] == "10.0 %"


# ---- the comparison -----------------------------------------------------------------------------


def test_a_row_a_subject_and_a_memory_that_says_what_it_is(compared: Comparison) -> None:
    table = comparison_tables.comparison(compared)
    assert "peak: tensors, as the allocator counts them" in table.header
    assert [row[0] for row in table.rows] == [s.label for s in compared.subjects.values()]
    assert column(table, 5)["DoRA"] == "0.40 GB"
    assert column(table, 5)["base model"] == "-"


def test_conditions_name_every_difference(compared: Comparison) -> None:
    rows = comparison_tables.conditions(compared).rows
    assert ("recipe: quantization_bit", "LoRA not set, QLoRA 4") in rows
    assert ("recipe: use_dora", "LoRA not set, DoRA true") in rows
    assert ("data", "generated word problems, 6 to train, 4 held out") in rows
    assert ("torch", "2.10.0") in rows


def test_pairs_of_several_methods_are_a_table_each(compared: Comparison) -> None:
    text = comparison_tables.pairs(compared).plain()
    assert "LoRA right  2            0" in text
    assert "QLoRA right" in text
    assert "DoRA wrong" in text
    assert text.count("McNemar's exact test of these two adapters: p = 1.0000.") == 2


def test_one_pair_is_one_table_with_its_p_value(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora={"answers": make_answers([True] * 4)})
    table = comparison_tables.pairs(comparison.compare(chosen))
    assert isinstance(table, tables.Table)
    assert [list(row) for row in table.rows] == [["LoRA right", 2, 0], ["LoRA wrong", 2, 0]]
    assert "p = 0.5000." in table.note


def test_one_method_is_paired_with_none(runs: object) -> None:
    chosen = made.chosen("dora")
    made.write(chosen)
    assert "Only DoRA was trained" in comparison_tables.pairs(comparison.compare(chosen)).plain()


def test_scores_of_the_second_judge(three: Settings) -> None:
    score = Score(subject="dora", benchmark="held_out", n=20, share=0.5, seconds=60.0,
                  evalscope="1", ours=9)  # fmt: skip
    other = score.model_copy(update={"benchmark": "gsm8k", "ours": None})
    rows = [list(row) for row in tables.scores([score, other], three.subjects).rows]
    assert rows[0] == ["DoRA", "held-out problems", "10/20 (30-70 %)", "9/20", "60 s"]
    assert rows[1][1::2] == ["GSM8K", "-"]


def unscored(found: Comparison) -> Comparison:
    found.accuracy = {}
    found.pairs = {}
    return found


def test_how_many_problems_were_asked_stands_beside_each_score(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora_merged={"answers": make_answers([True, False])})
    table = comparison_tables.comparison(comparison.compare(chosen))
    scores = column(table, 1)
    assert scores["QLoRA"].startswith("2/4 (")
    assert scores["QLoRA, merged (16-bit base)"].startswith("1/2 (")


def test_it_is_said_which_weights_stood_under_the_scores(compared: Comparison) -> None:
    note = comparison_tables.comparison(compared).note
    assert note.startswith("LoRA, DoRA answered from merged weights: LLaMA-Factory adds adapters")
    assert "QLoRA answered from quantised weights with the adapter beside them." in note


def test_data_without_answers_have_no_accuracy_and_the_tables_say_so(compared: Comparison) -> None:
    table = comparison_tables.comparison(unscored(compared))
    assert "exact match (95 % interval)" not in table.header
    assert {len(row) for row in table.rows} == {len(table.header)}
    assert table.note.startswith("These data do not say what is right")
    assert "do not say what is right" in comparison_tables.pairs(compared).plain()


def test_answers_that_cannot_be_scored_are_counted_only() -> None:
    answers = make_answers([False, False])
    for item in answers.items:
        item.expected = ""
    assert column(tables.answers({"LoRA": answers})) == {
        "problems answered; they cannot be scored": "2", "time of the predict call": "1 s"
    }  # fmt: skip
    text = tables.examples(pairs.examples({"LoRA": answers}, 1)).plain()
    assert "Expected" not in text
    assert "✗" not in text


def test_the_figures_that_the_verdict_weighs_say_where_they_are_from(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora={"training": make_training(call_seconds=31.0)})
    table = comparison_tables.evidence(comparison.compare(chosen))
    rows = {str(row[0]): list(row[1:]) for row in table.rows}
    assert rows["exact match, 4 problems"][:3] == ["LoRA 50.0 %", "QLoRA 50.0 %", "+0.0 points"]
    assert rows["exact match, 4 problems"][-1] == "these two adapters"
    assert rows["train call"] == [
        "LoRA 20 s", "QLoRA 31 s", "+55.0 %", "-",
        "this run; repeats lie 10 % apart (configs/tutorial.yaml)",
    ]  # fmt: skip
    assert rows["peak: tensors, as the allocator counts them"][2] == "+0.0 %"
    [short, long] = [row for name, row in rows.items() if "Qwen2-7B" in name]
    assert short[-1] == long[-1] == "planned"
    assert short[0].startswith("LoRA ")
    assert short[0].endswith(" GiB")


def test_which_mean_a_loss_is_is_said_where_losses_are_weighed(runs: object) -> None:
    """The loss of a training and the one that is judged are two figures of the same problems."""
    chosen = made.chosen()
    losses = [ProblemLoss(nats=nats, tokens=9) for nats in (3.0, 5.0, 4.0, 2.0)]
    made.write(
        chosen,
        lora={"training": make_training(problem_losses=losses)},
        qlora={"training": make_training(problem_losses=losses[::-1])},
    )
    compared = comparison.compare(chosen)
    assert "are means over all tokens" in comparison_tables.evidence(compared).note
    for judgement in compared.verdict.judgements.values():
        judgement.loss = None
    assert "tokens" not in comparison_tables.evidence(compared).note


def test_figures_of_several_seeds_say_so(runs: object) -> None:
    found = comparison_tables.evidence
    chosen = made.chosen()
    made.write(chosen)
    compared = comparison.compare(chosen)
    compared.verdict.seeds = 3
    compared.verdict.time_allowance.measured = "here"
    rows = {str(row[0]): row[-1] for row in found(compared).rows}
    assert rows["exact match, 4 problems"] == "3 trainings each"
    assert rows["train call"] == "this run's repeats lie 10 % apart"
