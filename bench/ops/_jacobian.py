"""Jacobian products and Gram matrices as users write them, in torch and in JAX."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacrev, jvp, vjp, vmap

from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops._stacks import Stack
from vaefast.types import Network

__all__ = ["gram_by_func", "gram_by_hand", "gram_by_jax", "jvp_by_func", "jvp_by_hand"]
__all__ += ["jvp_by_jax", "vjp_by_func", "vjp_by_hand", "vjp_by_jax"]


def gram_by_func(x: Tensor, inv_std: Tensor, net: Network | Stack) -> Tensor:
    J = vmap(jacrev(lambda row: nets.forward(row, net)))(x)  # [B, d, D]
    J = (inv_std[:, :, None] * J).to(net.weights[0].dtype)
    return (J @ J.mT).to(x.dtype)


def gram_by_hand(x: Tensor, inv_std: Tensor, net: Network, first: str | Tensor) -> Tensor:
    """M G Mᵀ with J = M W₁, G = W₁W₁ᵀ; or (M F)(M F)ᵀ with F Fᵀ = G: W₁, of Cholesky, or given."""
    _, layers = nets.tape(x, net)
    slopes = nets.slopes(layers)
    scale = inv_std.to(slopes[-1].dtype)[:, :, None]
    M = scale * net.weights[-1] * slopes[-1][:, None]  # [B, d, H]
    for weight, slope in zip(net.weights[-2:0:-1], slopes[-2::-1]):
        M = (M @ weight).mul_(slope[:, None])
    if isinstance(first, Tensor):
        root = M @ first
        return (root @ root.mT).to(x.dtype)
    if first == "W1":
        root = M @ net.weights[0]
        return root @ root.mT
    G = net.weights[0] @ net.weights[0].T
    if first == "G":
        return (M @ G) @ M.mT
    root = M @ torch.linalg.cholesky(G)
    return root @ root.mT


def gram_by_jax(x, inv_std, *network):
    import jax

    J = jax.vmap(jax.jacrev(lambda row: jx.forward(row, *network)))(x)
    J = (inv_std[:, :, None] * J).astype(network[0][0].dtype)
    return (J @ J.mT).astype(x.dtype)


def jvp_by_func(x: Tensor, v: Tensor, net: Network) -> tuple[Tensor, Tensor]:
    """The squared norms [B, K], and the output; v is [K, D] or [B, K, D]."""

    def push(tangent: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(lambda x: nets.forward(x, net), (x,), (tangent.expand_as(x),))

    y, products = vmap(push, in_dims=v.ndim - 2, out_dims=(None, 1))(v)
    return products.to(x.dtype).square().sum(-1), y


def jvp_by_hand(x: Tensor, v: Tensor, net: Network) -> tuple[Tensor, Tensor]:
    """Shared tangents meet the first layer once."""
    y, layers = nets.tape(x, net)
    v = v.to(net.weights[0].dtype)
    for weight, slope in zip(net.weights, nets.slopes(layers)):
        v = (v @ weight.T) * slope[:, None]  # [B, K, H]
    return (v @ net.weights[-1].T).to(x.dtype).square().sum(-1), y


def jvp_by_jax(x, v, *network):
    import jax
    import jax.numpy as jnp

    def push(tangent):
        tangents = (jnp.broadcast_to(tangent, x.shape),)
        return jax.jvp(lambda x: jx.forward(x, *network), (x,), tangents)

    y, products = jax.vmap(push, in_axes=v.ndim - 2, out_axes=(None, 1))(v)
    return jnp.square(products.astype(x.dtype)).sum(-1), y


def vjp_by_func(x: Tensor, u: Tensor, net: Network) -> tuple[Tensor, Tensor]:
    y, pull = vjp(lambda x: nets.forward(x, net), x)
    u = u.to(y.dtype)
    products = vmap(lambda u: pull(u.expand_as(y))[0], in_dims=u.ndim - 2, out_dims=1)(u)
    return products.square().sum(-1), y


def vjp_by_hand(x: Tensor, u: Tensor, net: Network, first: str) -> tuple[Tensor, Tensor]:
    """Squared norms of the products with W₁, or through G = W₁W₁ᵀ without them."""
    y, layers = nets.tape(x, net)
    u = u.to(y.dtype)
    for weight, slope in zip(net.weights[:0:-1], nets.slopes(layers)[::-1]):
        u = (u @ weight) * slope[:, None]  # [B, K, H]
    if first == "W1":
        return (u @ net.weights[0]).to(x.dtype).square().sum(-1), y
    gram = net.weights[0] @ net.weights[0].T
    return ((u @ gram).to(x.dtype) * u).sum(-1), y


def vjp_by_jax(x, u, *network):
    import jax
    import jax.numpy as jnp

    y, pull = jax.vjp(lambda x: jx.forward(x, *network), x)
    u = u.astype(y.dtype)
    push = jax.vmap(lambda u: pull(jnp.broadcast_to(u, y.shape))[0], in_axes=u.ndim - 2, out_axes=1)
    return jnp.square(push(u)).sum(-1), y
