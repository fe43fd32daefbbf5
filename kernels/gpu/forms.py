"""The forms of an MLP kernel that launches can choose, for ahead-of-time compilation."""

from __future__ import annotations

from collections.abc import Iterator

import triton

from vaefast.kernels.aot import Variant
from vaefast.kernels.launch import NARROWEST_TILE, WIDEST_TILE, Plan, blocks_of
from vaefast.kernels.network import Net, describe

__all__ = ["DECODERS", "ENCODERS", "mlp_variants", "variant"]

# the networks of the benchmarks: the large one in every form, the odd ones in one form a precision
DECODERS = (
    ((32, 512, 512, 784), "tanh,tanh,{last}"),
    ((17, 100, 333, 300), "relu,relu,{last}"),
    ((8, 64, 3072), "silu,{last}"),
)
ENCODERS = (
    ((784, 512, 512, 32), "tanh,tanh,{last}"),
    ((300, 333, 100, 17), "relu,relu,{last}"),
    ((3072, 64, 8), "silu,{last}"),
)
MATRIX = {"tf32": "wgmma", "bf16": "wgmma"}


def mlp_variants(
    kernel: triton.JITFunction,
    networks: tuple = DECODERS,
    last: str = "identity",
    types: dict[str, str] | None = None,
    **constants,
) -> Iterator[Variant]:
    """Every precision and tile for the first network, one tile for the others.

    Args:
        types: argument types by name, where they are not a pointer to the storage type (names
            that begin with ``p_``) or an int; "storage" stands for that type.
        constants: constexpr arguments besides those of a plan and the network.
    """
    for place, (widths, names) in enumerate(networks):
        net = describe(widths, names.format(last=last))
        for kind, widest in WIDEST_TILE.items():
            tile = NARROWEST_TILE if not place else widest
            while tile <= widest:
                yield _variant(kernel, net, kind, tile, types or {}, constants)
                tile *= 2


def _variant(kernel, net, kind: str, tile: int, types: dict[str, str], constants: dict) -> Variant:
    label = f"{'-'.join(map(str, net.widths))} {kind} tile {tile}"
    return variant(kernel, label, net, kind, blocks_of(kind, tile), types, constants)


def variant(
    kernel: triton.JITFunction,
    label: str,
    net: Net,
    kind: str,
    plan: Plan,
    types: dict[str, str],
    constants: dict,
    **options,
) -> Variant:
    """One form of a kernel; ``options`` are further fields of a Variant."""
    blocks = plan._asdict()
    warps, stages = blocks.pop("num_warps"), blocks.pop("num_stages")
    constants = {"NET": net, **blocks, **constants}
    storage = "fp64" if kind == "fp64" else "fp32"
    half = "bf16" if storage == "fp32" else storage
    types = {"p_half": f"*{half}", **types}
    signature = {
        name: types.get(name, f"*{storage}" if name.startswith("p_") else "i32")
        for name in kernel.arg_names
        if name not in constants
    }
    options = {"matrix": MATRIX.get(kind, ""), **options}
    return Variant(label, kernel, signature, constants, warps, stages, **options)
