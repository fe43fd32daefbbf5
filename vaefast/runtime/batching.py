"""Rows in blocks of one shape, so that a library's products give a row one set of bits.

A library's convolution or matrix product may round a row differently in another batch: with the
number of rows, the row's place among them, and the number of threads. So a model that does not
lower to the fused ops is evaluated in blocks: a row with global number ``index`` stands at place
``index % block`` of block ``index // block``, the places that the batch leaves empty are filled
with copies of one of its rows, and one thread works on it. Everything that a function does to such
rows happens in their block; the chains, restarts or samples of an input count as rows and stay
together. A lone row so costs as much as a full block, up to 64 times its own work; ``set_block``
makes blocks smaller, or does without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.runtime import backends, memory, openmp, tiles

__all__ = [
    "PaddedBatch",
    "Rows",
    "described",
    "evaluate",
    "pinned",
    "reproducible",
    "row_blocks",
    "set_block",
    "weakest",
]

ORDER = ("bits", "blocks", "round-off")  # strongest first

Rows = slice | Tensor  # of a batch: consecutive ones, or [n] int64

_block: int | None = 64


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
    """Set how many rows models that do not lower to the fused ops are evaluated on at a time.

    A row's bits are the same for any cut of the batch as long as the block is. With 1 every row
    is evaluated by itself: cheapest for lone inputs. None evaluates the rows as they come, without
    copies and on all threads; results then say ``reproducible="round-off"``.

    Args:
        rows: a power of two, at most 4096 (default 64), or None.

    Raises:
        ValueError: anything else.
    """
    global _block
    whole = isinstance(rows, int) and not isinstance(rows, bool)
    if rows is not None and not (whole and 1 <= rows <= 4096 and rows & (rows - 1) == 0):
        raise ValueError(f"rows must be a power of two up to 4096 or None, got {rows!r}")
    _block = rows


def described() -> str:
    """How modules are evaluated now, for a reader."""
    if _block is None:
        return "modules take the rows as they come: equal to round-off for any cut of a batch"
    return (
        f"modules take {_block} rows at a time on one thread, a partial block filled with copies: "
        f"the same bits for any cut, a lone row up to {_block} times its work (vaefast.set_block)"
    )


def reproducible(
    generic: bool, ops: Sequence[str], like: Tensor, backend: str | None = None
) -> str:
    """How far a row's numbers repeat when the batch is cut differently.

    Args:
        generic: some part was evaluated as a module, in blocks.
        ops: the registered ops that everything else went through.
        like: a tensor of their dtype and device.
        backend: as given to them.

    Returns:
        "bits": always; "blocks": on the same kind of machine and versions, with the same block and
        memory budget; "round-off" otherwise: on the reference, without blocks, on a GPU without a
        pinned tile (``vaefast.set_tile``), and for modules there, whose libraries may add in any
        order.
    """
    if generic:
        return "blocks" if _block and like.device.type == "cpu" else "round-off"
    chosen = {backends.resolve(op, backend, like) for op in ops}
    free = "triton" in chosen and not tiles.pinned()
    return "round-off" if "reference" in chosen or free else "bits"


def weakest(*promises: str) -> str:
    """What holds where several parts make up a result."""
    return max(promises, key=ORDER.index)


@contextmanager
def pinned(generic: bool) -> Iterator[None]:
    """One thread inside, on every machine, where modules are evaluated in blocks."""
    with openmp.at_most(1) if generic and _block else nullcontext():
        yield


def row_blocks(
    index: Tensor, bytes_per_row: int, *, generic: bool, width: int = 1
) -> Iterator[PaddedBatch]:
    """The rows of a batch in blocks within the memory budget.

    Args:
        index: [B] int64, their global numbers.
        bytes_per_row: what one row takes.
        generic: whether the model needs blocks of one shape; else the rows come in order, as many
            at a time as fit. A smaller budget makes smaller blocks, the same for any cut.
        width: rows that the model sees for each of these (chains, restarts, samples); they stay
            together, and a block has so many fewer rows.
    """
    if not (generic and _block):
        for rows in memory.row_chunks(len(index), bytes_per_row):
            yield PaddedBatch(rows, rows, slice(None), rows.stop - rows.start)
        return
    most = max(1, min(_block // max(width, 1), memory.rows_within(bytes_per_row)))
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
