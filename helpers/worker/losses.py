"""The loss of each held-out problem by itself, beside the mean that an evaluation reports.

Two adapters that read the same problems can be compared problem by problem, which a mean over
batches does not allow. Loads torch.
"""

from __future__ import annotations

from typing import Any


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
        self.nats: list[float] = []
        self.tokens: list[int] = []
        self._hook = model.register_forward_hook(self._look, with_kwargs=True)

    def _look(self, model: Any, args: Any, kwargs: Any, output: Any) -> None:
        labels = kwargs.get("labels")
        logits = getattr(output, "logits", None)
        if model.training or labels is None or logits is None:
            return
        nats, tokens = of_problems(logits, labels)
        self.nats += nats
        self.tokens += tokens

    def end(self) -> dict[str, Any]:
        """Stop gathering, and return nats and tokens, a problem each."""
        self._hook.remove()
        return {"nats": self.nats, "tokens": self.tokens}
