"""The forms of HMC's kernels that launches can choose, for ahead-of-time compilation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton

from vaefast.kernels.common.forms import DECODERS, net_variants
from vaefast.kernels.common.posterior import WIDEST_TILE, blocks_of
from vaefast.kernels.proof.aot import Variant

__all__ = ["posterior_variants"]

TYPES = {"p_terms": "*fp64", "p_barrier": "*i64", "p_rows": "*i64", "p_constant": "*fp64"}


def posterior_variants(
    kernel: triton.JITFunction, types: dict[str, str], **options: Any
) -> Iterator[Variant]:
    """A Bernoulli in every form, and a few with a Gaussian, whose stds are read by their strides.

    Args:
        types: argument types by name, beside those that these kernels share.
        options: as ``net_variants`` takes them.
    """
    options |= {"blocks": blocks_of, "widest": WIDEST_TILE, "types": TYPES | types}
    without = {"p_std": None, "p_constant": None}
    yield from net_variants(kernel, LIKELIHOOD="bernoulli", **without, **options)
    few = {"networks": DECODERS[:1], "few": True, "prefix": "gaussian "}
    yield from net_variants(kernel, LIKELIHOOD="gaussian", **few, **options)
