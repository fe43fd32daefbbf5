"""Philox 4x32-10: known answers, the counter's layout, a table for all backends, and statistics.

The generator is written down a second time here, in plain Python integers.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import vaefast as vf
from vaefast import philox
from vaefast.philox import Use

needs_cpp = pytest.mark.skipif(not vf.supports("pgd_step", "cpp"), reason="no C++ extension")
TABLE = Path(__file__).parent / "data" / "philox.json"
WORD = 0xFFFFFFFF
KNOWN_ANSWERS = [  # counter, key, output: the published vectors of Random123
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox_4x32_10(counter, key):
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & WORD, (a >> 32) ^ c[3] ^ k1, a & WORD]
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return tuple(c)


def bits(element, *, seed, index, step, lane, use):
    """One 32-bit integer by the layout of design.md, contract 5."""
    counter = (
        element // 4,
        step,
        index & WORD,
        use * 2**24 + lane * 2**12 + (index >> 32),
    )
    return philox_4x32_10(counter, (seed & WORD, seed >> 32 & WORD))[element % 4]


def uniform(element, **place):
    return (bits(element, **place) + 0.5) / 2**32


def normal(element, **place):
    first = element - element % 2
    radius = math.sqrt(-2 * math.log(uniform(first, **place)))
    angle = 2 * math.pi * uniform(first + 1, **place)
    return radius * (math.sin(angle) if element % 2 else math.cos(angle))


def places():
    """66 counters: every word, both ends of every field, every use; later uses came at the end."""
    uses = [*([*Use][:12] * 6)[:64], Use.PILOT, Use.ANCHOR]
    for i, use in enumerate(uses):
        yield {
            "element": (0, 1, 2, 3, 4, 7, 30, 4095)[i % 8],
            "seed": (0, 1, 2**32, 2**64 - 1, 12345, 0xDEADBEEFCAFEF00D)[i % 6],
            "index": (0, 1, 2**32 - 1, 2**32, 2**44 - 1, 1_000_003, 7 * 2**33 + 5)[i % 7],
            "step": (0, 1, 999, 2**32 - 1, 2**31)[i % 5],
            "lane": (0, 1, 4095)[i % 3],
            "use": int(use),
        }


def table():
    """What tests/data/philox.json holds, computed afresh."""
    rows = []
    for place in places():
        element, rest = place["element"], {k: v for k, v in place.items() if k != "element"}
        values = {"bits": bits(element, **rest), "uniform": uniform(element, **rest)}
        rows.append({**place, **values, "normal": normal(element, **rest)})
    return rows


def draw(function, place, **options):
    """The number at one place, from vaefast."""
    rest = {k: v for k, v in place.items() if k in ("seed", "step", "lane", "use")}
    index = torch.tensor([place["index"]])
    return function(place["element"] + 1, index=index, **rest, **options)[0, -1].item()


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_known_answers(counter, key, output):
    assert philox_4x32_10(counter, key) == output
    words = tuple(torch.tensor([word]) for word in counter)
    assert tuple(word.item() for word in philox._philox(words, key)) == output


def test_table_is_what_plain_integers_give():
    stored, fresh = json.loads(TABLE.read_text()), table()
    assert len(stored) == len(fresh) == 66
    for kept, row in zip(stored, fresh):
        assert {k: kept[k] for k in row if k != "normal"} == {
            k: row[k] for k in row if k != "normal"
        }
        assert kept["normal"] == pytest.approx(row["normal"], abs=1e-12)


@pytest.mark.parametrize("row", json.loads(TABLE.read_text()), ids=lambda row: f"use{row['use']}")
def test_table(row):
    assert draw(philox.integers, row) == row["bits"]
    assert draw(philox.uniform, row) == row["uniform"]
    assert draw(philox.normal, row) == pytest.approx(row["normal"], abs=1e-12)
    assert draw(philox.normal, row, dtype=torch.float32) == pytest.approx(row["normal"], abs=2e-6)


def test_uses_are_fixed_for_ever():
    names = "MOMENTUM ACCEPT JITTER LATENT INITIAL START RADIUS DAMAGE FRESH PROBE POSTERIOR MARGIN"
    assert [use.name for use in Use] == [*names.split(), "PILOT", "ANCHOR"]
    assert [int(use) for use in Use] == list(range(1, 15))


def test_every_field_has_its_own_bits():
    """The largest value of a field never spills into its neighbour."""
    base = {"element": 0, "seed": 0, "index": 0, "step": 0, "lane": 0, "use": 1}
    ends = {"seed": 2**64 - 1, "index": 2**44 - 1, "step": 2**32 - 1, "lane": 2**12 - 1, "use": 255}
    ends |= {"element": 4}
    seen = [draw(philox.integers, {**base, field: end}) for field, end in ends.items()]
    seen += [draw(philox.integers, {**base, field: 1}) for field in ends if field != "use"]
    seen += [draw(philox.integers, {**base, "seed": 2**32, "index": 2**32})]
    assert len({*seen, draw(philox.integers, base)}) == len(seen) + 1


def test_negative_seeds_are_taken_modulo_two_to_the_64():
    index = torch.arange(3)
    a = philox.integers(4, seed=-1, index=index, use=Use.START)
    assert torch.equal(a, philox.integers(4, seed=2**64 - 1, index=index, use=Use.START))


def test_steps_and_lanes_per_row_equal_the_rows_alone():
    index, step, lane = (
        torch.tensor([5, 5, 2**40]),
        torch.tensor([0, 3, 9]),
        torch.tensor([1, 0, 7]),
    )
    together = philox.normal(6, seed=4, index=index, step=step, lane=lane, use=Use.MOMENTUM)
    for n in range(3):
        alone = philox.normal(
            6,
            seed=4,
            index=index[n : n + 1],
            step=int(step[n]),
            lane=int(lane[n]),
            use=Use.MOMENTUM,
        )
        assert torch.equal(together[n : n + 1], alone)


@pytest.mark.parametrize("function", [philox.integers, philox.uniform, philox.normal])
@pytest.mark.parametrize("step", [0, 7, 2**31, 2**32 - 1])
def test_a_step_may_be_a_tensor_without_dimensions(function, step):
    options = {"seed": 4, "index": torch.tensor([5, 2**40]), "use": Use.MOMENTUM}
    expected = function(6, step=step, **options)
    assert torch.equal(function(6, step=torch.tensor(step), **options), expected)
    assert torch.equal(function(6, step=torch.tensor([step, step]), **options), expected)


def test_draws_together_are_the_draws_alone():
    lane, index, step = torch.tensor([1, 0, 7]), torch.tensor([5, 5, 2**40]), torch.tensor(9)
    draws = [
        philox.Draw(6, Use.MOMENTUM, lane),
        philox.Draw(1, Use.ACCEPT, lane),
        philox.Draw(0, Use.PROBE),
        philox.Draw(9, Use.JITTER, 3),
    ]
    found = philox.together(draws, seed=-3, index=index, step=step)
    for (count, use, lane), k in zip(draws, found, strict=True):
        alone = philox.integers(count, seed=-3, index=index, step=9, lane=lane, use=use)
        assert torch.equal(k, alone)


@pytest.mark.parametrize("seed", [0, -(1 << 63), (1 << 64) - 1, np.int64(7)])
def test_seeds_of_64_bits_are_taken(seed):
    assert philox.check_seed(seed) == int(seed)
    assert type(philox.check_seed(seed)) is int


@pytest.mark.parametrize("seed", [-(1 << 63) - 1, 1 << 64])
def test_seeds_beyond_64_bits_are_refused(seed):
    with pytest.raises(ValueError, match=r"seed must lie in \[-2\*\*63, 2\*\*64\), got"):
        philox.check_seed(seed)


@pytest.mark.parametrize("seed", [1.5, "a", None, True])
def test_seeds_that_are_no_whole_numbers_are_refused(seed):
    with pytest.raises(TypeError, match="seed must be a whole number, got"):
        philox.check_seed(seed)


@pytest.mark.parametrize("function", [philox.integers, philox.uniform, philox.normal])
def test_more_numbers_begin_with_the_fewer(function):
    longest = function(9, seed=1, index=torch.arange(4), use=Use.PROBE)
    assert longest.shape == (4, 9)
    for count in range(9):
        fewer = function(count, seed=1, index=torch.arange(4), use=Use.PROBE)
        assert torch.equal(fewer, longest[:, :count])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_range(dtype):
    u = philox.uniform(1000, seed=0, index=torch.arange(50), use=Use.ACCEPT, dtype=dtype)
    assert u.dtype == dtype
    assert u.min() > 0
    assert u.max() <= 1
    z = philox.normal(1000, seed=0, index=torch.arange(50), use=Use.ACCEPT, dtype=dtype)
    assert z.dtype == dtype
    assert z.isfinite().all()
    assert z.abs().max() < math.sqrt(2 * 33 * math.log(2))  # no uniform lies below 2⁻³³


def test_uniforms_are_uniform_and_normals_normal():
    index = torch.arange(256)
    u = philox.uniform(256, seed=11, index=index, use=Use.LATENT).flatten()
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    z = philox.normal(256, seed=12, index=index, use=Use.LATENT).flatten()
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(z.numpy())) < 4 * math.sqrt(24 / z.numel())


def test_every_bit_is_fair():
    words = philox.integers(4096, seed=3, index=torch.arange(16), use=Use.PROBE).flatten()
    ones = torch.stack([(words >> bit & 1).double().mean() for bit in range(32)])
    assert ((ones - 0.5).abs() < 4.5 * 0.5 / math.sqrt(words.numel())).all()


@pytest.mark.parametrize("field", ["element", "index", "step", "lane", "use", "seed"])
def test_neighbouring_counters_are_uncorrelated(field):
    options = {"seed": 3, "index": torch.arange(2000), "use": Use.DAMAGE, "step": 0, "lane": 0}
    a = philox.normal(16, **options)
    if field == "element":
        a, b = a[:, :-1], a[:, 1:]
    else:
        b = philox.normal(16, **{**options, field: options[field] + 1})
    correlation = torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]
    if field == "index":  # the same numbers, one row further
        assert torch.equal(a[1:], b[:-1])
        correlation = torch.corrcoef(torch.stack((a[:-1].flatten(), a[1:].flatten())))[0, 1]
    assert abs(correlation) < 4.5 / math.sqrt(a.numel())


def cpp_integers(count, first=0, *, seed, index, step=0, lane=0, use):
    from vaefast import _C

    out = np.empty((len(index), count), np.uint32)
    place = (seed, index.data_ptr(), len(index), step, lane, use)
    _C.philox_integers(*place, first, count, out.ctypes.data)
    return torch.from_numpy(out.astype(np.int64))


def cpp_uniform(count, *, seed, index, step=0, lane=0, use):
    from vaefast import _C

    rows = [
        [_C.philox_uniform(seed, i, step, lane, use, e) for e in range(count)]
        for i in index.tolist()
    ]
    return torch.tensor(rows, dtype=torch.float64)


def cpp_normal(count, *, seed, index, step=0, lane=0, use, dtype=torch.float64):
    from vaefast import _C

    out = torch.full((len(index), count), math.nan, dtype=dtype)
    draw = _C.philox_normal_f32 if dtype == torch.float32 else _C.philox_normal_f64
    draw(seed, index.data_ptr(), len(index), step, lane, use, count, out.data_ptr())
    return out


@needs_cpp
@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_cpp_known_answers(counter, key, output):
    element, step, low, last = counter
    index = torch.tensor([low | (last & 0xFFF) << 32])
    place = {"step": step, "lane": last >> 12 & 0xFFF, "use": last >> 24}
    drawn = cpp_integers(4, 4 * element, seed=key[0] | key[1] << 32, index=index, **place)
    assert tuple(drawn[0].tolist()) == output


@needs_cpp
def test_cpp_table():
    for row in json.loads(TABLE.read_text()):
        assert draw(cpp_integers, row) == row["bits"]
        assert draw(cpp_uniform, row) == row["uniform"]
        assert draw(cpp_normal, row) == pytest.approx(row["normal"], abs=1e-14)
        single = draw(cpp_normal, row, dtype=torch.float32)
        assert single == pytest.approx(row["normal"], abs=2e-6)


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cpp_draws_what_the_reference_draws(dtype):
    place = {"seed": 2**64 - 3, "index": torch.arange(3000), "step": 5, "lane": 9, "use": Use.PROBE}
    assert torch.equal(cpp_integers(75, **place), philox.integers(75, **place))
    longest, truth = cpp_normal(75, **place, dtype=dtype), philox.normal(75, **place)
    error = (longest.double() - truth).abs().max()
    assert error <= (1e-14 if dtype == torch.float64 else 3e-7)
    for count in (*range(36), 64, 65):
        assert torch.equal(cpp_normal(count, **place, dtype=dtype), longest[:, :count])


@needs_cpp
def test_cpp_on_every_isa_level():
    from vaefast import _C

    if "VAEFAST_ISA" in os.environ:
        pytest.skip("a level is pinned")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "cpp",
    ]
    for level in _C.isa_levels():
        environment = {**os.environ, "VAEFAST_ISA": level}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
        assert result.returncode == 0, f"{level}: {result.stdout}"


def test_few_numbers_are_those_of_many():
    index = torch.tensor([5, 1 << 43])
    few = philox.integers(9, seed=7, index=index, step=2, lane=3, use=Use.PROBE)
    many = philox.integers(9, seed=7, index=index.repeat(2000), step=2, lane=3, use=Use.PROBE)
    assert torch.equal(many, few.repeat(2000, 1))
    assert philox.integers(9, seed=7, index=index[:0], use=Use.PROBE).shape == (0, 9)
