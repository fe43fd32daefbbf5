"""Functions of tensors that are captured once per shape and then replayed, as CUDA graphs.

A capture reads its inputs, the parameters and whatever else the function read at fixed addresses.
So weights that were written to in place, ``.data`` included, are seen by the next replay, and a
parameter at another address gets another capture. Python code runs while capturing only: hooks
and counters of a module do not notice a replay. Captures end with the public call they serve.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["OFF", "CannotCapture", "Capturer", "Graphs", "capturing"]

Outputs = tuple[Tensor, ...]
Function = Callable[..., Outputs]  # of tensors and None only; hashable, equal means the same

EAGER_RUNS = 2  # of a shape before it is captured: libraries fill their caches, rare shapes cost 0
MOST = 4  # captures that share a memory pool; all of them go when another one is needed
WORTH = 4  # replays that a capture must have had on average for more than MOST to be made

logger = logging.getLogger("vaefast")


class CannotCapture(Exception):
    """A function has no capture; the message says why."""


class Capturer(Protocol):
    """What captures on some device; its captures share one pool of memory."""

    def rehearse(self, run: Callable[[], Outputs]) -> Outputs:
        """The results of an ordinary run, as the capture will run it.

        Raises:
            CannotCapture: the run did what a capture cannot hold.
        """

    def capture(self, run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """(replay, what a replay writes to); a failure leaves the device usable."""

    def new_pool(self) -> None:
        """Further captures use memory of their own; that of those that are gone returns."""


class _Capture:
    """A replay between its inputs and its outputs.

    Args:
        reads: are kept alive, for a replay reads them where they lie.
    """

    def __init__(
        self,
        replay: Callable[[], None],
        outputs: Outputs,
        inputs: list[Tensor | None],
        reads: list[Tensor],
    ) -> None:
        self._replay, self._outputs, self._inputs, self._reads = replay, outputs, inputs, reads
        self._copied: list[_Copied | None] = [None] * len(inputs)

    def run(self, inputs: Sequence[Tensor | None]) -> Outputs:
        for i, (held, given) in enumerate(zip(self._inputs, inputs)):
            if held is None or given is None or _Copied.is_still(self._copied[i], given):
                continue
            held.copy_(given)
            self._copied[i] = _Copied.now(given)
        self._replay()
        return tuple(t.clone() for t in self._outputs)


class _Copied(NamedTuple):
    """A tensor as it was when it was copied; the reference is weak, for most live one step."""

    tensor: weakref.ref[Tensor]  # an address alone may be another tensor's by now
    address: int
    version: int

    @classmethod
    def now(cls, t: Tensor) -> _Copied | None:
        """None for the tensors of inference mode, whose writes nobody counts."""
        return None if t.is_inference() else cls(weakref.ref(t), t.data_ptr(), t._version)

    @staticmethod
    def is_still(copied: _Copied | None, t: Tensor) -> bool:
        return (
            copied is not None
            and copied.tensor() is t
            and (copied.address, copied.version) == (t.data_ptr(), t._version)
        )


class Graphs:
    """The captures of one public call.

    Args:
        capturer: makes them; None runs every function as it is.
        modules: whose parameters and buffers the functions read.
    """

    def __init__(self, capturer: Capturer | None, modules: Sequence[object] = ()) -> None:
        self._capturer = capturer
        self._modules = [m for m in modules if isinstance(m, nn.Module)]
        self._captures: dict[Hashable, _Capture] = {}
        self._seen: Counter[Hashable] = Counter()
        self._refused: dict[Hashable, str] = {}  # function -> why
        self.captured = self.replayed = 0

    @property
    def active(self) -> bool:
        """Whether functions are captured at all; otherwise every one runs as it is."""
        return self._capturer is not None

    @property
    def copies(self) -> int:
        """How often the working memory of a run is held.

        What ran eagerly, what was rehearsed on another stream and the pool each keep theirs.
        """
        return 1 if self._capturer is None else 3

    def run(self, function: Function, *inputs: Tensor | None) -> Outputs:
        """``function(*inputs)``, replayed where there is a capture for tensors like these.

        Args:
            function: returns new tensors, writes to no input, and depends on nothing but its
                inputs and the modules.
            inputs: what the replay before was given too is copied again only if torch has counted
                a write to it, as it does not for writes through ``.data`` or NumPy.
        """
        capturer = self._capturer
        if capturer is None or function in self._refused:
            return function(*inputs)
        key = (function, *map(_layout, inputs), self._addresses())
        capture = self._captures.get(key)
        if capture is not None:
            self.replayed += 1
            return capture.run(inputs)
        self._seen[key] += 1
        if self._seen[key] <= EAGER_RUNS:
            return function(*inputs)
        return self._capture(capturer, key, function, inputs)

    def refuses(self, function: Function) -> bool:
        """Whether there will be no capture of ``function``, for one was tried."""
        return function in self._refused

    def close(self) -> None:
        """Let go of every capture and of its memory."""
        self._captures.clear()
        self._seen.clear()
        if self._capturer is not None:
            self._capturer.new_pool()

    def _addresses(self) -> Hashable:
        """Where all parameters and buffers lie, and how."""
        return tuple(
            (t.data_ptr(), _layout(t))
            for module in self._modules
            for tensors in (module.parameters(), module.buffers())
            for t in tensors
        )

    def _capture(
        self, capturer: Capturer, key: Hashable, function: Function, inputs: Sequence[Tensor | None]
    ) -> Outputs:
        """The results of ``function``, and its capture where there can be one."""
        if self.captured >= MOST and self.replayed < WORTH * self.captured:
            self._refuse(function, "shapes or parameters change too often for captures to pay")
            return function(*inputs)
        if len(self._captures) >= MOST:
            self.close()
        try:
            capture, results = _captured(capturer, function, inputs)
        except Exception as error:
            reason = "" if isinstance(error, CannotCapture) else f"{type(error).__name__}: "
            self._refuse(function, f"{reason}{error}".partition("\n")[0])
            return function(*inputs)
        self._captures[key] = capture
        self.captured += 1
        return results

    def _refuse(self, function: Function, reason: str) -> None:
        self._refused[function] = reason
        logger.info("%s runs without a CUDA graph: %s", _name(function), reason)


OFF = Graphs(None)


@contextmanager
def capturing(like: Tensor, *modules: object) -> Iterator[Graphs]:
    """The captures of a public call on tensors like ``like``; on CUDA only."""
    if not like.is_cuda or torch.cuda.is_current_stream_capturing():
        yield OFF
        return
    from vaefast.runtime.cuda_graphs import CudaCapturer

    graphs = Graphs(CudaCapturer(like.device), modules)
    try:
        yield graphs
    finally:
        graphs.close()


class _Reads(TorchDispatchMode):
    """Finds the tensors that a run reads and did not make itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for t in _tensors((args, kwargs)):
            if self._is_new(t):
                self.found.append(t)
        result = func(*args, **kwargs)
        for t in _tensors(result):
            self._is_new(t)
        return result

    def _is_new(self, t: Tensor) -> bool:
        storage = t.untyped_storage()._cdata
        new = storage not in self._known
        self._known.add(storage)
        return new


def _captured(
    capturer: Capturer, function: Function, inputs: Sequence[Tensor | None]
) -> tuple[_Capture, Outputs]:
    """A capture that was seen to give what an ordinary run gives, and those results."""
    held = [None if t is None else t.detach().clone() for t in inputs]
    with _Reads() as reads:
        function(*held)
    expected = capturer.rehearse(lambda: function(*held))
    capture = _Capture(*capturer.capture(lambda: function(*held)), held, reads.found)
    _require_equal(capture.run(inputs), expected, inputs)
    return capture, expected


def _tensors(tree: object) -> list[Tensor]:
    leaves = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return [t for t in leaves if t.layout == torch.strided]


def _layout(t: Tensor | None) -> Hashable:
    return None if t is None else (t.shape, t.stride(), t.dtype, t.device)


def _name(function: Function) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _require_equal(found: Outputs, expected: Outputs, inputs: Sequence[Tensor | None]) -> None:
    """A replay gives what the ordinary run gave, to round-off of the coarsest input."""
    floating = [t.dtype for t in inputs if t is not None and t.is_floating_point()]
    tolerance = max((torch.finfo(dtype).eps for dtype in floating), default=0.0) ** 0.5
    for one, other in zip(found, expected, strict=True):
        same = (one == other) | (one.isnan() & other.isnan())
        near = same
        if floating and other.is_floating_point():
            near = (one - other).abs() <= tolerance * (1 + other.abs())
        if not bool((same | near).all()):
            raise CannotCapture("a replay differs from the ordinary run by more than round-off")
