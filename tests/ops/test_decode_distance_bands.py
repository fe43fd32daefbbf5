"""decode_distance in tf32 and bf16: the band, what lies in it, and what is decided again."""

import logging

import pytest
import torch

from vaefast.bench.cases import network
from vaefast.ops import decode_distance, net_forward
from vaefast.ops.decode_distance import Call
from vaefast.runtime import backends

S = 60


@pytest.fixture
def triton_op(backend):
    if backend != "triton" or not backends.interpreted():
        pytest.skip("the Triton interpreter is off (TRITON_INTERPRET=1)")
    from vaefast.kernels import decode_distance as module

    return module


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    net = network((5, 40, 75), "tanh,sigmoid", dtype=torch.float32)
    mean = torch.randn(6, 5, generator=generator)
    std = 0.2 + torch.rand(6, 5, generator=generator)
    centre = net_forward(mean, net, backend="reference")
    return mean, std, centre, torch.linspace(0.5, 1.5, 6), net


def counted(module, case, precision, samples=S, first=0, tile=0):
    index, how = torch.arange(len(case[0])), (precision, tile, "triton")
    return module.count(Call(*case, index, 7, first, samples, *how))


@pytest.fixture
def ieee(case, triton_op):
    return decode_distance(*case, samples=S, seed=7, backend="triton")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_hits_are_those_of_ieee(triton_op, case, ieee, precision):
    result = counted(triton_op, case, precision)
    assert torch.equal(result.hits, ieee)
    assert 0 < ieee.sum() < 6 * S
    assert result.decided_again < 6 * S / 4


def test_bf16_alone_would_err_and_the_band_holds_its_error(triton_op, case, ieee, monkeypatch):
    band = triton_op.error_band
    assert counted(triton_op, case, "bf16").decided_again > 0
    monkeypatch.setattr(
        triton_op, "error_band", lambda *a: torch.full((6,), -1e-9, dtype=torch.float64)
    )
    low = counted(triton_op, (*case[:3], halfway(case), case[4]), "bf16")
    monkeypatch.setattr(triton_op, "error_band", band)
    exact = counted(triton_op, (*case[:3], halfway(case), case[4]), "ieee")
    assert not torch.equal(low.hits, exact.hits)
    repaired = counted(triton_op, (*case[:3], halfway(case), case[4]), "bf16")
    assert torch.equal(repaired.hits, exact.hits)


def halfway(case):
    """Radii at the median distance, where a small error decides."""
    mean, std, centre, _, net = case
    draws = 100
    z = mean[:, None] + std[:, None] * torch.randn(
        6, draws, 5, generator=torch.Generator().manual_seed(1)
    )
    out = net_forward(z.flatten(0, 1), net, backend="reference").unflatten(0, (6, draws))
    return (out - centre[:, None]).norm(dim=2).median(dim=1).values


@pytest.mark.parametrize("band", [float("inf"), float("nan")])
def test_everything_open_is_everything_in_ieee(triton_op, case, ieee, band, monkeypatch):
    """More rows than a launch may write down, in several launches and cuts of the samples."""
    wide = torch.full((6,), band, dtype=torch.float64)
    monkeypatch.setattr(triton_op, "error_band", lambda call, kind: wide[: len(call.mean)])
    for most in (1 << 22, 130) if band > 0 else (50,):
        monkeypatch.setattr(triton_op, "MOST_OPEN", most)
        result = counted(triton_op, case, "bf16")
        assert torch.equal(result.hits, ieee)
        assert result.decided_again == 6 * S


@pytest.mark.parametrize("tile", [16, 64])
def test_hits_add_up_over_cuts_and_tiles(triton_op, case, ieee, tile):
    parts = [
        counted(triton_op, case, "bf16", n, first, tile).hits for first, n in ((0, 37), (37, 23))
    ]
    assert torch.equal(sum(parts), ieee)


def test_bad_rows_have_no_hits_and_cost_no_second_decision(triton_op, case, ieee):
    mean, std, centre, r, _ = case
    mean[0, 2], std[1, 0], centre[2, 70], r[3] = torch.nan, torch.inf, torch.nan, torch.inf
    result = counted(triton_op, case, "bf16")
    assert result.hits[:4].tolist() == [0] * 4
    assert torch.equal(result.hits[4:], ieee[4:])


def test_what_overflows_in_bf16_is_decided_in_ieee(triton_op):
    """3.395e38 is finite in float32 and infinite when rounded to bf16."""
    net = network((1, 1), "identity", dtype=torch.float32)._replace(
        weights=[torch.ones(1, 1)], biases=[None]
    )
    mean = torch.full((1, 1), 3.4e38)
    case = mean, torch.zeros(1, 1), mean.clone(), torch.ones(1), net
    result = counted(triton_op, case, "bf16", samples=50)
    assert result.hits.item() == 50
    assert result.decided_again == 50


def test_the_share_is_logged(triton_op, case, caplog):
    with caplog.at_level(logging.DEBUG, logger="vaefast"):
        decode_distance(*case, samples=50, precision="bf16", backend="triton")
    assert "decode_distance in bf16 decided" in caplog.text
    assert "% of the samples again" in caplog.text
