"""Where the benchmarks run: a GPU, a CPU, or a CPU in a dry run of the GPU's code."""

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

__all__ = ["PRECISIONS", "PRODUCTS", "TOLERANCE", "Captured", "Place", "at_precision"]
__all__ += ["ieee_products", "made_over_nan", "net_at", "rotating"]

PRECISIONS = ("bf16", "tf32", "ieee")
TOLERANCE = {"bf16": 5e-2, "tf32": 5e-3, "ieee": 5e-4}  # of our largest entry
PRODUCTS = "matrix products alone"  # the ceiling of a CPU
JAX_PRECISION = {"bf16": "bfloat16", "tf32": "tensorfloat32", "ieee": "highest"}
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A device, and whether sizes are those of its table or, in a dry run of the GPU's, tiny."""

    device: str = "cuda"
    tiny: bool = False

    def size(self, full: T, tiny: T) -> T:
        return tiny if self.tiny else full

    @property
    def on_cpu(self) -> bool:
        """The CPU's own table: every peer in one interleaved run, beside a ceiling in that run."""
        return self.device == "cpu" and not self.tiny

    def table(self, cpu: T, gpu: T, tiny: T) -> T:
        return cpu if self.on_cpu else self.size(gpu, tiny)

    @property
    def precisions(self) -> tuple[str, ...]:
        return ("ieee",) if self.on_cpu else PRECISIONS

    def named(self, precision: str = "float32") -> str:
        """How a case's name ends."""
        return f"{'float32' if self.on_cpu else precision} {self.device}"

    def held_to(self, precision: str) -> dict[str, Any]:
        """Options of a benchmark of matrix products: its precision, its tolerance, its ceiling."""
        if self.on_cpu:
            return {"ceiling": PRODUCTS}
        return {"precision": precision, "limit": precision, "tolerance": TOLERANCE[precision]}

    def bandwidth(self, ceiling: str) -> dict[str, Any]:
        """Options of a benchmark that memory limits; a CPU's ceiling is one of its providers."""
        return {"ceiling": ceiling} if self.on_cpu else {"limit": "copy"}

    @property
    def clock(self) -> Clock:
        return seconds_on_gpu if self.device == "cuda" else seconds_on_cpu

    def backend(self, op: str) -> str | None:
        """Triton on a GPU, in a dry run if it can run there, else what the library chooses."""
        if self.on_cpu:
            return None
        ready = self.device == "cuda" or vf.supports(op, "triton", device=self.device)
        return "triton" if ready else None

    def normal(self, *shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, dtype=torch.float32, **self._drawn(seed))

    def pixels(self, *shape: int, seed: int = 0) -> Tensor:
        """Uniform in [0, 1], a fifth of them black and a tenth white."""
        x = torch.rand(shape, dtype=torch.float32, **self._drawn(seed))
        return x.sub_(0.2).mul_(1 / 0.7).clamp_(0, 1)

    def _drawn(self, seed: int) -> dict[str, Any]:
        """Where random numbers come from and go."""
        generator = torch.Generator(device=self.device).manual_seed(seed)
        return {"device": self.device, "generator": generator}

    def compiled(self, function: Callable) -> Callable:
        """torch.compile for these shapes; a dry run leaves the function as it is."""
        if self.tiny:
            return function
        return torch.compile(function, fullgraph=True, dynamic=False)

    def graphed(self, name: str, function: Callable[[], Any]) -> dict[str, Provider]:
        """A peer that a CPU has not."""
        return {} if self.on_cpu else {name: self.captured(function)}

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


def made_over_nan(provider: Provider) -> Any:
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
