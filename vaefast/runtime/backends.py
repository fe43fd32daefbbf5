"""Which backend runs an op: availability, support, the choice, and the way to force one.

The choice depends on device, dtype and the loaded backends only. A backend asked for by name
never falls back: it runs or it raises with the reason.
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vaefast.checks import option, short
from vaefast.runtime import refusals
from vaefast.types import Network

__all__ = ["BACKENDS", "Support", "fused", "resolve", "supports", "use_backend"]

BACKENDS = ("reference", "cpp", "triton")
OWN = (("cpp", "cpu"), ("triton", "cuda"))
FAST_DTYPES = (torch.float32, torch.float64)
F = TypeVar("F", bound=Callable)
logger = logging.getLogger("vaefast")

_implemented: dict[str, tuple[str, ...]] = {}  # op -> backends that it has
_instead: dict[tuple[str, str], str] = {}  # (op, backend that it has not) -> the reason's end
_said: set[str] = set()
_missing: set[str] = set()  # backends whose absence was told
_forced: str | None = None


class Support(NamedTuple):
    """Whether a backend can run an op; false with the reason why not."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


def constant_when_traced(function: F) -> F:
    """torch.compile runs the function once and keeps its result, as it would a literal.

    What ``torch.compiler.assume_constant_result`` does, without importing all of torch._dynamo.
    """
    setattr(function, "_dynamo_marked_constant", True)  # noqa: B010
    return function


def declare(
    op: str,
    backends: tuple[str, ...],
    instead: str = "",
    refused: refusals.Refusal | None = None,
) -> None:
    """Record an op's backends, and what runs on CUDA ``instead`` of a Triton kernel.

    ``refused``: (backend, layers) ↦ why that has no kernel of the op for them, "" where it has.
    """
    _implemented[op], _instead[op, "triton"] = backends, f"; {instead}" if instead else ""
    refusals.declare(op, refused)


def has(op: str, backend: str) -> bool:
    """Whether the op is implemented in the backend at all, wherever that may run."""
    return backend in _implemented[op]


def ops() -> tuple[str, ...]:
    """The names of all registered ops."""
    return tuple(_implemented)


def supports(
    op: str,
    backend: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    layers: Sequence[str] = (),
) -> Support:
    """Whether ``backend`` runs ``op`` on ``device`` in ``dtype``, and why not.

    Args:
        layers: those of the network, ``Network.layers``, where the op takes one.

    Returns:
        A :class:`Support`, true or false in a condition, with ``.reason``.

    Raises:
        ValueError: unknown op or backend.
    """
    option(op, "op", _implemented)
    option(backend, "backend", BACKENDS)
    kind = torch.device(device).type
    reason = _dtype_reason(backend, dtype) or _other_reason(op, backend, kind, layers)
    return Support(not reason, reason)


def _dtype_reason(backend: str, dtype: torch.dtype) -> str:
    if backend == "reference" or dtype in FAST_DTYPES:
        return ""
    return (
        f'backend "{backend}" takes float32 or float64, got {short(dtype)}; '
        'pass x.float() or backend="reference"'
    )


def _other_reason(op: str, backend: str, device: str, layers: Sequence[str] = ()) -> str:
    if backend not in _implemented[op]:
        return f'{op} has no "{backend}" backend yet' + _instead.get((op, backend), "")
    return availability(backend, device) or refusals.of_op(op, backend, layers)


@constant_when_traced
def availability(backend: str, device: str) -> str:
    """Why ``backend`` cannot run on ``device`` on this machine; empty where it can."""
    return _probe(backend, device)


@cache
def _probe(backend: str, device: str) -> str:
    if backend == "cpp":
        return _cpp_reason(device)
    if backend == "triton":
        return _triton_reason(device)
    return ""


def _cpp_reason(device: str) -> str:
    if device != "cpu":
        return f'backend "cpp" takes CPU tensors, got {device}; pass x.cpu()'
    try:
        importlib.import_module("vaefast._C")
    except ImportError as error:
        return f"the C++ extension is not loaded ({error}); install vaefast with a C++ compiler"
    return ""


def _triton_reason(device: str) -> str:
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"triton is not installed ({error}); pip install triton"
    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device was found"
    if device == "cpu" and not interpreted():
        return 'backend "triton" takes CUDA tensors, or CPU tensors under TRITON_INTERPRET=1'
    return ""


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def named(backend: str | None) -> str | None:
    """The backend asked for by name: the argument, else ``use_backend``'s; ``None`` for neither."""
    return backend or _forced


def fast(device: str) -> str:
    """The fast backend on a type of device."""
    return "triton" if device == "cuda" else "cpp"


def wanted(backend: str | None, tensor: Tensor) -> str:
    """The backend named, else the fast one for the tensor's device, whether it can run or not."""
    return named(backend) or fast(tensor.device.type)


def resolve(op: str, backend: str | None, tensor: Tensor, layers: Sequence[str] = ()) -> str:
    """The backend that runs ``op`` on tensors like ``tensor``.

    Args:
        backend: a name from :data:`BACKENDS`, or ``None`` for ``use_backend``'s or the best one.
        layers: those of the network, where the op takes one.

    Raises:
        TypeError: the backend asked for by name does not take this dtype.
        RuntimeError: the backend asked for by name cannot run here; the message says why.
    """
    name = named(backend)
    device, dtype = tensor.device.type, tensor.dtype
    if name is not None:
        if reason := _dtype_reason(option(name, "backend", BACKENDS), dtype):
            raise TypeError(reason)
        if reason := _other_reason(op, name, device, layers):
            raise RuntimeError(reason)
        return name
    chosen = fast(device)
    reason = _dtype_reason(chosen, dtype) or _other_reason(op, chosen, device, layers)
    if not reason:
        return chosen
    if not torch.compiler.is_compiling():
        _say_once(f"{op} runs on the reference: {reason}")
        _warn_of_missing(chosen, device)
    return "reference"


def fused(net: Network, tensor: Tensor, backend: str | None = None) -> Support:
    """Whether the backend that would run a network on tensors like ``tensor`` has kernels for it.

    The reference counts only where it is asked for by name: a caller's own module is faster.
    """
    name = named(backend)
    if name == "reference":
        return Support(True)
    chosen = name or fast(tensor.device.type)
    reason = (
        _dtype_reason(chosen, tensor.dtype)
        or availability(chosen, tensor.device.type)
        or refusals.of_layers(chosen, net.layers)
    )
    if reason:
        _warn_of_missing(chosen, tensor.device.type)
    return Support(not reason, reason)


def described(tensor: Tensor) -> str:
    """What the ops run on for tensors like this one, for a reader; warns of a missing backend."""
    if name := named(None):
        return name
    chosen, device = fast(tensor.device.type), tensor.device.type
    reason = _dtype_reason(chosen, tensor.dtype) or availability(chosen, device)
    _warn_of_missing(chosen, device)
    return f"reference: {reason}" if reason else chosen


def _warn_of_missing(backend: str, device: str) -> None:
    """Once a process, where a device's own fast backend was not built or is not installed."""
    if (backend, device) not in OWN or backend in _missing:
        return
    if reason := availability(backend, device):
        _missing.add(backend)
        warnings.warn(
            f"{reason}; until then PyTorch does the work on the {device}, many times slower "
            '(VAEFAST_BACKEND=reference asks for that, and VAEFAST_REQUIRE="'
            f'{backend}" for an error)',
            RuntimeWarning,
            stacklevel=2,
        )


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        logger.info(message)


@contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Run every op inside the ``with`` block on one backend, as if it were asked for by name.

    The setting is one for the process. ``VAEFAST_BACKEND`` sets it from the start.

    Args:
        backend: a name from :data:`BACKENDS`, or ``None`` for the automatic choice.
    """
    global _forced
    before = _forced
    _forced = None if backend is None else option(backend, "backend", BACKENDS)
    try:
        yield
    finally:
        _forced = before


def require(names: str) -> None:
    """Insist on backends, as ``VAEFAST_REQUIRE=cpp,triton`` does at import.

    Raises:
        ImportError: one of them is missing; the message says why.
    """
    for name in filter(None, (part.strip() for part in names.split(","))):
        option(name, "VAEFAST_REQUIRE", BACKENDS)
        device = "cuda" if name == "triton" and not interpreted() else "cpu"
        if reason := availability(name, device):
            raise ImportError(f"VAEFAST_REQUIRE={name}: {reason}")


if name := os.environ.get("VAEFAST_BACKEND"):
    _forced = option(name, "VAEFAST_BACKEND", BACKENDS)
