"""Counter-based random numbers: Philox 4x32-10, the same integers on every backend.

A draw is a pure function of (seed, step, index, lane, use, element), so a row's numbers do not
depend on the batch it stands in, on where the batch was cut, or on the device.

    key     = (seed bits 0-31, seed bits 32-63)
    counter = (element // 4, step, index bits 0-31, use << 24 | lane << 12 | index bits 32-43)

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate
from numbers import Integral
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Draw",
    "Use",
    "as_normal",
    "as_uniform",
    "check_seed",
    "integers",
    "normal",
    "seed_apart",
    "together",
    "uniform",
]

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
SEED_STRIDE = 0x9E3779B97F4A7C15  # 2⁶⁴ / golden ratio: no seed that a user counts up to is met
MAX_INDEX = 1 << 44
MAX_LANE = 1 << 12
VERY_FEW = 12  # counters for which numpy's operations take longer than Python's
FEW = 1 << 12  # counters for which numpy's smaller overhead counts for more than torch's threads

T = TypeVar("T", Tensor, np.ndarray, int)


class Use(IntEnum):
    """What a random number is for; two uses never share a counter. The values never change."""

    MOMENTUM = 1
    ACCEPT = 2
    JITTER = 3
    LATENT = 4
    INITIAL = 5
    START = 6
    RADIUS = 7
    DAMAGE = 8
    FRESH = 9
    PROBE = 10
    POSTERIOR = 11
    MARGIN = 12
    PILOT = 13
    ANCHOR = 14


def check_seed(seed: int) -> int:
    """A whole number that 64 bits hold, signed or unsigned.

    Raises:
        TypeError: not a whole number.
        ValueError: outside [−2⁶³, 2⁶⁴).
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be a whole number, got {type(seed).__name__}")
    if not -(1 << 63) <= seed < 1 << 64:
        raise ValueError(f"seed must lie in [-2**63, 2**64), got {seed}")
    return int(seed)


def seed_apart(seed: int, which: int) -> int:
    """A seed for draws that must not be those of ``seed``; 0 leaves it, and each number differs."""
    return (check_seed(seed) + which * SEED_STRIDE) % (1 << 64)


class Draw(NamedTuple):
    """Some numbers of every row, that differ from those of another draw.

    Args:
        numbers: how many per row.
        use: a member of :class:`Use`.
        lane: chain, restart or probe, below 2¹²; int or [N] int64.
    """

    numbers: int
    use: int
    lane: int | Tensor = 0


def integers(
    count: int,
    *,
    seed: int,
    index: Tensor,
    step: int | Tensor = 0,
    lane: int | Tensor = 0,
    use: int,
) -> Tensor:
    """``count`` 32-bit integers per row.

    Args:
        count: integers per row.
        seed: 64-bit seed; negative seeds are taken modulo 2⁶⁴.
        index: [N] int64, the global number of each row's input, below 2⁴⁴.
        step: step, transition or sample number, below 2³²; int, or int64 [N] or [] (one for all
            rows, which a capture can be given anew).
        lane: chain, restart or probe, below 2¹²; int or [N] int64.
        use: a member of :class:`Use`.

    Returns:
        [N, count] int64 with values in [0, 2³²), on ``index.device``.

    Raises:
        ValueError: ``lane`` is an int outside its range.
    """
    (found,) = together([Draw(count, use, lane)], seed=seed, index=index, step=step)
    return found


def together(
    draws: Sequence[Draw], *, seed: int, index: Tensor, step: int | Tensor = 0
) -> list[Tensor]:
    """The :func:`integers` of several draws, [N, count] each, in one run of the cipher.

    The cipher is a hundred small operations, whatever the number of integers.
    """
    if _is_few(draws, index, step):
        counters = len(index) * sum([(draw.numbers + 3) // 4 for draw in draws])
        run = _together_very_few if 0 < counters <= VERY_FEW else _together_few
        return run(draws, seed, index, step)
    words = [_counter(draw, index, step) for draw in draws]
    joined = words[0]
    if len(words) > 1:
        joined = tuple(torch.cat(word, dim=-1) for word in zip(*words))
    bits = _philox(joined, (seed & MASK, (seed >> 32) & MASK))
    parts = zip(*(word.split([w[0].shape[-1] for w in words], dim=-1) for word in bits))
    return [
        torch.stack(part, dim=-1).flatten(-2)[..., : draw.numbers]  # [N, count]
        for draw, part in zip(draws, parts)
    ]


def uniform(
    count: int,
    *,
    seed: int,
    index: Tensor,
    step: int | Tensor = 0,
    lane: int | Tensor = 0,
    use: int,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """``count`` uniforms (k + ½)·2⁻³² per row, in the open interval (0, 1); float64 exactly.

    Arguments as :func:`integers`. Returns [N, count] of ``dtype``; a narrower ``dtype`` rounds,
    so that the largest values become 1.
    """
    k = integers(count, seed=seed, index=index, step=step, lane=lane, use=use)
    return as_uniform(k).to(dtype)


def normal(
    count: int,
    *,
    seed: int,
    index: Tensor,
    step: int | Tensor = 0,
    lane: int | Tensor = 0,
    use: int,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """``count`` standard normals per row, by Box-Muller on the uniform pairs (0, 1) and (2, 3).

    Each pair (u, v) gives √(−2 log u)·cos 2πv and √(−2 log u)·sin 2πv, computed in float64.
    Arguments as :func:`integers`. Returns [N, count] of ``dtype``.
    """
    k = integers(count + count % 2, seed=seed, index=index, step=step, lane=lane, use=use)
    return as_normal(k)[..., :count].to(dtype)


def as_uniform(k: Tensor) -> Tensor:
    """The float64 uniforms that :func:`uniform` makes of integers, of any shape."""
    return (k.double() + 0.5) * 2.0**-32


def as_normal(k: Tensor) -> Tensor:
    """The float64 normals that :func:`normal` makes of integers, an even number a row."""
    pairs = as_uniform(k)
    radius = torch.sqrt(-2.0 * torch.log(pairs[..., 0::2]))
    angle = (2.0 * math.pi) * pairs[..., 1::2]
    both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return both.flatten(-2)


def _counter(draw: Draw, index: Tensor, step: int | Tensor) -> tuple[Tensor, ...]:
    """The four words [N, blocks] of every counter; no int is copied to the device."""
    lane = _checked(draw.lane)
    element = torch.arange((draw.numbers + 3) // 4, device=index.device)
    if isinstance(step, Tensor):
        step = step.to(index.device) & MASK
    else:
        step = torch.full((), int(step) & MASK, dtype=torch.int64, device=index.device)
    if isinstance(lane, Tensor):
        last = (index >> 32) | (lane.to(index.device) << 12) | (int(draw.use) << 24)
    else:
        last = (index >> 32) | (int(draw.use) << 24 | int(lane) << 12)
    return tuple(
        torch.broadcast_tensors(
            element, step.unsqueeze(-1), (index & MASK).unsqueeze(-1), last.unsqueeze(-1)
        )
    )


def _is_few(draws: Sequence[Draw], index: Tensor, step: int | Tensor) -> bool:
    """Whether numpy makes the integers: few, of plain tensors on the CPU, and nothing traces."""
    tensors = [t for t in (index, step, *(d.lane for d in draws)) if isinstance(t, Tensor)]
    for t in tensors:
        if type(t) is not Tensor or t.device.type != "cpu":
            return False
    if index.ndim != 1 or len(index) * sum(draw.numbers for draw in draws) > 4 * FEW:
        return False
    return not (torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack())


def _together_few(
    draws: Sequence[Draw], seed: int, index: Tensor, step: int | Tensor
) -> list[Tensor]:
    """As :func:`together`, in numpy, whose operations on few numbers take a third of the time."""
    ends = [*accumulate(((draw.numbers + 3) // 4 for draw in draws), initial=0)]
    rows, words = index.numpy(), np.empty((4, len(index), ends[-1]), dtype=np.int64)
    words[1] = step.numpy().reshape(-1, 1) & MASK if isinstance(step, Tensor) else int(step) & MASK
    words[2] = (rows & MASK)[:, None]
    for draw, start, end in zip(draws, ends, ends[1:]):
        given = _checked(draw.lane)
        lane = given.numpy() if isinstance(given, Tensor) else int(given)
        words[0, :, start:end] = np.arange(end - start)
        words[3, :, start:end] = ((rows >> 32) | (lane << 12) | (int(draw.use) << 24))[:, None]
    bits = np.stack(_philox(tuple(words), (seed & MASK, (seed >> 32) & MASK)), axis=-1)
    flat = torch.from_numpy(bits.reshape(len(index), 4 * ends[-1]))
    return [flat[:, 4 * start : 4 * start + draw.numbers] for draw, start in zip(draws, ends)]


def _together_very_few(
    draws: Sequence[Draw], seed: int, index: Tensor, step: int | Tensor
) -> list[Tensor]:
    """As :func:`together`, in Python's own integers."""
    rows, key = index.tolist(), (seed & MASK, (seed >> 32) & MASK)
    steps, found = _per_row(step, len(rows)), []
    for draw in draws:
        bits = [
            _philox((e, t & MASK, i & MASK, i >> 32 | lane << 12 | int(draw.use) << 24), key)
            for i, t, lane in zip(rows, steps, _per_row(_checked(draw.lane), len(rows)))
            for e in range((draw.numbers + 3) // 4)
        ]
        words = torch.tensor(bits, dtype=torch.int64, device="cpu")
        found.append(words.view(len(rows), -1)[:, : draw.numbers])
    return found


def _per_row(value: int | Tensor, rows: int) -> list[int]:
    given = value.reshape(-1).tolist() if isinstance(value, Tensor) else [int(value)]
    return given if len(given) == rows else given * rows


def _checked(lane: int | Tensor) -> int | Tensor:
    if isinstance(lane, int) and not 0 <= lane < MAX_LANE:
        raise ValueError(f"lane must lie in [0, {MAX_LANE}), got {lane}")
    return lane


def _philox(counter: tuple[T, ...], key: tuple[int, int]) -> tuple[T, ...]:
    """The cipher's rounds on four words: int64 arrays or tensors, or Python's integers.

    A tensor's product wraps modulo 2⁶⁴, so its bits are those of the exact one; what stands above
    the low 32 bits of a word is cut when the word is next multiplied, or at the end.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0 = ((second >> 32) ^ c1 ^ k0) & MASK
        c2 = ((first >> 32) ^ c3 ^ k1) & MASK
        c1, c3 = second, first
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1 & MASK, c2, c3 & MASK
