"""Checking of what a user passes to an attack."""

from __future__ import annotations

import warnings
from functools import partial
from numbers import Real
from typing import Any

from torch import Tensor

from vaefast import checks
from vaefast.attacks.apgd import AutoAscent
from vaefast.attacks.ascent import SHRINKING, AdamAscent, AscentRule
from vaefast.attacks.ball import working
from vaefast.attacks.presets import Box, Preset
from vaefast.attacks.search import Search
from vaefast.functional.pgd import rounded_down_to
from vaefast.models.calls import images
from vaefast.models.context import Context
from vaefast.models.prepare import Prepared, check_vae, prepare
from vaefast.models.vae import VAE
from vaefast.philox import MAX_LANE, check_seed
from vaefast.runtime.memory import row_chunks

__all__ = [
    "ALL_NORMS",
    "box_of_model",
    "check_images",
    "make_search",
    "prepare_images",
    "warn_of_radius",
]

NORMS = ("linf", "l2")
ALL_NORMS = (*NORMS, "l1")
IMAGES = {"pgd": 10, "apgd": 18, "adam": 16}  # tensors of x's size alive in a step, by optimiser
IN_L1 = 60  # more of them in ℓ1: sorted copies in float64
OPTIMIZERS = tuple(IMAGES)
KEEP = ("best", "all")


def prepare_images(
    vae: VAE, x: Tensor, index: Tensor | None, context: Context
) -> tuple[Prepared, Tensor]:
    """What is searched in, x at least in float32, and x as the caller gave it.

    The model must be differentiable and one function of its input.
    """
    x = check_images(x)
    prepared = prepare(vae, working(x), index, context=context)
    checks.differentiable(vae)
    return prepared, x


def box_of_model(vae: VAE) -> Box | None:
    """Smallest and largest valid entry of the model's inputs, where its library says them."""
    check_vae(vae)
    return vae.box


def check_images(x: Tensor, name: str = "x") -> Tensor:
    """[B, *event] with at least one entry, out of the caller's graph and usable by autograd."""
    images(x, name)
    if not x.shape[1:].numel():
        raise ValueError(f"{name} must have at least one entry per row, got {list(x.shape)}")
    return x.clone() if x.is_inference() else x.detach()


def make_search(
    x: Tensor,
    preset: Preset,
    options: dict[str, Any],
    *,
    seed: int,
    norms: tuple[str, ...] = NORMS,
) -> Search:
    """The search that the options describe, every one of them checked."""
    norm = checks.option(options["norm"], "norm", norms)
    optimizer = checks.option(options.get("optimizer") or "pgd", "optimizer", OPTIMIZERS)
    low, high = _box(x, options["low"], options["high"])
    eps = options["eps"]
    eps = _covering(x, low, high) if eps is None and options.get("unbounded") else _radius(x, eps)
    alpha, ascent = _steps_of(x, options["alpha"], eps, high - low, preset, optimizer)
    return Search(
        eps=eps,
        alpha=alpha,
        low=low,
        high=high,
        norm=norm,
        steps=checks.count(options["steps"], "steps"),
        restarts=_restarts(options["restarts"]),
        seed=check_seed(seed),
        keep=checks.option(options["keep"], "keep", KEEP),
        select=preset.select,
        start=preset.start,
        ascent=ascent,
        images=IMAGES[optimizer] + (IN_L1 if norm == "l1" else 0),
    )


def warn_of_radius(search: Search, x: Tensor, attack: str) -> None:
    """One line where a ball holds its whole box; to be called by the public function itself."""
    width = search.high - search.low
    width = width * x.shape[1:].numel() ** {"linf": 0.0, "l2": 0.5, "l1": 1.0}[search.norm]
    covered = (search.eps >= width) & (width > 0)
    if covered.any():
        row = int(covered.nonzero()[0])
        warnings.warn(
            f"{attack}: eps = {search.eps[row]:.4g} covers the whole box from "
            f"{search.low[row]:.4g} to {search.high[row]:.4g}, so x' may be any image; eps is in "
            "the scale of x, as in 8/255 for pixels in [0, 1]",
            stacklevel=4,
        )


def _covering(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Radii [B] of ℓ2 balls that hold the whole box."""
    return 1.01 * (high - low) * x.shape[1:].numel() ** 0.5


def penalty_of(
    x: Tensor, penalty: Any, options: dict[str, Any], through_defence: object
) -> Tensor | None:
    """λ [B], or None; without ``eps`` the options then ask for no ball."""
    if penalty is None:
        return None
    if through_defence is not None:
        raise ValueError("penalty is for the attack without through_defence; leave one of them out")
    if options["eps"] is None and options["norm"] != "l2":
        raise ValueError(f'penalty without eps needs norm="l2", got {options["norm"]!r}')
    options["unbounded"] = True
    return _finite(_row_values(penalty, "penalty", x, minimum=0.0), "penalty")


def _radius(x: Tensor, eps: float | Tensor | None) -> Tensor:
    if eps is None:
        raise TypeError("eps is missing: the radius of the ball, a float or [B], in the scale of x")
    wide = x[:0].double()  # a radius is rounded down to the working dtype, not to the nearest
    radius = _finite(_row_values(eps, "eps", x, minimum=0.0, like=wide), "eps")
    return rounded_down_to(radius, working(x[:0]).dtype)


def _steps_of(
    x: Tensor,
    alpha: float | Tensor | None,
    eps: Tensor,
    width: Tensor,
    preset: Preset,
    optimizer: str,
) -> tuple[Tensor, AscentRule]:
    """Step lengths [B] and the rule that takes them; by default steps that shrink from eps, Adam's
    1 % of the box.
    """
    if alpha is None and optimizer == "adam":
        return 0.01 * width, AdamAscent
    if alpha is None:
        return eps, SHRINKING if optimizer == "pgd" else partial(AutoAscent, initial=2.0)
    alpha = _finite(_row_values(alpha, "alpha", x, minimum=0.0), "alpha")
    return alpha, {"pgd": preset.ascent, "apgd": AutoAscent, "adam": AdamAscent}[optimizer]


def _box(x: Tensor, low: Any, high: Any) -> tuple[Tensor, Tensor]:
    """[B] smallest and largest valid entries, where None each input's own.

    x itself must be valid (NaN and infinity apart).
    """
    flat, dtype = x.flatten(1), working(x[:0]).dtype
    low = flat.amin(1).to(dtype) if low is None else _row_values(low, "low", x)
    high = flat.amax(1).to(dtype) if high is None else _row_values(high, "high", x)
    if bool((low > high).any()):
        row = int((low > high).nonzero()[0])
        raise ValueError(f"low must be at most high, got {low[row]:.9g} and {high[row]:.9g}")
    _check_inside(x, low, high)
    return low, high


def _check_inside(x: Tensor, low: Tensor, high: Tensor) -> None:
    for rows in row_chunks(len(x), 4 * x.shape[1:].numel()):
        flat = x[rows].flatten(1)
        below, above = flat < low[rows, None], flat > high[rows, None]
        outside = ((below | above) & flat.isfinite()).any(1)
        if outside.any():
            bad = int(outside.nonzero()[0])
            row = rows.start + bad
            raise ValueError(
                f"x must lie in [low, high] = [{low[row]:.9g}, {high[row]:.9g}], got "
                f"{flat[bad].min():.9g} to {flat[bad].max():.9g} in row {row}; "
                "rescale x or pass low= and high="
            )


def _row_values(
    value: Any, name: str, x: Tensor, minimum: float | None = None, like: Tensor | None = None
) -> Tensor:
    """What the user gave, as [B] in the dtype of ``like``, by default the working dtype."""
    if not isinstance(value, Tensor | Real) or isinstance(value, bool):
        numbers = hasattr(value, "__len__") and not isinstance(value, str)
        raise TypeError(
            f"{name} must be a number or a tensor [B] = [{len(x)}], got {type(value).__name__}"
            + ("; pass torch.as_tensor(...)" if numbers else "")
        )
    if isinstance(value, Tensor):
        if value.ndim > 0:
            checks.same_device(x=x, **{name: value})
        value = value.detach()
    like = working(x[:0]) if like is None else like
    values = checks.per_row(value, name, len(x), like=like, minimum=minimum)
    if values.isnan().any():
        row = int(values.isnan().nonzero()[0])
        raise ValueError(f"{name} must not be NaN, got nan in row {row}")
    return values


def _finite(values: Tensor, name: str) -> Tensor:
    if values.isinf().any():
        raise ValueError(f"{name} must be finite, got inf")
    return values


def _restarts(restarts: int) -> int:
    if checks.count(restarts, "restarts") > MAX_LANE:
        raise ValueError(f"restarts must be at most {MAX_LANE}, got {restarts}")
    return restarts
