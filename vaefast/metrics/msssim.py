"""Multi-scale structural similarity of image pairs: the standard, and one of a published code."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast import checks
from vaefast.runtime import batching
from vaefast.runtime.batching import Rows
from vaefast.runtime.grad_mode import without_autocast

__all__ = ["MSSSIM", "msssim"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA = 1.5
K1, K2 = 0.01, 0.03
BYTES_PER_VALUE = 256  # float64 copies of an image that are alive at once
MAX_WINDOW = {"standard": 11, "kuzina2022": 14}


@dataclass(frozen=True)
class MSSSIM:
    """Similarity per pair, and the window and number of scales that the image size allowed.

    Attributes:
        value: [B] float64 in [0, 1]; 1 for identical images, NaN where an image is not finite.
        window: side of the Gaussian window at full resolution, in pixels.
        scales: number of scales.
        variant: ``"standard"`` or ``"kuzina2022"``.
    """

    value: Tensor
    window: int
    scales: int
    variant: str


@without_autocast
def msssim(a: Tensor, b: Tensor, *, variant: str = "standard", data_range: float = 1.0) -> MSSSIM:
    """Multi-scale structural similarity, one value per image pair.

    With cs_l = mean (2σ_ab + C₂)/(σ_a² + σ_b² + C₂) and
    ssim_l = mean (2μ_aμ_b + C₁)/(μ_a² + μ_b² + C₁)·(2σ_ab + C₂)/(σ_a² + σ_b² + C₂) at scale l,
    local moments under a Gaussian window (σ = 1.5, no padding), 2×2 average pooling between
    scales, negative terms set to 0:

    - ``"standard"``: Π_{l<M} cs_l^{w_l} · ssim_M^{w_M}, per channel, then the mean over channels.
      The window is the largest odd size up to min(11, side), side = min(H, W). A scale fits when
      its side is at least the window; M is the number of scales that fit, at most 5, and the first
      M published weights are divided by their sum (28×28: window 11, M = 2; 8×8: window 7, M = 1).
    - ``"kuzina2022"``: Π_{l=1..4} (cs_l^{w_l} · ssim_5^{w_5}), which counts the last term four
      times. The window is min(14, H, W) at every scale, centred on element size // 2; there are
      always 5 scales, pooled while the smaller side exceeds 1 (on one pixel cs = 1). Means run
      over pixels and channels.

    Differentiable; the gradient of a term set to 0 is 0. Computed in float64.

    Args:
        a: images [B, C, H, W], float.
        b: images like ``a``.
        variant: ``"standard"`` or ``"kuzina2022"`` (to compare with that paper's tables).
        data_range: span L of the pixel values, C₁ = (0.01·L)², C₂ = (0.03·L)².

    Returns:
        :class:`MSSSIM` with ``value`` [B] float64.

    Raises:
        ValueError: shapes differ or are not [B, C, H, W], unknown variant, data_range ≤ 0.

    Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality
    assessment", Asilomar 2003. Kuzina, Welling, Tomczak, "Alleviating adversarial attacks on
    variational autoencoders with MCMC", NeurIPS 2022, evaluation code; it takes each scale's
    mean over the whole batch of a call, here it is one value per input.
    """
    checks.batch(a, "a")
    if a.ndim != 4 or 0 in a.shape[1:]:
        raise ValueError(f"a must be [B, C, H, W] with at least one pixel, got {list(a.shape)}")
    checks.shape(b, "b", a.shape, "a")
    checks.same_device(a=a, b=b)
    checks.option(variant, "variant", MAX_WINDOW)
    if checks.number(data_range, "data_range") <= 0:
        raise ValueError(f"data_range must be positive, got {data_range:g}")
    _check_range(a, data_range)
    window, scales = _layout(min(a.shape[-2:]), variant)
    score = _standard if variant == "standard" else _kuzina2022

    def run(rows: Rows) -> tuple[Tensor, ...]:
        return (score(a[rows].double(), b[rows].double(), window, scales, data_range),)

    index = torch.arange(len(a), device=a.device)
    cost = BYTES_PER_VALUE * a.shape[1:].numel()
    (value,) = batching.evaluate(run, index, cost, generic=False)
    return MSSSIM(value, window, scales, variant)


def _check_range(a: Tensor, data_range: float) -> None:
    """Warn of pixels from 0 to 255 that are compared as if they ended at 1."""
    low, high = a.aminmax() if a.numel() else (a.sum(), a.sum())
    span = float(high - low)
    if math.isfinite(span) and span > 2 * data_range:
        warnings.warn(
            f"msssim: a spans {low:g} to {high:g}, far more than data_range={data_range:g}; "
            "pass the distance of white from black as data_range=",
            stacklevel=3,
        )


def _layout(side: int, variant: str) -> tuple[int, int]:
    """Window and number of scales for images whose smaller side is ``side``."""
    window = min(MAX_WINDOW[variant], side)
    if variant == "kuzina2022":
        return window, len(WEIGHTS)
    window -= 1 - window % 2
    scales = sum(side >> level >= window for level in range(len(WEIGHTS)))
    return window, scales


def _standard(a: Tensor, b: Tensor, window: int, scales: int, data_range: float) -> Tensor:
    terms = list(_terms(a, b, window, scales, data_range))
    weights = [w / sum(WEIGHTS[:scales]) for w in WEIGHTS[:scales]]
    value = _power(terms[-1][0], weights[-1])
    for (_, cs), weight in zip(terms[:-1], weights[:-1], strict=True):
        value = value * _power(cs, weight)
    return value.mean(1).clamp(max=1.0)


def _kuzina2022(a: Tensor, b: Tensor, window: int, scales: int, data_range: float) -> Tensor:
    terms = list(_terms(a, b, window, scales, data_range))
    last = _power(terms[-1][0].mean(1), WEIGHTS[-1])
    value = torch.ones_like(last)
    for (_, cs), weight in zip(terms[:-1], WEIGHTS[:-1], strict=True):
        value = value * _power(cs.mean(1), weight) * last
    return value.clamp(max=1.0)


def _terms(
    a: Tensor, b: Tensor, window: int, scales: int, data_range: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """(ssim, cs) of each scale, [B, C] each."""
    for level in range(scales):
        side = min(a.shape[-2:])
        if level and side > 1:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
            side = min(a.shape[-2:])
        yield _similarity(a, b, min(window, side), data_range)


def _similarity(a: Tensor, b: Tensor, window: int, data_range: float) -> tuple[Tensor, Tensor]:
    """Mean structural similarity and mean contrast-structure term of one scale, [B, C] each."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = _blur(a, window), _blur(b, window)
    var_a = _blur(a * a, window) - mean_a * mean_a
    var_b = _blur(b * b, window) - mean_b * mean_b
    cov = _blur(a * b, window) - mean_a * mean_b
    cs = (2 * cov + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return (luminance * cs).mean((-2, -1)), cs.mean((-2, -1))


def _blur(image: Tensor, window: int) -> Tensor:
    """Gaussian window without padding, [B, C, H, W] -> [B, C, H-window+1, W-window+1]."""
    offset = torch.arange(window, dtype=image.dtype, device=image.device) - window // 2
    kernel = torch.exp(-(offset**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    flat = image.flatten(0, 1)[:, None]
    flat = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :])
    return flat[:, 0].unflatten(0, image.shape[:2])


def _power(base: Tensor, exponent: float) -> Tensor:
    """max(base, 0)^exponent with gradient 0 where base ≤ 0; NaN stays NaN."""
    negative = base <= 0
    return torch.where(negative, 0.0, base.masked_fill(negative, 1.0) ** exponent)
