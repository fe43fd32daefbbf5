"""Which transitions run in one call, and which of them are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.chain import Chain, kept
from vaefast.hmc.options import Options
from vaefast.hmc.windows import window, windows
from vaefast.runtime import memory

__all__ = ["Span", "kept_draws", "op_thin", "passed_draws", "spans"]

SEGMENTS = 50  # calls of a run that a progress bar is shown for


class Span(NamedTuple):
    """Some transitions that a target runs in one call."""

    first_step: int
    steps: int
    thin: int = 0  # as the op takes it: transitions k·thin − 1 are kept, none with 0
    keeps_end: bool = False  # the state after them is a draw
    ends_window: bool = False  # a mass is learnt after them

    @property
    def end(self) -> int:
        return self.first_step + self.steps


def spans(options: Options, *, thin: int, shown: bool) -> list[Span]:
    """The warm-up and what is kept: one call each, more only for a progress bar or to keep states.

    The draws wanted are the states after transitions ``transitions − k·options.thin``.

    Args:
        thin: that of the op, from :func:`op_thin`; 0 ends a call at every state that is kept.
        shown: whether a progress bar moves between the calls.
    """
    longest = max(1, options.steps // SEGMENTS) if shown else options.transitions
    warm = list(_warm(options, longest))
    if thin:
        return warm + [
            Span(*cut, thin) for cut in _cut(options.warmup, options.transitions, longest)
        ]
    first = options.transitions - (options.kept - 1) * options.thin  # end of the first kept one
    ends = [options.warmup, *range(first, options.transitions + 1, options.thin)]
    for begin, end in pairwise(ends):
        cuts = list(_cut(begin, end, longest))
        warm += [Span(*cut, keeps_end=sum(cut) == end) for cut in cuts]
    return warm


def _warm(options: Options, longest: int) -> Iterator[Span]:
    """The warm-up, cut at the windows that a mass is learnt from; their draws are all passed."""
    which = windows if options.mass == "warmup" else window
    learns = which(options.warmup) if options.adapts_mass else []
    edges = sorted({0, options.warmup, *(edge for window in learns for edge in window)})
    for begin, end in pairwise(edges):
        thin = int(any(first <= begin < last for first, last in learns))
        for first, steps in _cut(begin, end, longest):
            yield Span(first, steps, thin, ends_window=thin == 1 and first + steps == end)


def _cut(begin: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """(first, number) of consecutive transitions, ``longest`` at a time."""
    for first in range(begin, end, longest):
        yield first, min(longest, end - first)


def op_thin(options: Options, rows: int, bytes_per_draw: int) -> int:
    """The op's own ``thin`` with which one call keeps every wanted draw, or 0 for one call each.

    The op keeps transitions by their index, so it may have to keep more than is wanted: those at
    multiples of the greatest common divisor of their distance and the last one's index plus one.
    At most twice as many, or as many as fit the memory budget, are worth the one call.

    Args:
        rows: N, chains of the whole call.
        bytes_per_draw: of one draw's z and energy.
    """
    if options.kept == 1:
        return 0
    thin = math.gcd(options.thin, options.transitions)
    fits = rows * passed_draws(options, thin) <= memory.rows_within(bytes_per_draw)
    return thin if thin == options.thin or fits else 0


def passed_draws(options: Options, thin: int) -> int:
    """How many draws of a chain a call holds, those that are wanted among them."""
    return kept(options.warmup, options.steps, thin) if thin else options.kept


def kept_draws(options: Options, parts: Sequence[tuple[Span, Chain]]) -> tuple[Tensor, Tensor]:
    """The wanted draws [N, T, d] and energies [N, T] of all spans after the warm-up."""
    pieces = [
        (part.z[:, None], part.U[:, None]) if span.keeps_end else (part.draws, part.energies)
        for span, part in parts
    ]
    z, U = pieces[0] if len(pieces) == 1 else (torch.cat(values, 1) for values in zip(*pieces))
    stride = options.thin // (parts[-1][0].thin or options.thin)
    first = z.shape[1] - 1 - (options.kept - 1) * stride
    return z[:, first::stride], U[:, first::stride]
