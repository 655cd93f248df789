"""The loss of each held-out problem by itself, beside the mean that an evaluation reports.

Two adapters that read the same problems can be compared problem by problem, which a mean over
batches does not allow. Loads torch.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from helpers.worker import ranks


def of_problems(logits: Any, labels: Any) -> tuple[list[float], list[int]]:
    """Return the loss of each problem of a batch, and over how many tokens it is summed.

    Args:
        logits: [problems, tokens, vocabulary], in any floating type.
        labels: [problems, tokens]; -100 where there is nothing to predict.

    Returns:
        Nats, summed over the tokens of the expected solution, and the number of these tokens, a
        problem each.
    """
    import torch

    nats, tokens = [], []
    for row, wanted in zip(logits[:, :-1], labels[:, 1:], strict=True):
        scored = wanted != -100
        # One problem at a time in float32: a whole batch of it would be the peak of memory.
        loss = torch.nn.functional.cross_entropy(
            row[scored].float(), wanted[scored], reduction="sum"
        )
        nats.append(round(float(loss), 6))
        tokens.append(int(scored.sum()))
    return nats, tokens


class ProblemLosses:
    """Gathers the losses of an evaluation's problems, in their order, while it goes on."""

    def __init__(self, model: Any) -> None:
        self.batches: list[tuple[list[float], list[int]]] = []
        self._hook = model.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, model: Any, args: Any, kwargs: Any, output: Any) -> None:
        labels = kwargs.get("labels")
        logits = getattr(output, "logits", None)
        if model.training or labels is None or logits is None:
            return
        self.batches.append(of_problems(logits, labels))

    def end(self, problems: int) -> dict[str, Any]:
        """Stop gathering, and return nats and tokens, a problem each.

        Args:
            problems: how many there are. Cards take batches in turn, and where these come out
                uneven, accelerate puts the first problems once more.
        """
        self._hook.remove()
        nats: list[float] = []
        tokens: list[int] = []
        for row in zip_longest(*ranks.gathered(self.batches)):
            for batch in filter(None, row):
                nats += batch[0]
                tokens += batch[1]
        return {"nats": nats[:problems], "tokens": tokens[:problems]}
