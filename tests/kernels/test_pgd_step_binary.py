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


def test_no_clamp_drops_nan():
    """Each clip is a maximum and a minimum, and ℓ2's floor of the norm one more maximum.

    Plain maxima remain only in the reduction to a row's peak, whose NaN comes back in the sum.
    """
    for variant in all_variants():
        if "fp64" in variant.label:
            continue  # no such instruction: NaN is kept by a comparison and a selection
        ptx = aot.build(variant, "sm_90").asm["ptx"]
        lower = len(re.findall(r"max\.NaN\.f32", ptx))
        upper = len(re.findall(r"min\.NaN\.f32", ptx))
        assert upper > 0, variant.label
        assert not re.findall(r"min\.f32", ptx), variant.label
        if "linf" in variant.label:
            assert not re.findall(r"max\.f32", ptx), variant.label
            assert lower == upper, variant.label
        else:
            assert lower > upper, variant.label
