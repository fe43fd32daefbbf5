"""The forms of an MLP kernel that launches can choose, for ahead-of-time compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import triton

from vaefast.kernels.common.launch import NARROWEST_TILE, WIDEST_TILE, Plan, blocks_of
from vaefast.kernels.common.network import Net, describe
from vaefast.kernels.proof.aot import AMD, NVIDIA, Variant

__all__ = ["DECODERS", "ENCODERS", "net_variants", "variant"]

# the networks of the benchmarks: the large one in every form and for every target, the odd ones
# as ODDLY
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
ODDLY = {("ieee", "sm_90"), ("bf16", "sm_90"), ("ieee", "gfx942"), ("bf16", "gfx942")}
MATRIX = {"tf32": "wgmma", "bf16": "wgmma"}


def net_variants(
    kernel: triton.JITFunction,
    networks: tuple = DECODERS,
    last: str = "identity",
    types: dict[str, str] | None = None,
    prefix: str = "",
    blocks: Callable[[str, int, bool], Plan] = blocks_of,
    ends: bool = False,
    widest: dict[str, int] = WIDEST_TILE,
    few: bool = False,
    **constants,
) -> Iterator[Variant]:
    """Every precision, tile and target for the first network, a few forms for the others.

    Args:
        types: argument types by name, where they are not a pointer to the storage type (names
            that begin with ``p_``) or an int.
        prefix: what the variants' labels begin with.
        blocks: the launch for "fp64" or a precision, a tile, and whether for AMD.
        ends: all of it in the precision of a trajectory's ends.
        widest: the widest tile of "fp64" and each precision.
        few: of the first network too only as many forms as of the others.
        constants: constexpr arguments besides those of a plan and the network.
    """
    for place, (widths, names) in enumerate(networks):
        net = describe(widths, names.format(last=last))
        for kind, tile, targets in _forms(widest, odd=few or place > 0):
            plan = blocks(kind, tile, targets[0] in AMD)
            options = plan.end_options() if ends else plan.trajectory_options()
            label = f"{prefix}{'-'.join(map(str, widths))} {kind} tile {tile}"
            label += " AMD" * (targets[0] in AMD)
            yield variant(label, kernel, net, kind, targets, options, types, constants)


def _forms(widest: dict[str, int], odd: bool) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for kind, last in widest.items():
        tile = last if odd else NARROWEST_TILE
        while tile <= last:
            for targets in (NVIDIA, AMD):
                wanted = tuple(t for t in targets if not odd or (kind, t) in ODDLY)
                if wanted:
                    yield kind, tile, wanted
            tile *= 2


def variant(
    label: str,
    kernel: triton.JITFunction,
    net: Net,
    kind: str,
    targets: tuple[str, ...],
    options: dict[str, Any],
    types: dict[str, str] | None,
    constants: dict[str, Any],
) -> Variant:
    """One form of a kernel; ``options`` are a plan's, the rest as ``net_variants``'."""
    constants = {"NET": net, **options, **constants}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    storage = "fp64" if kind == "fp64" else "fp32"
    half = "bf16" if storage == "fp32" else storage
    halves = (name for name in kernel.arg_names if name.endswith("_half"))
    types = {**dict.fromkeys(halves, f"*{half}"), **(types or {})}
    signature = {
        name: types.get(name, f"*{storage}" if name.startswith("p_") else "i32")
        for name in kernel.arg_names
        if name not in constants
    }
    return Variant(
        label,
        kernel,
        signature,
        constants,
        options["num_warps"],
        options["num_stages"],
        matrix=MATRIX.get(kind, ""),
        targets=targets,
        maxnreg=options.get("maxnreg"),
    )
