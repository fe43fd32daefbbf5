"""Where the benchmarks run: a GPU, or the CPU in tiny sizes, which goes through the same code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeVar

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.ops import _jax as jx
from vaefast.bench.runner import Clock, Provider, seconds_on_cpu, seconds_on_gpu
from vaefast.types import Network

__all__ = ["PRECISIONS", "TOLERANCE", "Captured", "Place", "at_precision", "ieee_products"]
__all__ += ["net_at", "poisoned", "rotating"]

PRECISIONS = ("bf16", "tf32", "ieee")
TOLERANCE = {"bf16": 5e-2, "tf32": 5e-3, "ieee": 5e-4}  # of our largest entry
JAX_PRECISION = {"bf16": "bfloat16", "tf32": "tensorfloat32", "ieee": "highest"}
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A device, and whether sizes are those of the table or tiny."""

    device: str = "cuda"
    tiny: bool = False

    def size(self, full: T, tiny: T) -> T:
        return tiny if self.tiny else full

    @property
    def clock(self) -> Clock:
        return seconds_on_gpu if self.device == "cuda" else seconds_on_cpu

    def backend(self, op: str) -> str | None:
        """Triton; in a dry run the best that there is."""
        ready = self.device == "cuda" or vf.supports(op, "triton", device=self.device)
        return "triton" if ready else None

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, device=self.device, generator=self._generator(seed))

    def pixels(self, *shape: int, seed: int = 0) -> Tensor:
        """Uniform in [0, 1], a fifth of them black and a tenth white."""
        x = torch.rand(shape, device=self.device, generator=self._generator(seed))
        return x.sub_(0.2).mul_(1 / 0.7).clamp_(0, 1)

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def compiled(self, function: Callable) -> Callable:
        """torch.compile for these shapes; a dry run leaves the function as it is."""
        if self.tiny:
            return function
        return torch.compile(function, fullgraph=True, dynamic=False)

    def captured(self, function: Callable[[], Any]) -> Captured:
        return Captured(function, self.device == "cuda")


class Captured:
    """A call as a CUDA graph over the tensors that it closes over; its result stays in place.

    Captured by :meth:`prepare` or at the first call; off the GPU it is the function itself.
    """

    def __init__(self, function: Callable[[], Any], on_gpu: bool) -> None:
        self.function, self.on_gpu = function, on_gpu
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: Any = None

    def prepare(self) -> None:
        if not self.on_gpu or self.graph is not None:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles, and fills the libraries' workspaces
            for _ in range(3):
                self.function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # JAX has threads too
            self.result = self.function()
        self.graph = graph

    def __call__(self) -> Any:
        if not self.on_gpu:
            return self.function()
        self.prepare()
        assert self.graph is not None
        self.graph.replay()
        return self.result


@contextmanager
def at_precision(precision: str) -> Iterator[None]:
    """torch's and JAX's matrix products and convolutions at the precision that ours are held to."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if precision == "ieee" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "ieee"
    try:
        if not jx.platform()[0]:
            yield
            return
        import jax

        with jax.default_matmul_precision(JAX_PRECISION[precision]):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def ieee_products() -> Iterator[None]:
    """torch's products in float32 for a part that no precision may round."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def net_at(net: Network, precision: str) -> Network:
    """What the peers are given: the same weights, for bf16 in bfloat16."""
    if precision != "bf16":
        return net
    weights = [weight.bfloat16() for weight in net.weights]
    biases = [bias if bias is None else bias.bfloat16() for bias in net.biases]
    return net._replace(weights=weights, biases=biases)


def rotating(make: Callable[..., Provider], inputs: Sequence[tuple]) -> Provider:
    """Calls on one set of inputs after the other, for sets that exceed the L2 cache together."""
    calls = cycle([make(*given) for given in inputs])
    return lambda: next(calls)()


def poisoned(provider: Provider) -> Any:
    """The provider's second result, made in memory that held NaN.

    Raises:
        AssertionError: an element was not written, or the two results differ.
    """
    first = [t.clone() for t in _spoilt(provider())]
    result = provider()  # the allocator hands out the same memory again
    for before, now in zip(first, _tensors(result)):
        if not torch.equal(before, now):
            where = "is not written everywhere, or is not the same twice"
            raise AssertionError(f"our result {list(now.shape)} {where}")
        if now.is_floating_point() and not bool(now.isfinite().all()):
            raise AssertionError(f"our result {list(now.shape)} is not finite")
    return result


def _tensors(result: Any) -> list[Tensor]:
    return [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]


def _spoilt(result: Any) -> Iterator[Tensor]:
    """Each tensor, overwritten when the next one is asked for."""
    for t in _tensors(result):
        yield t
        t.fill_(float("nan") if t.is_floating_point() else -1)
