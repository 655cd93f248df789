"""How long counted work takes, on cards and here, and what readers are told of it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import models, settings
from helpers.machine import hardware
from helpers.planning import cards, duration, estimate, time_report, visits
from helpers.planning.cards import Card, Efficiencies
from helpers.planning.duration import Span
from helpers.planning.estimate import Counted, Estimate, Place
from helpers.planning.work import Operators, Work, WorkQuestion
from helpers.records.card import Card as Visit
from helpers.records.card import Steps

CARD = Card(device="cuda", names=("X",), tflops=100, terabytes=1, gib=24, checked=True)
REACHED = Efficiencies(
    matrix=(0.5, 1), attention=(0.25, 0.5), memory=(0.5, 1), kernel=(4, 2), call=(10, 5)
)


def work(*operators: Operators, update: tuple[Operators, ...] = ()) -> Work:
    return Work(
        length=128, eval_length=128, micro_batch=list(operators), update=list(update),
        evaluation=list(operators), token=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "flops", "moved", "calls", "low", "high"),
    [
        ("matrix", 10**12, 1, 3, 0.03, 0.06),  # at the peak, and at half of it
        ("attention", 10**12, 1, 1, 0.02, 0.04),
        ("vector", 0, 10**10, 2, 0.02, 0.04),  # at the memory's speed, and at half of it
        ("matrix", 1, 1, 1000, 0.005, 0.010),  # the host asks for them one by one
        ("view", 0, 0, 1000, 0.0015, 0.003),
    ],
)
def test_an_operator_takes_what_limits_it(
    kind: str, flops: int, moved: int, calls: int, low: float, high: float
) -> None:
    one = Operators.model_validate({"kind": kind, "flops": flops, "bytes": moved, "calls": calls})
    span = duration.on_card(work(one), CARD, REACHED).micro_batch
    assert (span.low, span.high) == pytest.approx((low, high))


def test_the_optimizer_takes_a_few_kernels_on_cuda_and_one_each_on_an_npu() -> None:
    many = Operators(kind="vector", calls=1000, flops=0, bytes=1000)
    on_cuda = duration.on_card(work(update=(many,)), CARD, REACHED).update
    on_npu = duration.on_card(
        work(update=(many,)), CARD.model_copy(update={"device": "npu"}), REACHED
    ).update
    assert on_cuda.high < 1e-5
    assert on_npu.low == pytest.approx(0.005)


def test_here_an_operator_takes_what_it_took() -> None:
    two = [Operators(kind="vector", calls=3, flops=0, bytes=1, form=form) for form in "ab"]
    span = duration.here(work(*two), {"a": 1.0, "b": 0.5}).micro_batch
    assert (span.low + span.high) / 2 == pytest.approx(4.5)


@pytest.mark.parametrize("text", ["cheap", "-1", "nan", "inf", "2,88"])
def test_a_price_that_is_no_number_is_one_sentence(text: str) -> None:
    with pytest.raises(TutorialError, match=r"PRICE=.* is not what an hour .* PRICE=2\.88\."):
        estimate.price(text)


def test_a_price() -> None:
    assert estimate.price("2.88") == 2.88
    assert estimate.price(" ") is None


def test_an_unknown_card_is_one_sentence_with_those_that_are_known() -> None:
    with pytest.raises(TutorialError, match=r"CARD='A1000' .* 910B1, 910B2, .* 4090"):
        cards.named("A1000")
    with pytest.raises(TutorialError, match="CARD=A100 is planned with PROFILE=cuda"):
        estimate.place("npu", "a100")


def test_the_catalogue_knows_cards_by_what_they_call_themselves() -> None:
    assert cards.recognised("Ascend910B2") == "910B2"
    assert cards.recognised("NVIDIA A100-SXM4-80GB") == "A100"
    assert cards.recognised("NVIDIA GeForce RTX 4090") == "4090"
    assert cards.recognised("NVIDIA A100-SXM4-40GB") is None  # it moves less


def test_the_place_is_the_card_that_is_here_or_the_articles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = hardware.describe()

    def is_here(device: str, *names: str) -> None:
        found = machine.model_copy(update={"device": device, "accelerators": list(names)})
        monkeypatch.setattr(hardware, "describe", lambda: found)

    is_here("cpu")
    assert estimate.place("cpu") == Place(None)
    assert estimate.place("npu") == Place("910B2")
    assert estimate.place("cuda") is None
    is_here("npu", "Ascend 910B3")
    assert estimate.place("npu") == Place("910B3")
    is_here("cuda", "NVIDIA Some Other Card")
    assert estimate.place("cuda") is None


def test_a_catalogue_that_is_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cards.yaml").write_text("cards: {X: {device: npu}}\nefficiencies: {}\n")
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    cards.catalogue.cache_clear()
    try:
        with pytest.raises(TutorialError, match="is no catalogue of cards"):
            cards.catalogue()
    finally:
        cards.catalogue.cache_clear()


@pytest.mark.parametrize(
    ("recipe", "problems", "steps", "evaluations"),
    [
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
          "num_train_epochs": 1.0, "eval_strategy": "steps", "eval_steps": 20}, 2000, 125, 7),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
          "num_train_epochs": 2.0, "do_eval": False}, 2001, 252, 0),
        ({"max_steps": 5, "eval_strategy": "no"}, 2000, 5, 1),
    ],
)  # fmt: skip
def test_steps_and_evaluations_of_a_recipe(
    recipe: dict[str, object], problems: int, steps: int, evaluations: int
) -> None:
    assert estimate.steps_of(recipe, problems) == steps
    assert estimate.evaluations_of(recipe, steps) == evaluations


def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *seen: object) -> dict[str, Estimate]:
    """Return estimates of an article's run on a 910B2 whose micro-batch is one large product."""
    chosen = settings.resolve("npu", run="test")
    where = Place("910B2")
    one = Operators(kind="matrix", calls=1, flops=10**14, bytes=1)
    asked = estimate.questions(chosen, where)
    found = Counted(where, asked, dict.fromkeys(asked, work(one)), list(seen))  # type: ignore
    return estimate.beforehand(found, chosen)


def test_a_run_is_its_steps_its_evaluations_and_its_answers(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = counted(tmp_path, monkeypatch)["lora"]
    micro = 10**14 / (353.9e12 * 0.7)
    assert found.step.low == pytest.approx(8 * micro)
    assert (found.steps, found.evaluations) == (125, 7)
    assert found.training.low == pytest.approx(125 * 8 * micro + 7 * 100 * micro)
    assert found.answering.low == pytest.approx(13 * 8 * micro)  # 200 problems, 16 at a time
    assert found.assumed
    assert found.length == 128


def test_steps_that_a_card_was_seen_to_take_move_the_estimate(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counted(tmp_path, monkeypatch)
    visit = Visit(
        day=date(2026, 11, 1), profile="npu", device="npu", name="Ascend910B2", simulated=False,
        total_bytes=1, versions={}, length=512, checks={}, choice="", kernels=[], fallbacks=[],
        seconds=1,
        steps=[Steps(model="Qwen2-7B", method="lora", kernels="", setting="", seconds=[3, 2, 7],
                     micro_batch=2, micro_batches=2)],
    )  # fmt: skip
    monkeypatch.setattr(paths, "CARDS", tmp_path)
    (tmp_path / "one.json").write_text(visit.model_dump_json())
    (tmp_path / "broken.json").write_text("{")
    simulated = visit.model_copy(update={"simulated": True, "day": date(2026, 11, 2)})
    (tmp_path / "two.json").write_text(simulated.model_dump_json())
    [seen] = visits.of("910B2", ["lora", "qlora"])
    assert (seen.method, seen.seconds, seen.micro_batches) == ("lora", 3, 2)
    assert seen.question.config == models.catalogue()["Qwen2-7B"].config
    one = Operators(kind="matrix", calls=1, flops=10**14, bytes=1)
    after = counted(tmp_path, monkeypatch, (seen, work(one)))
    assert after["lora"].step.low == pytest.approx(4 * 3 * 0.8)  # 8 micro-batches, not 2
    assert after["lora"].measured
    assert after["qlora"] == before["qlora"]
    assert visits.of("910B3", ["lora"]) == []


def estimated(**more: object) -> Estimate:
    return Estimate.model_validate(
        {"step": Span(low=1, high=2), "steps": 10, "training": Span(low=600, high=1800),
         "evaluations": 2, "answering": Span(low=0, high=1800), "length": 200, "assumed": True}
        | more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("card", "more", "words"),
    [
        ("910B2", {}, "LoRA, 910B2 (an estimate without a check)"),
        ("910B2", {"measured": True}, "LoRA, 910B2 (steps of such a card were timed)"),
        ("A100", {}, "LoRA, A100"),
        (None, {}, "LoRA, this machine"),
    ],
)
def test_an_estimate_without_a_check_says_so_in_its_line(
    card: str | None, more: dict[str, object], words: str
) -> None:
    shown = time_report.table({"LoRA": estimated(**more)}, Place(card), 2.88)
    assert shown.rows[0][0] == words
    assert shown.rows[0][1:] == ["1.0 to 2.0", 10, "10 to 30", 2, "0.00 to 30", "0.48 to 2.9"]
    assert shown.header[-1] == "cost at 2.88 an hour"
    assert len(time_report.table({"LoRA": estimated()}, Place(card), None).header) == 6


def test_what_an_estimate_rests_on() -> None:
    found = {"lora": estimated()}
    assert "taken to be 200 tokens long" in time_report.basis(found, Place("910B2"))
    found = {"lora": estimated(assumed=False)}
    assert "are 200 tokens long on average" in time_report.basis(found, Place("910B2"))
    assert "CARD= names one that is" in time_report.basis({}, None)


def test_operators_are_timed_here_and_what_cannot_be_goes_by_its_bytes() -> None:
    from helpers.planning import calibration

    def form(name: str, *shapes: tuple[int, ...]) -> str:
        tensors = [{"shape": s, "stride": (s[1], 1), "dtype": "float32"} for s in shapes]
        return json.dumps([name, tensors, {}])

    done = form("aten.mm.default", (64, 64), (64, 64))
    wrong = form("aten.mm.default", (64, 64), (32, 64))
    found = calibration.timed([(done, 2.0), (wrong, 1.0)], 0.05)
    assert found[done] > 0
    assert found[wrong] == pytest.approx(found[done] * 96 / 128)


def test_a_step_takes_so_many_times_as_long_as_its_operators_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from helpers.planning import calibration

    class Steps:
        def __init__(self, case: object, device: str) -> None:
            self.seconds = iter([0.5, 0.3, 0.4])

        def step(self) -> None:
            pass

        def timed(self) -> float:
            return next(self.seconds)

    monkeypatch.setattr(calibration, "Training", Steps)
    case = calibration.Case(key="lora", recipe={}, config={}, length=128, steps=3)
    seconds = {"product": 0.05, "view": 0.0}
    found = calibration.longer(case, [("product", 4), ("view", 9), ("", 9)], seconds)
    assert found == pytest.approx(2.0)
    assert calibration.longer(case, [("product", 41)], seconds) is None  # nobody waits for it
    assert calibration.longer(case, [("view", 1)], seconds) is None


def test_what_is_planned_for_this_machine_goes_by_steps_of_few_layers(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings.resolve("cpu", run="test", model="Qwen2-0.5B")
    one = Operators(kind="matrix", calls=10, flops=10**9, bytes=1, form="product")
    asked: list[list[WorkQuestion]] = []

    def ask(program: str, questions: list[WorkQuestion], log: Path) -> list[object]:
        asked.append(questions)
        return [work(one).model_dump()] * len(questions)

    def run(program: str, question: dict[str, dict[str, object]], *more: object) -> object:
        assert set(question["probes"]) == {"lora", "qlora"}
        return {"seconds": {"product": 0.1}, "longer": {"lora": 1.5, "qlora": None}}

    monkeypatch.setattr("helpers.planning.asking.ask", ask)
    monkeypatch.setattr("helpers.planning.asking.run", run)
    found = estimate.beforehand(estimate.count(chosen, Place(None)), chosen)
    assert found["lora"].step.middle == pytest.approx(1.5 * found["qlora"].step.middle)
    first, _, probe, _ = asked[0]
    assert first.config and probe.config  # noqa: PT018
    assert (first.config["num_hidden_layers"], probe.config["num_hidden_layers"]) == (24, 2)
    assert first.config | {"num_hidden_layers": 2} == probe.config
    assert probe.recipe["gradient_accumulation_steps"] == 1
    assert estimate.probes_of({"lora": first.model_copy(update={"forms": False})}) == {}
    without = first.model_copy(update={"config": {"n_layer": 12}})
    assert estimate.probes_of({"lora": without}) == {}


def test_a_question_of_a_run_is_about_what_problems_take_until_the_data_are_here(
    runs: Path,
) -> None:
    asked = estimate.questions(settings.resolve("npu", run="test"), Place("910B2"))
    assert [each.length for each in asked.values()] == [estimate.ASSUMED] * 2
    assert all(isinstance(each, WorkQuestion) and not each.forms for each in asked.values())
    assert [each.answer_rows for each in asked.values()] == [16, 16]
