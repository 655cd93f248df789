"""What a plan of memory says to readers."""

from __future__ import annotations

import pytest

from helpers.ground.errors import TutorialError
from helpers.planning import planner, report
from helpers.planning.plan import GIB, PARTS, ArticlePlans, Capacity, Phase, Plan, Question


def plan_of(
    training: int, evaluation: int, largest: str = "logits", most: int | None = None, **recipe: int
) -> Plan:
    """Return a plan with the peaks told, most of each being one part."""

    def phase(size: int) -> Phase:
        parts = dict.fromkeys(PARTS, 0) | {largest: size}
        return Phase(rows=4, length=128, peak_bytes=size, parts=parts)

    question = Question(recipe=recipe, device="npu", length=128, eval_length=128)
    return Plan(
        question=question, training=phase(training), evaluation=phase(evaluation),
        largest_micro_batch=most, seconds=1,
    )  # fmt: skip


ROOM = Capacity(total_bytes=1000 * 2**20, reserve_bytes=100 * 2**20, of="card")
TOO_MUCH = 1001 * 2**20


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            plan_of(TOO_MUCH, 5),
            "a training step needs 0.98 GiB and the first visible card has 0.98",
        ),
        (plan_of(TOO_MUCH, 5), "lower per_device_train_batch_size (now 4) or cutoff_len"),
        (plan_of(5, TOO_MUCH), "an evaluation needs 0.98 GiB"),
        (plan_of(5, TOO_MUCH), "lower per_device_eval_batch_size"),
        (
            plan_of(TOO_MUCH, 5, "weights"),
            "choose a smaller model, or a method that holds the weights in 4 bits.",
        ),
        (
            plan_of(TOO_MUCH, 5, "weights", quantization_bit=4),
            "is weights: choose a smaller model.",
        ),
    ],
)
def test_a_run_that_cannot_fit_is_refused_with_its_remedy(plan: Plan, words: str) -> None:
    with pytest.raises(TutorialError) as refused:
        report.refuse("LoRA", plan, ROOM)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_each_of_several_cards_holds_is_said() -> None:
    plan = plan_of(500 * 2**20, 5, gradient_accumulation_steps=2)
    assert report.sharing(plan) == ""
    plan.question.cards = 3
    said = report.verdict("LoRA", plan, ROOM)
    assert "each of 3 cards holds: the whole model, its own micro-batch of 4" in said
    assert "a step takes 24 examples in all" in said
    plan.question.sharded = True
    said = report.verdict("LoRA", plan, ROOM)
    assert "at most what each of 3 cards holds: its part of the weights" in said
    assert "a step takes 24 examples in all" in said


def test_a_run_that_fits_is_not_refused() -> None:
    report.refuse("LoRA", plan_of(1000 * 2**20, 5), ROOM)
    assert "LoRA fits" in report.verdict("LoRA", plan_of(900 * 2**20, 5), ROOM)
    assert "does NOT fit" in report.verdict("LoRA", plan_of(901 * 2**20, 5), ROOM)


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("named", "the card that was named"),
        ("machine", "this machine's memory"),
        ("container", "the memory of this container"),
        ("card", "the first visible card"),
        ("article", "an Ascend 910B2 (64 GB)"),
    ],
)
def test_the_verdict_says_whose_memory_it_is(of: str, words: str) -> None:
    room = ROOM.model_copy(update={"of": of})
    assert f"({words};" in report.verdict("LoRA", plan_of(5, 5), room)


def test_the_verdict_names_the_largest_micro_batch_where_it_was_asked() -> None:
    assert "micro-batch" not in report.verdict("LoRA", plan_of(5, 5), ROOM)
    said = report.verdict("LoRA", plan_of(5, 5, most=7), ROOM)
    assert said.endswith("The largest micro-batch that fits is 7.")


def test_plans_as_a_table() -> None:
    shown = report.table({"LoRA": plan_of(3 * GIB, GIB), "mine": plan_of(GIB, 2 * GIB, "weights")})
    assert [row[0] for row in shown.rows] == [
        "LoRA, training", "LoRA, evaluation", "mine, training", "mine, evaluation",
    ]  # fmt: skip
    assert len(shown.header) == len(shown.rows[0]) == 3 + len(PARTS) + 1
    assert shown.rows[0][-1] == "3.00"
    assert dict(zip(shown.header, shown.rows[3], strict=True))["weights"] == "2.00"
    assert list(report.part_names()) == list(PARTS)


@pytest.fixture(scope="module")
def committed() -> ArticlePlans:
    return ArticlePlans.model_validate_json(planner.ARTICLE_PLANS.read_text())


def test_plans_of_a_run_and_of_the_article_side_by_side(committed: ArticlePlans) -> None:
    own = {"lora": plan_of(7, 5), "qlora": plan_of(5, 6)}
    shown = report.beside(own, committed, "tiny", {"lora": "LoRA", "qlora": "QLoRA"})
    assert shown["this run, tiny, LoRA"].peak_bytes == 7
    assert shown["this run, tiny, QLoRA"].peak_bytes == 6  # its evaluation takes more
    assert len(shown) == 2 + 12
    at_7b = [shown[f"Qwen2-7B, {name}, 512 tokens"].peak_bytes for name in ("LoRA", "QLoRA")]
    assert at_7b[1] < 0.5 * at_7b[0]
    at_half = [shown[f"Qwen2-0.5B, {name}, 2048 tokens"].peak_bytes for name in ("LoRA", "QLoRA")]
    assert at_half[1] > 0.9 * at_half[0]


def test_a_run_of_other_methods_beside_the_article(committed: ArticlePlans) -> None:
    shown = report.beside({"dora": plan_of(7, 5)}, committed, "tiny", {"dora": "DoRA"})
    assert next(iter(shown)) == "this run, tiny, DoRA"
    assert "Qwen2-7B, QLoRA, 512 tokens" in shown
