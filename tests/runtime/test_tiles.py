"""A pinned tile is what an op takes that is given none, and what makes bits on a GPU."""

import pytest
import torch

import vaefast as vf
from vaefast.runtime import batching, tiles


def test_a_pinned_tile_is_the_default_of_every_op():
    assert tiles.check_tile(None) == 0
    vf.set_tile(32)
    assert tiles.check_tile(None) == 32
    assert tiles.check_tile(16) == 16
    vf.set_tile(None)
    assert tiles.check_tile(None) == 0


def test_results_promise_bits_on_a_gpu_only_with_a_pinned_tile(monkeypatch):
    monkeypatch.setattr(batching.backends, "resolve", lambda *arguments: "triton")
    rows = torch.zeros(2, 3)
    assert batching.reproducible(False, ["net_forward"], rows) == "round-off"
    vf.set_tile(16)
    assert batching.reproducible(False, ["net_forward"], rows) == "bits"


@pytest.mark.parametrize("tile", [0, 8, 48, 256, True, "32", 16.0])
def test_other_tiles_are_refused(tile):
    with pytest.raises((TypeError, ValueError), match="tile must be"):
        vf.set_tile(tile)
