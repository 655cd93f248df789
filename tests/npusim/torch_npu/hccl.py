"""``hccl`` between simulated NPUs: each is a process of its own, and gloo carries what they say.

What is on a device is copied to the host first, as gloo knows nothing of devices.
"""

from datetime import timedelta
from typing import Any

import torch
from torch import distributed


def _on_host(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.cpu() if tensor.is_npu else tensor for tensor in tensors]


def _back(tensors: list[torch.Tensor], carried: list[torch.Tensor]) -> None:
    for tensor, copy in zip(tensors, carried, strict=True):
        if tensor is not copy:
            tensor.copy_(copy)


def _done(result: list[torch.Tensor]) -> Any:
    """A piece of work that is over; DDP takes its result from the host's copy."""
    future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
    future.set_result(result)
    return torch._C._distributed_c10d._create_work_from_future(future)


class SimulatedHccl(distributed.ProcessGroup):
    """The collectives that DDP and accelerate ask for."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self.gloo = distributed.ProcessGroupGloo(store, rank, size, timeout)

    def getBackendName(self) -> str:
        return "hccl"

    def allreduce(self, tensors: list[torch.Tensor], opts: Any = None) -> Any:
        carried = _on_host(tensors)
        self.gloo.allreduce(carried, opts or distributed.AllreduceOptions()).wait()
        _back(tensors, carried)
        return _done(carried)

    def broadcast(self, tensors: list[torch.Tensor], opts: Any) -> Any:
        carried = _on_host(tensors)
        self.gloo.broadcast(carried, opts).wait()
        _back(tensors, carried)
        return _done(carried)

    def allgather(self, into: list[list[torch.Tensor]], tensors: list[torch.Tensor],
                  opts: Any = None) -> Any:  # fmt: skip
        carried = [[torch.empty_like(each, device="cpu") for each in row] for row in into]
        self.gloo.allgather(carried, _on_host(tensors)).wait()
        for row, copies in zip(into, carried, strict=True):
            _back(row, copies)
        return _done(carried[0])

    def _allgather_base(self, into: torch.Tensor, tensor: torch.Tensor, opts: Any = None) -> Any:
        rows = list(into.view(self.size(), -1).unbind())
        return self.allgather([rows], [tensor.reshape(-1)])

    def barrier(self, opts: Any = None) -> Any:
        return self.allreduce([torch.zeros(1)])


def _create(store: Any, rank: int, size: int, timeout: timedelta) -> SimulatedHccl:
    return SimulatedHccl(store, rank, size, timeout)


def register() -> None:
    """Make ``init_process_group("hccl")`` known to torch."""
    distributed.Backend.register_backend("hccl", _create, devices=["npu"])
