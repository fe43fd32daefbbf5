"""The compiled pgd_step kernels: no spills, and NaN kept by every minimum and maximum."""

import re

import pytest

from vaefast.backends import interpreted

pytestmark = pytest.mark.skipif(interpreted(), reason="nothing is compiled under TRITON_INTERPRET")
aot = pytest.importorskip("vaefast.kernels.aot", reason="triton is not installed")


def all_variants():
    from vaefast.kernels import pgd_step

    return list(pgd_step.variants())


@pytest.mark.parametrize("target", aot.TARGETS)
def test_every_variant_compiles_without_spilling(target):
    for variant in all_variants():
        compiled = aot.build(variant, target)
        cost = aot.resources(compiled, target)
        assert (cost.stack, cost.local) == (0, 0), f"{variant.label} spills: {cost}"
        assert cost.shared <= aot.SHARED_BYTES[target]


def test_no_minimum_or_maximum_drops_nan():
    for variant in all_variants():
        ptx = aot.build(variant, "sm_90").asm["ptx"]
        clamps = re.findall(r"\b(?:min|max)(?:\.\w+)*\.f32", ptx)
        assert all(".NaN" in clamp for clamp in clamps if not _is_reduction(variant, clamp))


def _is_reduction(variant, clamp):
    """The rows' peak is reduced by a plain maximum: a NaN reaches the result through the sum."""
    return "l2" in variant.label and clamp == "max.f32"
