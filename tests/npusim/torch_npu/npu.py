"""``torch.npu`` of the simulated device: what torch and the training stack call, and no more."""

import time
import types
from contextlib import ContextDecorator
from typing import Any

import torch

_device = torch.ops.npusim


def _index(device: Any = None) -> int:
    """The number of a device given as None, a number, "npu:0" or a torch.device."""
    if device is None:
        return current_device()
    if isinstance(device, int):
        return device
    index = torch.device(device).index
    return current_device() if index is None else index


# Devices


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def _is_in_bad_fork() -> bool:
    return False


def device_count() -> int:
    return _device.device_count()


def current_device() -> int:
    return _device.current_device()


def set_device(device: Any) -> None:
    _device.set_device(_index(device))


def get_device_name(device: Any = None) -> str:
    return "Ascend910B2 (simulated)"


def get_device_properties(device: Any = None) -> types.SimpleNamespace:
    return types.SimpleNamespace(name=get_device_name(), total_memory=mem_get_info(device)[1])


def is_bf16_supported() -> bool:
    return True


def set_compile_mode(jit_compile: bool = False) -> None:
    """LLaMA-Factory turns CANN's operator compiler off; there is none here."""


class device(ContextDecorator):
    """Makes a device the current one for a while."""

    def __init__(self, device: Any) -> None:
        self.index = _index(device)

    def __enter__(self) -> None:
        self.before = current_device()
        set_device(self.index)

    def __exit__(self, *exc: object) -> None:
        set_device(self.before)


# Memory. There is no cache: what is reserved is what is allocated.


def memory_allocated(device: Any = None) -> int:
    return _device.memory(_index(device))[0]


def max_memory_allocated(device: Any = None) -> int:
    return _device.memory(_index(device))[1]


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    _device.reset_peak(_index(device))


reset_max_memory_allocated = reset_peak_memory_stats


def mem_get_info(device: Any = None) -> tuple[int, int]:
    allocated, _, _, total = _device.memory(_index(device))
    return total - allocated, total


def empty_cache() -> None:
    pass


# Random numbers. The device draws from the CPU's generator, so that a run here and a run on the
# CPU draw the same ones.


def manual_seed(seed: int) -> None:
    torch.default_generator.manual_seed(int(seed))


manual_seed_all = manual_seed


def get_rng_state(device: Any = "npu") -> torch.Tensor:
    return torch.default_generator.get_state()


def set_rng_state(new_state: torch.Tensor, device: Any = "npu") -> None:
    torch.default_generator.set_state(new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state() for _ in range(device_count())]


def set_rng_state_all(new_states: list[torch.Tensor]) -> None:
    for state in new_states:
        set_rng_state(state)


random = types.SimpleNamespace(
    get_rng_state=get_rng_state,
    get_rng_state_all=get_rng_state_all,
    set_rng_state=set_rng_state,
    set_rng_state_all=set_rng_state_all,
)


# Precision


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16]


# Time. Every call returns when its work is done.


def synchronize(device: Any = None) -> None:
    pass


class Event:
    """A moment of the host's clock."""

    def __init__(self, enable_timing: bool = False, **kwargs: object) -> None:
        self.seconds = 0.0

    def record(self, stream: object = None) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: "Event") -> float:
        return (end.seconds - self.seconds) * 1000
