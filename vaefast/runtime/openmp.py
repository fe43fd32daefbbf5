"""The OpenMP runtimes of the process: fewer threads for a while, and forks that do not hang.

A child of ``os.fork`` has none of its parent's threads, but an OpenMP runtime waits for them in its
first parallel region, for ever, in our kernels as in PyTorch's own. So a thread's idle OpenMP
threads end before it forks, which takes a millisecond; both sides start new ones when they need
some. A runtime that cannot do that (libgomp before GCC 9) leaves the child with one thread.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

__all__ = ["at_most", "lost_threads", "runtimes"]

LIBRARY = re.compile(r"/(lib(?:g|i|)omp[^/\s]*\.so[^/\s]*|libomp[^/\s]*\.dylib)")
SOFT = 1  # omp_pause_soft: settings stay

_ended = True  # before the last fork
_lost = False


def runtimes() -> list[str]:
    """The OpenMP libraries that this process has loaded (Linux; empty elsewhere)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {line.split()[-1] for line in maps.read_text().splitlines() if LIBRARY.search(line)}
    return sorted({str(Path(path).resolve()) for path in paths})


@contextmanager
def at_most(number: int) -> Iterator[None]:
    """So many threads inside for the libraries that this Python thread calls; others keep theirs.

    ``torch.set_num_threads`` would also set what threads that start meanwhile begin with, and keep.
    It is used where no OpenMP runtime is found.
    """
    before = torch.get_num_threads()
    if before <= number:
        yield
        return
    restore = _set(number)
    try:
        yield
    finally:
        restore(before)


def _set(number: int) -> Callable[[int], None]:
    """Set this thread's number; a function that sets it back."""
    setters, mkl = _setters(), _mkl()
    for set_number in setters:
        set_number(number)
    if torch.get_num_threads() != number:  # torch's runtime is none of these
        torch.set_num_threads(number)
        return torch.set_num_threads
    of_mkl = mkl(number) if mkl else 0

    def restore(before: int) -> None:
        for set_number in setters:
            set_number(before)
        if mkl:
            mkl(of_mkl)

    return restore


@cache
def _setters() -> tuple[Callable[[int], object], ...]:
    """Of the calling thread's own number, one per runtime."""
    return tuple(ctypes.PyDLL(path).omp_set_num_threads for path in runtimes())


@cache
def _mkl() -> Callable[[int], int] | None:
    """MKL's setter for the calling thread, which returns the number before; None without MKL."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        found: Callable[[int], int] = ctypes.PyDLL(str(library)).MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):
        return None
    return found


def lost_threads() -> bool:
    """Whether this process was forked from one whose OpenMP threads could not end first."""
    return _lost


def _before_fork() -> None:
    global _ended
    _ended = not _lost and all(map(_end_threads, runtimes()))


def _end_threads(path: str) -> bool:
    """End this thread's idle threads of a runtime; whether it could."""
    try:
        return bool(ctypes.PyDLL(path).omp_pause_resource_all(SOFT) == 0)
    except (OSError, AttributeError):
        return False


def _after_fork_in_child() -> None:
    global _lost
    if not _ended:
        _lost = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
