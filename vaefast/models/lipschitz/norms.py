"""Upper bounds of spectral norms, rounding included: of a matrix, of a convolution, of a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaefast.functional.layers import apply
from vaefast.models.lipschitz.kept import kept
from vaefast.types import WEIGHTED, Layer

__all__ = ["UP", "convolution_bound", "layer_bound", "matrix_bound"]

UNIT = 2.0**-53
UP = 1.0 + 2.0**-40  # more than the rounding of some dozens of scalar operations
TINY = 2.0**-500
CLOSE, POWERS = 2.0**-30, 30  # how far a square may be above the largest; steps towards that
GRID = 16  # frequencies per axis and degree: 1 % above the supremum
DENSE, SIDE = 1 << 22, 1024  # entries and shorter side of a layer that is bounded as a matrix


@kept
def matrix_bound(weight: Tensor) -> float:
    """At least ‖W‖₂ of a matrix as its entries are, some 2e-9 above it; NaN if one is not finite.

    Computed in float64, scaled by a power of two, so that no square overflows or vanishes.
    """
    w = weight.detach().double().cpu()
    largest = float(w.abs().max()) if w.numel() else 0.0
    if largest == 0.0 or not math.isfinite(largest):
        return largest if largest == 0.0 else math.nan
    size = 2.0 ** math.frexp(largest)[1]
    return math.sqrt(_largest_square((w / size)[None])) * size * UP


@kept
def convolution_bound(
    weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> float:
    """At least the norm of the convolution with zero padding of any width, on images of any size.

    Such an operator extends an image by zeros, which keeps its norm, convolves on the whole grid
    and keeps some of the outputs: its norm is at most that of the convolution on the grid, which is
    sup_ω ‖A(ω)‖₂ of its symbol. A stride s splits the input into its Πs phases, channels of their
    own, at stride 1. ‖A(ω)v‖² is a trigonometric polynomial of degree n per axis, n the taps less
    one; between N equidistant frequencies it exceeds its largest value at them by no more than the
    factor 1/cos(πn/N) per axis (M. Riesz 1914: near its maximum such a polynomial lies above
    max·cos(nθ)). So

        ‖conv‖₂² ≤ max over the grid of ‖A(ω)‖₂² / Π cos(πn_i/N_i)

    A transposed convolution is the adjoint of the convolution with the same weight, so it has the
    same bound, whatever its padding and output padding cut off or show.

    Args:
        weight: [out, in/groups, *kernel].
    """
    w = weight.detach().double().cpu()
    if not bool(torch.isfinite(w).all()):
        return math.nan
    largest = float(w.abs().max()) if w.numel() else 0.0
    if largest == 0.0:
        return 0.0
    size = 2.0 ** math.frexp(largest)[1]
    parts = (w / size).chunk(groups) if groups > 1 else (w / size,)
    return max(_group_bound(part, stride, dilation) for part in parts) * size * UP


def _group_bound(w: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> float:
    taps = _phases(w, stride, dilation)  # [out, in·Πs, *taps]
    degrees = [size - 1 for size in taps.shape[2:]]
    grid = [max(1, GRID * degree) for degree in degrees]
    symbols = _symbols(taps, grid)
    # of |error| in each entry; the tables of cos and sin are exact to 2 ulp
    each = 16.0 * (taps[0, 0].numel() + 2) * UNIT
    error = each * float(taps.abs().sum(tuple(range(2, taps.ndim))).square().sum().sqrt())
    at_grid = math.sqrt(_largest_square(symbols)) + error * UP
    between = math.prod(math.cos(math.pi * n / size) for n, size in zip(degrees, grid))
    return at_grid / math.sqrt(between) * UP


def _phases(w: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """The kernel on the phases of its input: [out, in·Πs, *taps]."""
    for axis, (s, d) in enumerate(zip(stride, dilation), start=2):
        reach = d * (w.shape[axis] - 1) + 1
        length = math.ceil(reach / s)
        spread = w.new_zeros(*w.shape[:axis], length * s, *w.shape[axis + 1 :])
        spread.index_copy_(axis, torch.arange(0, reach, d, device=w.device), w)
        # [.., taps, phase, ..] with the phase beside the channels
        split = spread.unflatten(axis, (length, s)).movedim(axis + 1, 2)
        w = split.flatten(1, 2)
    return w


def _symbols(taps: Tensor, grid: list[int]) -> Tensor:
    """A(ω) at the frequencies of a grid, half of the first axis, for A(−ω) is its conjugate."""
    symbols = taps.to(torch.complex128)
    for axis, size in enumerate(grid):
        count = size // 2 + 1 if axis == 0 else size
        tap = torch.arange(symbols.shape[2], device=taps.device)
        turns = (torch.arange(count, dtype=torch.int64, device=taps.device)[:, None] * tap) % size
        angle = 2.0 * math.pi * turns.double() / size
        table = torch.complex(angle.cos(), -angle.sin())  # [frequencies, taps]
        symbols = torch.tensordot(symbols, table, dims=([2], [1]))
    return symbols.flatten(2).movedim(2, 0)  # [frequencies, out, in·Πs]


def _largest_square(matrices: Tensor) -> float:
    """At least the largest ‖A‖₂² of the matrices [n, p, q], entries about 1 or smaller.

    That no eigenvalue of the smaller Gram matrix G = AAᴴ [d, d] is above λ is proved by a Cholesky
    factorisation of M = λI − G that runs to its end. Then M + E = RᴴR with |E| ≤ γ|Rᴴ||R|, so
    ‖E‖ ≤ γ‖R‖_F² = γ·tr(M + E), γ = (d + 1)u; the computed G errs by at most γ'‖A‖_F², γ' = ku, in
    whatever order its products of length k are summed. Eight times both covers complex products
    and what is of second order. λ is found from an estimate below the largest eigenvalue, first by
    growing steps, then by halving the last.
    """
    a = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mH
    d, k = a.shape[1:]
    gram = a @ a.mH
    frobenius = float(a.abs().square().sum((1, 2)).max())
    one = torch.eye(d, dtype=gram.dtype, device=gram.device)

    def rounding(bound: float) -> float:
        return 8.0 * UNIT * ((k + 2) * frobenius + (d + 3) * d * bound) + TINY

    def is_above(bound: float) -> bool:
        return not bool(torch.linalg.cholesky_ex(bound * one - gram).info.any())

    low = _power_estimate(gram)
    high, step = low * (1.0 + CLOSE) + rounding(low), CLOSE
    while not is_above(high):
        if step > 1.0:
            return frobenius * (1.0 + 8.0 * k * d * UNIT)  # ‖A‖₂ ≤ ‖A‖_F
        low, step = high, 8.0 * step
        high = low * (1.0 + step)
    while high - low > 2.0 * CLOSE * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_above(middle) else (middle, high)
    return high + rounding(high)


def _power_estimate(gram: Tensor) -> float:
    """At most the largest eigenvalue of the matrices [n, d, d], but for rounding."""
    count = torch.arange(1, gram.shape[-1] + 1, device=gram.device)
    v = count.double().cos().to(gram.dtype)
    v = v.expand(len(gram), -1).unsqueeze(-1)
    length = v.abs().square().sum((1, 2), keepdim=True).sqrt()
    for _ in range(POWERS):
        v = gram @ (v / length.clamp_min(TINY))
        length = v.abs().square().sum((1, 2), keepdim=True).sqrt()
    return float(length.max())


def layer_bound(layer: Layer, weight: Tensor) -> float:
    """At least the norm of a layer's linear map, [in] to [out], padding included.

    Small layers are bounded as the matrix that they are, too. Average pooling has rows of sum 1 at
    most and columns of sum Π⌈k/s⌉/Πk, whose geometric mean is the bound (Schur's test).
    """
    if layer.kind == "linear":
        return matrix_bound(weight)
    if layer.kind == "upsample_nearest":
        return math.sqrt(math.prod(layer.stride)) * UP
    if layer.kind == "avg_pool":
        often = math.prod(math.ceil(k / s) for k, s in zip(layer.kernel, layer.stride))
        return math.sqrt(often / math.prod(layer.kernel)) * UP
    assert layer.kind in WEIGHTED
    bound = convolution_bound(weight, layer.stride, layer.dilation, layer.groups)
    sizes = layer.in_features, layer.out_features
    if math.prod(sizes) <= DENSE and min(sizes) <= SIDE:
        bound = min(bound, matrix_bound(_matrix(layer, weight)))
    return bound


def _matrix(layer: Layer, weight: Tensor) -> Tensor:
    """The layer as a matrix; each entry is one of the weight's, or 0."""
    unit = torch.eye(layer.in_features, dtype=torch.float64, device="cpu")
    return apply(layer, unit, weight.detach().double().cpu(), None)
