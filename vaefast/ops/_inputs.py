"""Checks that the ops share: the network, the rows, the likelihood, the random numbers."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from vaefast import checks, philox
from vaefast.functional.activations import parse
from vaefast.philox import MAX_LANE
from vaefast.runtime import backends
from vaefast.types import Layer, Network, activations, all_linear, out_features

__all__ = [
    "check_chains",
    "check_energy",
    "check_jitter",
    "check_kind",
    "check_lanes",
    "check_like",
    "check_mass",
    "check_matrix",
    "check_network",
    "check_precision",
    "check_probes",
    "check_range",
    "check_root",
    "check_seed",
    "check_target",
]

PRECISIONS = ("ieee", "tf32", "bf16")
MAX_STEP = 1 << 32
OF_LOGITS = "bernoulli", "continuous_bernoulli", "clamped_bernoulli"


def check_matrix(t: Tensor, name: str, form: str, columns: int | None = None) -> None:
    """A floating [rows, columns] tensor; ``form`` is its shape in letters, e.g. ``"[N, d]"``."""
    checks.tensor(t, name)
    if t.ndim != 2 or (columns is not None and t.shape[1] != columns):
        want = form if columns is None else f"{form} with {columns} columns"
        raise ValueError(f"{name} must be {want}, got {list(t.shape)}")
    if not t.is_floating_point():
        raise TypeError(
            f"{name} must be a floating tensor, got {checks.short(t.dtype)}; pass {name}.float()"
        )


def check_like(t: Tensor, name: str, like: Tensor, like_name: str, shape: list[int]) -> None:
    """``t`` has the given shape and ``like``'s dtype and device."""
    if list(checks.tensor(t, name).shape) != shape:
        raise ValueError(f"{name} must be {shape} beside {like_name}, got {list(t.shape)}")
    check_kind(t, name, like, like_name)


def check_kind(t: Tensor, name: str, like: Tensor, like_name: str) -> None:
    if t.dtype != like.dtype:
        want = checks.short(like.dtype)
        raise TypeError(
            f"{name} must be {want} like {like_name}, got {checks.short(t.dtype)}; "
            f"pass {name}.to(torch.{want})"
        )
    if t.device != like.device:
        checks.same_device(**{like_name: like, name: t})


def check_network(net: Network, like: Tensor, like_name: str) -> None:
    """A well-formed network in ``like``'s dtype and device that takes its last dimension."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be a vaefast.types.Network, got {type(net).__name__}")
    if not (len(net.weights) == len(net.biases) == len(net.layers) > 0):
        raise ValueError(
            "net must have one weight, bias (or None) and description per layer, got "
            f"{len(net.weights)}, {len(net.biases)} and {net.layers!r}"
        )
    if _known_mlp(net.layers) and _fits(net, like):
        return
    if not all_linear(net.layers):
        return check_layers(net, like, like_name)
    width = like.shape[-1]
    for layer, (weight, bias) in enumerate(zip(net.weights, net.biases)):
        name = f"net.weights[{layer}]"
        check_matrix(weight, name, "[out, in]", width)
        check_kind(weight, name, like, like_name)
        width = weight.shape[0]
        if bias is not None:
            check_like(bias, f"net.biases[{layer}]", weight, name, [width])
    _check_pairs(net)
    if net.packed is not None:
        checks.same_device(
            **{like_name: like, "net.packed": checks.tensor(net.packed, "net.packed")}
        )


@backends.constant_when_traced
def _known_mlp(layers: list[str]) -> bool:
    return _read_layers(tuple(layers))


@lru_cache(maxsize=256)
def _read_layers(layers: tuple[str, ...]) -> bool:
    """Whether all are linear, and none sorts pairs; raises for an activation it does not know."""
    names = activations(layers)
    parse(names)
    return all_linear(layers) and "maxmin" not in names


def _fits(net: Network, like: Tensor) -> bool:
    """Whether linear layers are right, in one look; where not, the checks one by one say why."""
    width, dtype, device = like.shape[-1], like.dtype, like.device
    for weight, bias in zip(net.weights, net.biases):
        if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != width:
            return False
        width = weight.shape[0]
        if weight.dtype != dtype or weight.device != device:
            return False
        if bias is None:
            continue
        if not isinstance(bias, Tensor) or bias.ndim != 1 or bias.shape[0] != width:
            return False
        if bias.dtype != dtype or bias.device != device:
            return False
    packed = net.packed
    return packed is None or (isinstance(packed, Tensor) and packed.device == device)


def check_layers(net: Network, like: Tensor, like_name: str) -> None:
    """A network of any layer kinds, each of which fits the one before."""
    widths = [like.shape[-1]]
    for index, (weight, bias) in enumerate(zip(net.weights, net.biases)):
        name, layer = f"net.weights[{index}]", net.layer(index)
        check_kind(checks.tensor(weight, name), name, like, like_name)
        _check_weight(name, weight, layer)
        if layer.in_features != widths[-1]:
            raise ValueError(
                f"layer {index} must take the {widths[-1]} features before it, "
                f"got {net.layers[index]!r} for {layer.in_features}"
            )
        if bias is not None:
            check_like(bias, f"net.biases[{index}]", weight, name, [layer.out_shape[0]])
        widths.append(layer.out_features)
        if layer.residual is not None:
            _check_residual(index, layer, widths)
        if layer.activation == "maxmin" and layer.out_features % 2:
            raise ValueError(f"maxmin sorts pairs: layer {index} has {layer.out_features} features")
    if net.packed is not None:
        checks.tensor(net.packed, "net.packed")


def _check_weight(name: str, weight: Tensor, layer: Layer) -> None:
    shape, channels = list(weight.shape), layer.in_shape[:1] or (0,)
    if layer.kind in ("avg_pool", "upsample_nearest"):
        fits, form = shape == [0], "[0]"
    elif layer.kind == "linear":
        fits, form = len(shape) == 2, "[out, in]"
    else:
        axis, form = (1, "[out, in/groups, ...]") if layer.kind == "conv" else (0, "[in, ...]")
        per_group = channels[0] // (layer.groups if layer.kind == "conv" else 1)
        fits = len(shape) == len(layer.in_shape) + 1 and shape[axis] == per_group
        fits = fits and channels[0] % layer.groups == 0 and min(layer.out_shape, default=0) > 0
    if not fits:
        raise ValueError(f"{name} must be {form} of a layer {str(layer)!r}, got {shape}")


def _check_residual(index: int, layer: Layer, widths: list[int]) -> None:
    """``widths``: of the input and of all layers so far."""
    k = layer.residual
    if k is None or not -1 <= k < index:
        raise ValueError(f"layer {index} must add an earlier layer, -1 being the input, got +{k}")
    if widths[k + 1] != layer.out_features:
        raise ValueError(
            f"layer {index} has {layer.out_features} features, it adds {widths[k + 1]} of layer {k}"
        )


def _check_pairs(net: Network) -> None:
    for layer, (weight, name) in enumerate(zip(net.weights, activations(net.layers))):
        if name.strip() == "maxmin" and weight.shape[0] % 2:
            raise ValueError(
                f"maxmin sorts pairs: layer {layer} must have an even width, got {weight.shape[0]}"
            )


def check_chains(z: Tensor, inputs: Tensor, z_name: str = "z", name: str = "x") -> int:
    """C, where z has N = B·C rows, C for each of the B rows of ``inputs``."""
    rows, groups = z.shape[0], inputs.shape[0]
    if rows % groups if groups else rows:
        raise ValueError(
            f"{z_name} must have B·C rows, C for each of the {groups} rows of {name}, got {rows}"
        )
    return rows // max(groups, 1)


def check_precision(precision: str) -> str:
    return checks.option(precision, "precision", PRECISIONS)


def check_seed(seed: int) -> int:
    """The seed as the 64 signed bits that a registered op takes."""
    return (philox.check_seed(seed) + (1 << 63)) % (1 << 64) - (1 << 63)


def check_range(first: int, count: int, first_name: str, count_name: str) -> None:
    """Numbers ``first`` to ``first + count − 1`` fit the 32 bits that a counter holds."""
    checks.count(first, first_name, minimum=0)
    checks.count(count, count_name, minimum=0)
    if first + count > MAX_STEP:
        raise ValueError(f"{first_name} + {count_name} must not exceed 2**32, got {first + count}")


def check_lanes(chains: int) -> None:
    if chains > MAX_LANE:
        raise ValueError(f"z must have at most {MAX_LANE} chains per input, got {chains}")


def check_mass(inv_mass: Tensor | None, z: Tensor, x: Tensor | None = None) -> None:
    """None, or [B, d] with z's d and x's B; where there is no x, B need only divide z's rows."""
    if inv_mass is None:
        return
    check_matrix(inv_mass, "inv_mass", "[B, d]", z.shape[1])
    check_kind(inv_mass, "inv_mass", z, "z")
    check_chains(z, inv_mass, name="inv_mass")
    if x is not None and len(inv_mass) != len(x):
        raise ValueError(f"inv_mass must have {len(x)} rows like x, got {len(inv_mass)}")


def check_root(root: Tensor | None, inv_mass: Tensor | None, z: Tensor, x: Tensor) -> None:
    """None, or S [B, d, d] with z's d and x's B where there is no diagonal."""
    if root is None:
        return
    if inv_mass is not None:
        raise ValueError("a mass is inv_mass or root, got both; pass one of them")
    check_like(root, "root", z, "z", [len(x), z.shape[1], z.shape[1]])


def check_target(z: Tensor, x: Tensor, net: Network, likelihood: str) -> int:
    """A decoder's posterior: z [N, d], x [B, D], net d to D. Returns the chains C = N / B."""
    check_matrix(z, "z", "[N, d]")
    check_network(net, z, "z")
    if likelihood in OF_LOGITS and activations(net.layers)[-1] == "sigmoid":
        raise ValueError(
            f"net ends in sigmoid, and likelihood {likelihood!r} takes logits; "
            'pass net.with_epilogue("identity")'
        )
    check_matrix(x, "x", "[B, D]", out_features(net))
    check_kind(x, "x", z, "z")
    return check_chains(z, x)


def check_energy(U: Tensor, z: Tensor) -> None:
    """One float64 energy for each row of z."""
    if list(checks.tensor(U, "U").shape) != [len(z)]:
        raise ValueError(f"U must be [N] = [{len(z)}] like z's rows, got {list(U.shape)}")
    if U.dtype != torch.float64:
        raise TypeError(
            f"U must be float64, got {checks.short(U.dtype)}; pass net_potential's first result"
        )
    checks.same_device(z=z, U=U)


def check_jitter(jitter: float) -> float:
    if not 0.0 <= checks.number(jitter, "jitter") < 1.0:
        raise ValueError(f"jitter must lie in [0, 1), got {jitter}")
    return float(jitter)


def check_probes(v: Tensor, name: str, x: Tensor, width: int) -> None:
    """Probes [K, width] that all inputs share, or [B, K, width], in x's dtype and on its device."""
    shape = list(checks.tensor(v, name).shape)
    shared, own = len(shape) == 2, len(shape) == 3 and shape[0] == len(x)
    if not (shared or own) or shape[-1] != width:
        raise ValueError(f"{name} must be [K, {width}] or [{len(x)}, K, {width}], got {shape}")
    check_kind(v, name, x, "x")
