"""What is counted of a training: arithmetic that is known, and layers that all do the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.inputs import recipes
from helpers.planning import asking
from helpers.planning.counter import Counter, extrapolated
from helpers.planning.work import Operators, Work, WorkQuestion

CONFIG = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
          "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
          "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1024,
          "tie_word_embeddings": True}  # fmt: skip
ROWS, LENGTH = 2, 64


def products(operators: list[Operators]) -> int:
    return sum(each.calls * each.flops for each in operators if each.kind == "matrix")


def test_products_bytes_views_and_what_is_looked_up() -> None:
    counter = Counter({})
    with FakeTensorMode(), counter:
        a, table = torch.empty(8, 16), torch.empty(1000, 4)
        counter.take()
        a.t() @ a
        a + 1
        torch.nn.functional.embedding(torch.zeros(3, dtype=torch.long), table)
        counts = counter.take()
    assert counts["matrix", 2 * 16 * 8 * 16, 4 * (2 * 8 * 16 + 16 * 16), ""] == 1
    assert counts["vector", 0, 2 * 4 * 8 * 16, ""] == 1
    assert counts["vector", 0, 2 * 4 * 3 * 4, ""] == 1  # rows of the table, not all of it
    assert counts["view", 0, 0, ""] >= 1


def test_a_body_is_counted_in_its_operators_place() -> None:
    func = torch.ops.aten.add.Tensor
    with FakeTensorMode(), Counter({func: lambda a, b: a * b * b}) as counter:
        a = torch.ones(4)
        counter.take()
        a + a
        assert sum(counter.take().values()) == 2


def test_layers_are_taken_from_two_traces() -> None:
    counter = Counter({})
    one, two = counter.take(), counter.take()
    one["vector", 0, 8, ""] = 5
    two["vector", 0, 8, ""] = 7
    two["vector", 0, 9, ""] = 1
    found = {each.bytes: each.calls for each in extrapolated(one, two, 4)}
    assert found == {8: 11, 9: 3}


def test_the_work_of_a_training(tmp_path: Path) -> None:
    """A micro-batch multiplies what the shapes say; 4 bits move less of the weights, and more."""
    asked = [
        WorkQuestion(
            recipe=recipes.article(method)
            | {"model_name_or_path": "x", "disable_gradient_checkpointing": True},
            config=CONFIG, device=device, length=LENGTH, eval_length=LENGTH, padded=False,
            answer_rows=3,
        )
        for method, device in (("lora", "cuda"), ("qlora", "cuda"), ("qlora", "npu"))
    ]  # fmt: skip
    works = [Work.model_validate(each) for each in asking.ask("traced_work", asked, tmp_path / "l")]
    lora, qlora, on_npu = works
    hidden, inner, layers, rank = 64, 128, 3, 8
    narrow = hidden // 2  # two heads of queries share one of keys and values
    weights = layers * (2 * hidden * (hidden + narrow) + 3 * hidden * inner) + hidden * 1024
    adapter = layers * rank * (2 * (2 * hidden + hidden + narrow) + 3 * (hidden + inner))
    forward = 2 * ROWS * LENGTH * (weights + adapter)
    assert products(lora.evaluation) == pytest.approx(forward, rel=0.01)
    # Backward: the gradients of what goes through the weights, twice the adapter's.
    assert products(lora.micro_batch) == pytest.approx(
        2 * forward + 2 * ROWS * LENGTH * adapter, rel=0.05
    )
    scores = layers * ROWS * 4 * LENGTH * LENGTH * hidden // 2  # causal: half of them
    attention = [each for each in lora.evaluation if each.kind == "attention"]
    assert sum(each.calls * each.flops for each in attention) == scores
    assert products(lora.token) == pytest.approx(forward * 3 / (ROWS * LENGTH), rel=0.01)
    assert products(qlora.micro_batch) == pytest.approx(products(lora.micro_batch), rel=0.01)

    def kernels(work: Work) -> int:
        return sum(each.calls for each in work.micro_batch if each.kind != "view")

    # A kernel a weight and pass on CUDA; on an NPU what npu_4bit.py runs instead, several.
    assert kernels(lora) < kernels(qlora) < kernels(on_npu)
