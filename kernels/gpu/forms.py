"""The forms of an MLP kernel that launches can choose, for ahead-of-time compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import triton

from vaefast.kernels.aot import Variant
from vaefast.kernels.launch import NARROWEST_TILE, WIDEST_TILE, Plan, blocks_of
from vaefast.kernels.network import describe

__all__ = ["DECODERS", "ENCODERS", "mlp_variants"]

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
NVIDIA, AMD = ("sm_80", "sm_90", "sm_100"), ("gfx942",)
MATRIX = {"tf32": "wgmma", "bf16": "wgmma"}


def mlp_variants(
    kernel: triton.JITFunction,
    networks: tuple = DECODERS,
    last: str = "identity",
    types: dict[str, str] | None = None,
    prefix: str = "",
    blocks: Callable[[str, int], Plan] = blocks_of,
    on_amd: Callable[[Plan], Plan] | None = None,
    **constants,
) -> Iterator[Variant]:
    """Every precision and tile for the first network, one tile for the others.

    Args:
        types: argument types by name, where they are not a pointer to the storage type (names
            that begin with ``p_``) or an int; "storage" stands for that type.
        prefix: what the variants' labels begin with.
        blocks: the launch for "fp64" or a precision, and a tile.
        on_amd: what AMD's GPUs take for a launch, where it may differ.
        constants: constexpr arguments besides those of a plan and the network.
    """
    for place, (widths, names) in enumerate(networks):
        net = describe(widths, names.format(last=last))
        for kind, widest in WIDEST_TILE.items():
            tile = NARROWEST_TILE if not place else widest
            while tile <= widest:
                plan = blocks(kind, tile)
                other = plan if on_amd is None else on_amd(plan)
                variant = _variant(kernel, net, kind, plan, types or {}, constants)
                variant = variant._replace(label=prefix + variant.label)
                yield variant if other == plan else variant._replace(targets=NVIDIA)
                if other != plan:
                    variant = _variant(kernel, net, kind, other, types or {}, constants)
                    label = f"{prefix}{variant.label} on AMD"
                    yield variant._replace(label=label, targets=AMD)
                tile *= 2


def _variant(kernel, net, kind: str, plan: Plan, types: dict[str, str], constants: dict) -> Variant:
    options = plan._asdict()
    warps, stages = options.pop("num_warps"), options.pop("num_stages")
    constants = {"NET": net, **options, **constants}
    storage = "fp64" if kind == "fp64" else "fp32"
    half = "bf16" if storage == "fp32" else storage
    halves = (name for name in kernel.arg_names if name.endswith("_half"))
    types = {**dict.fromkeys(halves, f"*{half}"), **types}
    signature = {
        name: types.get(name, f"*{storage}" if name.startswith("p_") else "i32")
        for name in kernel.arg_names
        if name not in constants
    }
    label = f"{'-'.join(map(str, net.widths))} {kind} tile {plan.BLOCK_N}"
    return Variant(label, kernel, signature, constants, warps, stages, matrix=MATRIX.get(kind, ""))
