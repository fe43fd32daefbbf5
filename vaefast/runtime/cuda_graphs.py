"""Capturing on CUDA: warm-up on a side stream, capture into a private pool, undoing a failure."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import torch
from torch import Tensor

from vaefast.runtime.capture import CannotCapture

__all__ = ["CudaCapturer"]

Outputs = tuple[Tensor, ...]

_one_at_a_time = threading.RLock()
_failed: list[torch.cuda.CUDAGraph] = []  # torch before 2.13 keeps pointers to them


class CudaCapturer:
    """Captures on one GPU.

    Other threads may go on launching kernels and copies: a capture minds its own thread only, runs
    on a stream that nothing else uses, and one capture here waits for another. They may not wait
    for the whole device: while one thread captures, CUDA refuses ``torch.cuda.synchronize()`` in
    all, and may end the capture for it; the function then runs eagerly. A capture that another
    thread makes by itself may be ended by the ``synchronize`` before each capture here.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._captured = False
        self._take_pool()

    def new_pool(self) -> None:
        self._take_pool()
        if self._captured:
            self._captured = False
            self._return_memory()

    def _take_pool(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def _return_memory(self) -> None:
        """To the device: torch keeps a dead graph's memory apart until the cache is emptied.

        A pool that outlives its graphs would not do: it never shrinks, and shapes differ.
        """
        # may find another thread capturing, or an error of the caller's that is to be raised there
        with _one_at_a_time, suppress(RuntimeError):
            torch.cuda.current_stream(self.device).synchronize()  # not all memory waits for replays
            torch.cuda.empty_cache()

    def rehearse(self, run: Callable[[], Outputs]) -> Outputs:
        with _one_at_a_time, self._beside(), _waits() as found:
            results = run()
        results = tuple(t.clone() for t in results)  # on the caller's stream, like any result
        torch.cuda.current_stream(self.device).synchronize()  # another thread may be capturing
        if found:
            raise CannotCapture(f"it waits for the GPU at {found[0]}")
        return results

    def capture(self, run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        with _one_at_a_time, _no_garbage_collection():
            torch.cuda.synchronize(self.device)
            with self._beside():
                return self._capture(run)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """On the side stream, after all that was asked for before, and before all that follows."""
        with torch.cuda.device(self.device):
            current, side = torch.cuda.current_stream(), _side_stream(self.device)
            side.wait_stream(current)
            try:
                with torch.cuda.stream(side):
                    yield
            finally:
                current.wait_stream(side)

    def _capture(self, run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        graph = torch.cuda.CUDAGraph()
        try:
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            outputs = run()
            graph.capture_end()
        except BaseException:
            self._abandon(graph)
            raise
        self._captured = True
        return graph.replay, outputs

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture that failed; torch before 2.13 does it by halves.

        Left to itself it goes on sending allocations to the pool and takes the random generator
        for captured. The next capture that succeeds puts the generator right.
        """
        try:
            graph.capture_end()
        except Exception:
            _failed.append(graph)
            with suppress(Exception):
                torch._C._cuda_endAllocateToPool(self.device.index, self._pool)
            self._take_pool()
            with suppress(Exception):
                empty, value = (
                    torch.cuda.CUDAGraph(),
                    torch.zeros(1, device=self.device, dtype=torch.float32),
                )
                empty.capture_begin(capture_error_mode="thread_local")
                value.zero_()
                empty.capture_end()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: the libraries keep a workspace for every stream they have seen."""
    return torch.cuda.Stream(device)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection might destroy another graph, which is no work for a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _waits() -> Iterator[list[str]]:
    """Collects where the run waits for the GPU: there a capture would fail."""
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode(max(before, 1))
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        text = str(warning.message)
        if "synchronizing CUDA operation" in text:
            found.append(f"{warning.filename}:{warning.lineno}")
        elif not text.startswith("Synchronization debug mode"):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
