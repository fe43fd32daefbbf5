"""The order of the calls that a capture is made of, on a stand-in for CUDA."""

import gc
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import torch

from vaefast.runtime import cuda_graphs
from vaefast.runtime.capture import CannotCapture
from vaefast.runtime.cuda_graphs import CudaCapturer


class Stream:
    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self):
        self.log.append(f"wait for {self.name}")


class Graph:
    """A capture; ``broken`` ones cannot be ended."""

    log: list
    broken = False

    def capture_begin(self, pool=None, capture_error_mode="global"):
        assert capture_error_mode == "thread_local"
        self.log.append("begin" if pool else "begin empty")
        self.breaks = Graph.broken and bool(pool)

    def capture_end(self):
        self.log.append("end")
        if self.breaks:
            raise RuntimeError("operation failed due to a previous error during capture")

    def replay(self):
        self.log.append("replay")


@pytest.fixture
def log(monkeypatch):
    calls, mode = [], [0]
    current, side = Stream("current", calls), Stream("side", calls)
    pools = iter(range(1, 100))

    @contextmanager
    def stream(which):
        calls.append(f"on {which.name}")
        try:
            yield
        finally:
            calls.append(f"off {which.name}")

    def set_mode(value):
        mode[0] = value
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    monkeypatch.setattr(Graph, "log", calls, raising=False)
    monkeypatch.setattr(Graph, "broken", False)
    monkeypatch.setattr(cuda_graphs, "_failed", [])
    monkeypatch.setattr(cuda_graphs, "_side_stream", lambda device: side)
    stand_ins = {
        "CUDAGraph": Graph,
        "graph_pool_handle": lambda: (0, next(pools)),
        "synchronize": lambda device: calls.append("synchronize"),
        "empty_cache": lambda: calls.append("empty cache"),
        "current_stream": lambda device=None: current,
        "device": lambda device: nullcontext(),
        "stream": stream,
        "get_sync_debug_mode": lambda: mode[0],
        "set_sync_debug_mode": set_mode,
    }
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(
        torch._C,
        "_cuda_endAllocateToPool",
        lambda device, pool: calls.append(f"end pool {pool[1]}"),
        raising=False,
    )
    return calls


DEVICE = torch.device("cpu")  # torch.zeros must work on it


def test_a_capture_runs_beside_the_callers_stream(log):
    def run():
        log.append("run")
        assert not gc.isenabled()
        return (torch.ones(2),)

    replay, outputs = CudaCapturer(DEVICE).capture(run)
    replay()
    assert log == [
        "synchronize",
        "side waits for current",
        "on side",
        "begin",
        "run",
        "end",
        "off side",
        "current waits for side",
        "replay",
    ]
    assert torch.equal(outputs[0], torch.ones(2))
    assert gc.isenabled()


@pytest.mark.parametrize("broken", [False, True])
def test_a_failed_capture_is_undone(log, broken, monkeypatch):
    """``broken``: CUDA has invalidated the capture too, as after a wait for the GPU."""
    monkeypatch.setattr(Graph, "broken", broken)

    def run():
        raise RuntimeError("operation not permitted when stream is capturing")

    capturer = CudaCapturer(DEVICE)
    with pytest.raises(RuntimeError, match="not permitted"):
        capturer.capture(run)
    undone = ["end pool 1", "begin empty", "end"] if broken else []
    assert log[3:] == ["begin", "end", *undone, "off side", "current waits for side"]
    assert capturer._pool == ((0, 2) if broken else (0, 1))
    assert len(cuda_graphs._failed) == broken
    assert gc.isenabled()
    capturer.new_pool()
    assert "empty cache" not in log  # which holds nothing of ours


def test_a_run_that_waits_for_the_gpu_is_not_captured(log):
    def run():
        assert torch.cuda.get_sync_debug_mode() == 1
        warnings.warn_explicit(
            "called a synchronizing CUDA operation (Triggered internally ...)",
            UserWarning,
            "model.py",
            7,
        )
        warnings.warn("the module's own", stacklevel=1)
        return (torch.ones(2),)

    with (
        pytest.warns(UserWarning, match="the module's own") as caught,
        pytest.raises(CannotCapture, match=r"it waits for the GPU at model.py:7"),
    ):
        CudaCapturer(DEVICE).rehearse(run)
    assert len(caught) == 1
    assert torch.cuda.get_sync_debug_mode() == 0


def test_a_rehearsal_gives_the_results(log):
    (found,) = CudaCapturer(DEVICE).rehearse(lambda: (torch.ones(2),))
    assert torch.equal(found, torch.ones(2))
    assert "begin" not in log


def test_a_rehearsal_does_not_wait_for_other_threads_streams(log):
    CudaCapturer(DEVICE).rehearse(lambda: (torch.ones(2),))
    assert log[-1] == "wait for current"
    assert "synchronize" not in log


def test_memory_of_captures_returns_once_with_their_pool(log):
    capturer = CudaCapturer(DEVICE)
    capturer.new_pool()
    assert not log
    capturer.capture(lambda: (torch.ones(2),))
    log.clear()
    pool = capturer._pool
    capturer.new_pool()
    assert capturer._pool != pool
    capturer.new_pool()
    assert log == ["wait for current", "empty cache"]


def test_memory_that_cannot_return_now_is_no_error(log, monkeypatch):
    """The cache cannot be emptied while the user captures in another thread."""

    def refused():
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "empty_cache", refused)
    capturer = CudaCapturer(DEVICE)
    capturer.capture(lambda: (torch.ones(2),))
    capturer.new_pool()
    assert capturer._pool == (0, 2)
