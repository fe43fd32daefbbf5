"""How the libraries' products are rounded while a module is evaluated on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

__all__ = [
    "autocast",
    "of_module",
    "one_kernel",
    "products",
    "single_is_single",
    "twice_differentiable",
    "without_fallback_warnings",
]

NOTHING = nullcontext()


def products(device: torch.device, precision: str) -> AbstractContextManager:
    """float32 products in tf32 where ``precision`` is "tf32", else in full precision.

    For matrix products and convolutions on CUDA; forward and backward must both lie inside. The
    switches are the process's, as all of torch's are. Nothing is touched on the CPU.
    """
    cuda = device.type == "cuda"
    return _set(*_tf32_switches(precision == "tf32")) if cuda else NOTHING


def one_kernel(device: torch.device) -> AbstractContextManager:
    """cuDNN takes the same deterministic kernel every time instead of timing several."""
    if device.type != "cuda":
        return NOTHING
    cudnn = torch.backends.cudnn
    return _set((cudnn, "benchmark", False), (cudnn, "deterministic", True))


def of_module(device: torch.device, precision: str) -> AbstractContextManager:
    """:func:`products` and :func:`one_kernel`; nothing on the CPU."""
    if device.type != "cuda":
        return NOTHING
    both = ExitStack()
    both.enter_context(products(device, precision))
    both.enter_context(one_kernel(device))
    return both


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Products of a forward pass in bfloat16 where ``precision`` is "bf16"; float64 stays."""
    if precision != "bf16":
        return NOTHING
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Attention by the kernel that has derivatives of its derivative, and forward mode.

    The fused ones have a backward pass and nothing else. The switches are the process's.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    mha = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(before)


@contextmanager
def without_fallback_warnings() -> Iterator[None]:
    """vmap takes operations without a batching rule one by one and warns of it: no news here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not")
        yield


def single_is_single(device: torch.device) -> bool:
    """Whether the CPU's float32 products are float32 products, here and now.

    Not where the process lets them be rounded to bfloat16 or tf32, nor inside autocast.
    """
    if device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    try:
        asked = torch.get_float32_matmul_precision(), getattr(matmul, "fp32_precision", "none")
    except RuntimeError:  # the caller has used both generations of switches
        return False
    return asked[0] == "highest" and asked[1] in ("none", "ieee")


class _Matmul:
    """``torch.set_float32_matmul_precision`` as an attribute."""

    @property
    def precision(self) -> str:
        return torch.get_float32_matmul_precision()

    @precision.setter
    def precision(self, precision: str) -> None:
        torch.set_float32_matmul_precision(precision)


def _tf32_switches(allowed: bool) -> list[tuple[Any, str, Any]]:
    """(holder, attribute, value); torch refuses to mix its two generations of switches."""
    cudnn: Any = torch.backends.cudnn
    old = [
        (_Matmul(), "precision", "high" if allowed else "highest"),
        (cudnn, "allow_tf32", allowed),
    ]
    try:
        for holder, name, _ in old:
            getattr(holder, name)
    except RuntimeError:  # the caller has used the newer ones
        new = "tf32" if allowed else "ieee"
        holders = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        return [(holder, "fp32_precision", new) for holder in holders]
    return old


@contextmanager
def _set(*switches: tuple[Any, str, Any]) -> Iterator[None]:
    """Attributes at these values inside, and as they were afterwards."""
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in switches]
    try:
        _assign(switches)
        yield
    finally:
        _assign(before)


def _assign(switches: Any) -> None:
    for holder, name, value in switches:
        if getattr(holder, name) != value:  # setting one again may unset its default
            setattr(holder, name, value)
