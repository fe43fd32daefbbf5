"""``net_displacement_bound``: how far a network's output moves while its input stays in a ball."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.displacement import FORMS, Displacement
from vaefast.functional.secants import curve
from vaefast.ops._displacement import CppKernel, refused
from vaefast.ops._inputs import check_matrix, check_network, check_precision
from vaefast.ops._register import register
from vaefast.reference.net_displacement_bound import net_displacement_bound as reference
from vaefast.runtime import backends
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network, activations, out_features

__all__ = ["displacement", "net_displacement_bound"]


class Call(NamedTuple):
    x: Tensor
    radius: Tensor
    net: Network
    scale: Tensor | None
    groups: int
    form: str
    precision: str
    tile: int
    backend: str | None


@backends.constant_when_traced
def _check_curves(layers: list[str]) -> bool:
    return bool([curve(name) for name in activations(layers)])


def net_displacement_bound(
    x: Tensor,
    radius: float | Tensor,
    net: Network,
    *,
    scale: Tensor | None = None,
    groups: int = 1,
    form: str = "smaller",
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """At least how far each group of scaled outputs moves while the input stays in an ℓ₂ ball.

        ‖scale_g ⊙ (net(x') − net(x))_g‖₂ ≤ bound[:, g]   for every x' with ‖x' − x‖₂ ≤ radius

    Equivalent to, but an upper bound of it in place of a maximum over the ball::

        moved = scale * (network(x + delta) - network(x))
        moved.unflatten(1, (groups, -1)).norm(dim=2)

    The network is meant in exact arithmetic on the float64 values of its weights and inputs. All is
    computed in float64 and rounded up: by 1e-9 of itself and by a running bound of what rounding
    can take off. "affine" relaxes every activation by a line and pulls the errors back with
    their signs; "multiplier" bounds what secants leave in weighted norms, which costs several
    times as much and is tighter in wide networks; "smaller" takes the smaller of both, row by row.

    Args:
        x: inputs [B, D].
        radius: of the ball, a float or [B], in the units of x. A negative or non-finite
            one in a tensor makes that row NaN; 0 gives 0.
        net: the network, D to m.
        scale: what multiplies the outputs, [B, m], x's dtype or float64; None for ones.
        groups: equal, consecutive groups of the m outputs with a bound each.
        form: "affine", "multiplier", "smaller" of these two, or "joint", the tightest, at ten times
            the cost.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`; float64 whatever the
            precision.

    Returns:
        [B, groups] float64; NaN for a row with NaN or infinity, infinity where a bound overflows.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes or options that do not fit together; an activation without a range of
            secants.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: mathematics.md §8; the multiplier form is a closed-form, local version of per-layer
    Lipschitz semidefinite programmes (Fazlyab et al. 2019).
    """
    check_matrix(x, "x", "[B, D]")
    check_network(net, x, "x")
    _check_curves(net.layers)
    wide = torch.empty(0, dtype=torch.float64, device=x.device)
    least = None if isinstance(radius, Tensor) else 0.0
    radius = checks.per_row(radius, "radius", len(x), like=wide, minimum=least)
    m = out_features(net)
    if m % checks.count(groups, "groups"):
        raise ValueError(f"groups must divide the {m} outputs of net, got {groups}")
    if scale is not None:
        checks.shape(scale, "scale", [len(x), m], "x's rows and net's outputs")
        if scale.dtype not in (x.dtype, torch.float64):
            raise TypeError(
                f"scale must be {checks.short(x.dtype)} like x or float64, "
                f"got {checks.short(scale.dtype)}"
            )
        checks.same_device(x=x, scale=scale)
    form = checks.option(form, "form", FORMS)
    how = check_precision(precision), check_tile(tile)
    return _op(Call(x, radius, net, scale, groups, form, *how, backend))


def displacement(
    x: Tensor,
    net: Network,
    scale: Tensor | None = None,
    groups: int = 1,
    backend: str | None = None,
) -> Displacement:
    """What the op evaluates, at known inputs for many radii, on the backend that the op would use.

    Arguments as of :class:`~vaefast.functional.displacement.Displacement`.
    """
    chosen = backends.resolve("net_displacement_bound", backend, x, net.layers)
    return Displacement(x, net, scale, groups, CppKernel() if chosen == "cpp" else None)


def _cpp(call: Call) -> Tensor:
    engine = Displacement(call.x, call.net, call.scale, call.groups, CppKernel())
    return engine.bound(call.radius, call.form)


_op = register(
    Call,
    returns=Tensor,
    cpp=_cpp,
    refused=refused,
    fake=lambda call: call.radius.new_empty((call.x.shape[0], call.groups)),
    reference=reference,
    instead="batched matrix products of the library do its work",
)
