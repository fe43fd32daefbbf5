"""Ahead-of-time builds see what the JIT sees: alignments, defaults, tuples, integers that are 1."""

import inspect
import re

import pytest

from vaefast.runtime.backends import interpreted

pytestmark = pytest.mark.skipif(interpreted(), reason="nothing is compiled under TRITON_INTERPRET")
aot = pytest.importorskip("vaefast.kernels.proof.aot", reason="triton is not installed")

import triton  # noqa: E402 - may be missing
import triton.language as tl  # noqa: E402
from triton.backends.nvidia.compiler import CUDABackend  # noqa: E402


@triton.jit
def _sum_kernel(p_out, p_ins, s, FACTORS: tl.constexpr = (2, 3), BLOCK: tl.constexpr = 512):
    i = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for k in tl.static_range(len(p_ins)):
        if p_ins[k] is not None:
            total += FACTORS[k] * tl.load(p_ins[k] + tl.program_id(0) * s + i)
    tl.store(p_out + tl.program_id(0) * s + i, total)


SIGNATURE = {"p_out": "*fp32", "p_ins": ("*fp32", "constexpr"), "s": "i32"}


def ptx(**changes):
    variant = aot.Variant("sum", _sum_kernel, SIGNATURE, {}, 4)._replace(**changes)
    return aot.build(variant, "sm_80").asm["ptx"]


def test_an_aligned_stride_gives_wide_loads():
    assert "ld.global.v4" in ptx(aligned=("s",))
    assert "ld.global.v4" not in ptx()


def test_constants_override_the_kernel_s_defaults():
    assert "ld.global.v2" in ptx(aligned=("s",), constants={"BLOCK": 256})


def test_none_in_a_tuple_is_no_argument():
    both = ptx(signature=SIGNATURE | {"p_ins": ("*fp32", "*fp32")})
    assert both.count(".param .u64 .ptr") == ptx().count(".param .u64 .ptr") + 1


def test_an_integer_that_is_one_is_no_argument():
    one = aot.ones(aot.Variant("sum", _sum_kernel, SIGNATURE, {}, 4))
    assert one.constants == {"s": 1}
    assert ".param .u32" not in aot.build(one, "sm_80").asm["ptx"]


def test_an_argument_without_type_and_value_is_named():
    with pytest.raises(ValueError, match="sum: s has no type"):
        ptx(signature={"p_out": "*fp32", "p_ins": ("*fp32", "constexpr")})


def test_alignment_is_written_as_the_jit_writes_it():
    assert CUDABackend.parse_attr("D") == aot.ALIGNED


@pytest.mark.parametrize("name", aot.modules())
def test_constants_are_no_results_of_jitted_functions(name):
    """Triton 3.6 takes them for values, such as tl.cdiv's: a constexpr_function gives constants."""
    source = inspect.getsource(aot.modules()[name])
    assert not re.findall(r"tl\.constexpr = .*\btl\.(?!constexpr)\w+\(", source)
