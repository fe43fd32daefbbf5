"""Every kernel in every form that its launcher can choose, compiled for every target.

Needs no GPU. The tests marked ``binaries`` compile, 20 minutes on two cores: `make kernels` runs
them and writes docs/kernels.md; `make test` only asks whether that file is of today's sources.
"""

import re
from functools import cache
from pathlib import Path

import pytest

from vaefast.runtime.backends import interpreted

pytestmark = pytest.mark.skipif(interpreted(), reason="nothing is compiled under TRITON_INTERPRET")
aot = pytest.importorskip("vaefast.kernels.proof.aot", reason="triton is not installed")

import triton  # noqa: E402

from vaefast.kernels.common.forms import DECODERS, ENCODERS  # noqa: E402
from vaefast.kernels.proof import occupancy, survey, table  # noqa: E402 - needs triton
from vaefast.kernels.proof.binary import Binary, examine  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
PINNED = re.search(r"triton==([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]
MODULES = aot.modules()
LARGEST_SPILL = 64  # bytes of a thread, where a module lists the variant at all
MEASURED_ON = ("sm_90", "sm_100")  # the GPUs that benchmarks are written for
MEASURED = {  # kernels that are timed against others, and on which network: none may spill
    "net_chain": DECODERS[0],
    "net_jacobian_gram": ENCODERS[0],
    "decode_distance": DECODERS[0],
}


@cache
def binaries(name, target):
    """Everything that one module has for one target: [(variant, binary)]."""
    jobs = survey.jobs(name, [target])
    variants = aot.variants_of(name)
    return [(variants[job.label], binary) for job, binary in survey.survey(jobs).items()]


def faults(variant, binary, target, known_spills):
    """What speaks against launching a binary on its target; spills are the pinned version's."""
    if triton.__version__ == PINNED:
        listed = (variant.label, target) in known_spills
        if binary.spills and not listed:
            yield f"spills {binary.spills} bytes"
        if listed and not binary.spills:
            yield "no longer spills: take it off KNOWN_SPILLS"
        if binary.spills >= LARGEST_SPILL:
            yield f"spills {binary.spills} bytes, which no listing excuses"
    if binary.shared > occupancy.LARGEST_SHARED[target]:
        yield f"takes {binary.shared} bytes of shared memory"
    elif not occupancy.programs(binary, target):
        yield f"does not fit on a multiprocessor: {binary}"
    kinds = {name.split()[0] for name in binary.matrix}
    if variant.matrix and not kinds:
        yield "leaves the matrix units idle"
    elif variant.matrix and target == "sm_90" and kinds != set(variant.matrix.split()):
        yield f"wants {variant.matrix}, has {binary.matrix}"


@pytest.mark.binaries
@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("name", MODULES)
def test_every_variant_compiles_and_fits(name, target):
    known = getattr(MODULES[name], "KNOWN_SPILLS", {})
    found = [
        f"{variant.label} for {target} {fault}"
        for variant, binary in binaries(name, target)
        for fault in faults(variant, binary, target, known)
    ]
    assert not found, "\n".join(found)


@pytest.mark.binaries
@pytest.mark.parametrize("name", MODULES)
def test_no_minimum_or_maximum_drops_nan(name):
    """As PTX says; the interpreter keeps NaN either way. Float64 has no such instructions."""
    excused = getattr(MODULES[name], "PLAIN_EXTREMA", {})
    found = [
        f"{variant.label}: {binary.plain_extrema}"
        for variant, binary in binaries(name, "sm_90")
        if binary.plain_extrema and variant.kernel.__name__ not in excused
    ]
    assert not found, "\n".join(found)


@pytest.mark.binaries
@pytest.mark.parametrize("name", MODULES)
def test_integers_may_be_one(name):
    """The JIT makes constants of them, on which some methods of tensors do not exist."""
    first = {v.kernel: v for v in reversed(aot.variants_of(name).values())}
    survey.compiles_with_ones(survey.Job(name, v.label, "sm_90") for v in first.values())


@pytest.mark.parametrize("name", MODULES)
def test_listings_name_what_exists(name):
    variants = aot.variants_of(name)
    for label, target in getattr(MODULES[name], "KNOWN_SPILLS", {}):
        assert label in variants
        assert target in variants[label].targets
    kernels = {v.kernel.__name__ for v in variants.values()}
    assert set(getattr(MODULES[name], "PLAIN_EXTREMA", {})) <= kernels


@pytest.mark.parametrize("name", ["log_likelihood", "net_potential", "net_trajectory", "net_chain"])
def test_stds_are_read_in_the_forms_of_a_gaussian_alone(name):
    has_std = {v.constants["LIKELIHOOD"]: set() for v in aot.variants_of(name).values()}
    for variant in aot.variants_of(name).values():
        std = variant.signature.get("p_std", "constexpr")
        has_std[variant.constants["LIKELIHOOD"]].add(std != "constexpr")
    assert has_std.pop("gaussian") == {True}
    assert set.union(*has_std.values()) == {False}


@pytest.mark.parametrize("name", MEASURED)
def test_no_listing_excuses_what_is_measured(name):
    widths = "-".join(map(str, MEASURED[name][0]))
    known = getattr(MODULES[name], "KNOWN_SPILLS", {})
    assert any(widths in label for label in aot.variants_of(name))
    assert not [listed for listed in known if widths in listed[0] and listed[1] in MEASURED_ON]


def test_the_table_is_up_to_date():
    reason = table.outdated((ROOT / "docs" / "kernels.md").read_text(), PINNED)
    assert not reason, f"docs/kernels.md: {reason}; run `make kernels`"


@pytest.mark.parametrize(
    ("target", "warps", "registers", "shared", "programs"),
    [
        ("sm_80", 4, 64, 0, 8),  # registers
        ("sm_80", 4, 65, 0, 7),  # rounded up to 72
        ("sm_80", 8, 255, 0, 1),
        ("sm_80", 16, 255, 0, 0),
        ("sm_80", 1, 32, 0, 32),  # programs
        ("sm_80", 8, 32, 0, 8),  # warps
        ("sm_80", 4, 32, 40 * 1024, 4),  # 41 KiB of 164 with the driver's
        ("sm_90", 4, 32, 40 * 1024, 5),
        ("sm_90", 4, 32, 232448, 1),
        ("gfx942", 4, 128, 0, 4),
        ("gfx942", 4, 129, 0, 3),
        ("gfx942", 4, 64, 16384, 4),
    ],
)
def test_occupancy(target, warps, registers, shared, programs):
    """NVIDIA's rows are results of cuda_occupancy.h."""
    binary = Binary(warps, 1, registers, 0, shared, 0, {}, {})
    assert occupancy.programs(binary, target) == programs


@pytest.mark.binaries
def test_occupancy_on_amd_is_the_compiler_s_own():
    """LLVM writes the waves of one of the four units into the assembly."""
    for variant in list(aot.variants_of("pgd_step").values())[:4]:
        compiled = aot.build(variant, "gfx942")
        waves = int(re.search(r"; Occupancy: (\d+)", compiled.asm["amdgcn"])[1])
        binary = examine(compiled, "gfx942")
        assert occupancy.programs(binary, "gfx942") == waves * 4 // binary.warps
