"""The output layer takes its input without gaps, and gives the same."""

from __future__ import annotations

import torch

from helpers.worker import prefill


class Model(torch.nn.Module):
    def __init__(self, head: torch.nn.Module | None) -> None:
        super().__init__()
        self.head = head

    def get_output_embeddings(self) -> torch.nn.Module | None:
        return self.head


def test_a_slice_is_made_whole_before_the_output_layer() -> None:
    seen = []
    head = torch.nn.Linear(4, 7, bias=False)
    head.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    states = torch.randn(3, 5, 4)
    before = head(states[:, -1:])
    prefill.close_gaps(Model(head))
    after = head(states[:, -1:])
    assert [tensor.is_contiguous() for tensor in seen] == [False, True]
    torch.testing.assert_close(after, before)


def test_a_model_without_an_output_layer_is_left_alone() -> None:
    prefill.close_gaps(Model(None))
