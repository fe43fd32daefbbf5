"""How the rows of models that run as modules are cut: as they come, or in blocks of one shape.

A model that does not lower to the fused ops is given the rows as they come, in one batch (cut to
the memory budget), with all of torch's threads: a row's numbers are then equal to round-off for any
cut. A library's convolution or matrix product may round a row differently in another batch: with
the number of rows, the row's place among them, and the number of threads. Inside ``same_bits``, or
after ``set_block``, rows therefore stand in blocks: a row with global number ``index`` stands at
place ``index % block`` of block ``index // block``, the places that the batch leaves empty are
filled with copies of one of its rows, and one thread works on it. Everything that a function does
to such rows happens in their block; the chains, restarts or samples of an input count as rows and
stay together. A lone row so costs as much as a full block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.runtime import backends, memory, openmp, tiles

__all__ = [
    "PaddedBatch",
    "Rows",
    "described",
    "evaluate",
    "in_blocks",
    "pinned",
    "reproducible",
    "row_blocks",
    "same_bits",
    "set_block",
    "weakest",
]

ORDER = ("bits", "blocks", "round-off")  # strongest first
BLOCK = 64  # rows, of :func:`same_bits`

Rows = slice | Tensor  # of a batch: consecutive ones, or [n] int64

_block: int | None = None  # of the process
_within: ContextVar[int | None] = ContextVar("vaefast_block", default=None)  # before the process's


class PaddedBatch(NamedTuple):
    """Some rows that are evaluated together.

    Args:
        gather: rows of the batch, one for every position; an empty position holds a copy.
        rows: the rows that these are.
        positions: where they stand.
        size: number of positions.
    """

    gather: Rows
    rows: Rows
    positions: Rows
    size: int


def set_block(rows: int | None) -> None:
    """Evaluate models that do not lower to the fused ops on so many rows at a time, from now on.

    A row's bits are then the same for any cut of the batch as long as the block is, and results
    say ``reproducible="blocks"``; one thread works on a block, whose empty places hold copies. With
    1 every row is evaluated by itself: cheapest for lone inputs. For a while: :func:`same_bits`.

    Args:
        rows: a power of two, at most 4096; None (the default) takes the rows as they come, on all
            threads, and results say ``reproducible="round-off"``.

    Raises:
        ValueError: anything else.
    """
    global _block
    _block = None if rows is None else _checked(rows)


@contextmanager
def same_bits(block: int = BLOCK) -> Iterator[None]:
    """Inside, a row's bits do not depend on the batch that it stands in, whatever the model.

    As ``set_block(block)``, for this thread or task alone (a thread that starts inside has none of
    it). The innermost of nested ones holds. Lowered networks have this promise without it.

    Args:
        block: rows that a module is evaluated on at a time, a power of two, at most 4096.

    Raises:
        ValueError: anything else.
    """
    token = _within.set(_checked(block))
    try:
        yield
    finally:
        _within.reset(token)


def _checked(rows: int) -> int:
    whole = isinstance(rows, int) and not isinstance(rows, bool)
    if not (whole and 1 <= rows <= 4096 and rows & (rows - 1) == 0):
        raise ValueError(f"rows must be a power of two up to 4096 or None, got {rows!r}")
    return rows


def _size() -> int | None:
    """Rows of a block here and now; None where rows are taken as they come."""
    return _within.get() or _block


def in_blocks() -> bool:
    """Whether modules are evaluated in blocks here and now."""
    return _size() is not None


def described() -> str:
    """How modules are evaluated now, for a reader."""
    size = _size()
    if size is None:
        return (
            "modules take the rows as they come: equal to round-off for any cut of a batch "
            "(the same bits: with vaefast.same_bits())"
        )
    return (
        f"modules take {size} rows at a time on one thread, a partial block filled with copies: "
        f"the same bits for any cut, a lone row up to {size} times its work (vaefast.set_block)"
    )


def reproducible(
    generic: bool, ops: Sequence[str], like: Tensor, backend: str | None = None
) -> str:
    """How far a row's numbers repeat when the batch is cut differently.

    Args:
        generic: some part was evaluated as a module.
        ops: the registered ops that everything else went through.
        like: a tensor of their dtype and device.
        backend: as given to them.

    Returns:
        "bits": always; "blocks": on the same kind of machine and versions, with the same block and
        memory budget; "round-off" otherwise: for modules without blocks, on the reference, on a GPU
        without a pinned tile (``vaefast.set_tile``), and for modules there, whose libraries may add
        in any order.
    """
    if generic:
        return "blocks" if _size() and like.device.type == "cpu" else "round-off"
    chosen = {backends.resolve(op, backend, like) for op in ops}
    free = "triton" in chosen and not tiles.pinned()
    return "round-off" if "reference" in chosen or free else "bits"


def weakest(*promises: str) -> str:
    """What holds where several parts make up a result."""
    return max(promises, key=ORDER.index)


@contextmanager
def pinned(generic: bool) -> Iterator[None]:
    """One thread inside, on every machine, where modules are evaluated in blocks."""
    with openmp.at_most(1) if generic and _size() else nullcontext():
        yield


def row_blocks(
    index: Tensor, bytes_per_row: int, *, generic: bool, width: int = 1
) -> Iterator[PaddedBatch]:
    """The rows of a batch in blocks within the memory budget.

    Args:
        index: [B] int64, their global numbers.
        bytes_per_row: what one row takes.
        generic: whether some part is evaluated as a module; outside of blocks, and else, the rows
            come in order, as many at a time as fit. A smaller budget makes smaller blocks, the same
            for any cut.
        width: rows that the model sees for each of these (chains, restarts, samples); they stay
            together, and a block has so many fewer rows.
    """
    size = _size()
    if not (generic and size):
        for rows in memory.row_chunks(len(index), bytes_per_row):
            yield PaddedBatch(rows, rows, slice(None), rows.stop - rows.start)
        return
    most = max(1, min(size // max(width, 1), memory.rows_within(bytes_per_row)))
    yield from _aligned(index, 1 << (most.bit_length() - 1))


def _aligned(index: Tensor, size: int) -> Iterator[PaddedBatch]:
    if not len(index):
        return
    number = torch.div(index, size, rounding_mode="floor")
    keys = torch.stack((_occurrence(index), number), dim=1)  # twice the same place: twice a block
    _, block, counts = torch.unique(keys, dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(block, stable=True)
    for rows in order.split(counts.tolist()):
        positions = index[rows] % size
        gather = rows[:1].repeat(size)
        gather[positions] = rows
        yield PaddedBatch(gather, rows, positions, size)


def _occurrence(index: Tensor) -> Tensor:
    """How many earlier rows have the same number, [B]."""
    order = torch.argsort(index, stable=True)
    _, counts = torch.unique_consecutive(index[order], return_counts=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    result = torch.empty_like(index)
    result[order] = torch.arange(len(index), device=index.device) - first
    return result


def evaluate(
    run: Callable[[Rows], tuple[Tensor, ...]],
    index: Tensor,
    bytes_per_row: int,
    *,
    generic: bool,
    width: int = 1,
) -> tuple[Tensor, ...]:
    """``run`` over all rows, block by block, its results [n, ...] put together."""
    with pinned(generic):
        results: tuple[Tensor, ...] | None = None
        for block in row_blocks(index, bytes_per_row, generic=generic, width=width):
            pieces = run(block.gather)
            if results is None:
                if block.size == len(index) and isinstance(block.rows, slice):
                    return pieces
                results = tuple(p.new_empty((len(index), *p.shape[1:])) for p in pieces)
            for result, piece in zip(results, pieces):
                result[block.rows] = piece[block.positions]
        return run(slice(0, 0)) if results is None else results
