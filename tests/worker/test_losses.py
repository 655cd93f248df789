"""The loss of each held-out problem: against torch's own mean over a batch."""

from __future__ import annotations

import pytest
import torch

from helpers.worker.losses import ProblemLosses, of_problems


class Reader(torch.nn.Module):
    """A model that reads tokens and gives logits, as transformers' do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(11, 11)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> object:
        return type("Output", (), {"logits": self.table(input_ids)})()


def batch(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 11, (rows, 9))
    labels = ids.clone()
    for row in range(rows):
        labels[row, : 2 + row] = -100
    return ids, labels


def test_they_add_up_to_the_mean_over_all_tokens() -> None:
    torch.manual_seed(0)
    ids, labels = batch(3)
    logits = Reader()(ids).logits
    nats, tokens = of_problems(logits, labels)
    mean = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1)
    )
    assert sum(nats) / sum(tokens) == pytest.approx(float(mean), rel=1e-5)
    assert tokens == [7, 6, 5]


def test_they_are_gathered_in_order_and_only_in_an_evaluation() -> None:
    torch.manual_seed(0)
    model = Reader()
    gathered = ProblemLosses(model)
    (ids, labels), (more, more_labels) = batch(2), batch(1)
    model.train()
    model(input_ids=ids, labels=labels)
    model.eval()
    model(input_ids=ids, labels=labels)
    model(input_ids=more, labels=more_labels)
    model(input_ids=more)  # nothing to predict
    found = gathered.end(4)
    model(input_ids=ids, labels=labels)
    assert found["tokens"] == [7, 6, 7]
    assert found["nats"][:2] == of_problems(model(ids).logits, labels)[0]
