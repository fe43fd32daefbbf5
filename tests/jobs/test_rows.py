"""How the rows of a shard are cut for the task."""

import numpy as np
import pytest
import torch

from vaefast.jobs import rows
from vaefast.jobs.durable import checksum, file_checksum
from vaefast.jobs.manifest import Column
from vaefast.jobs.sources import open_source
from vaefast.jobs.tasks import Computed
from vaefast.runtime.batching import BLOCK


def cuts_of(places, start, row_bytes):
    """Global numbers of each call of the task."""
    calls = []

    def work(x, index):
        calls.append(index.numpy())
        failed = torch.zeros(len(x), dtype=torch.bool)
        return Computed({"v": index.double()}, failed, ("",) * len(x))

    filled = rows.Filled((Column("v", "float64"),), int(places.max()) + 1)
    rows.compute_rows(work, torch.zeros(len(places), row_bytes // 4), places, start, filled)
    assert filled.values["v"][places].tolist() == (start + places).tolist()
    return calls


@pytest.mark.parametrize("start", [0, 50, 4096])
@pytest.mark.parametrize("blocks", [0.5, 1, 2.9])
def test_a_shard_is_cut_between_the_blocks_of_modules(start, blocks, monkeypatch):
    """Every block in one call, whatever rows could not be read; as many as fit, at least one."""
    monkeypatch.setattr(rows, "BATCH_BYTES", int(blocks * BLOCK) * 16)
    places = np.array([k for k in range(700) if k % 7 and not 100 < k < 300])
    calls = cuts_of(places, start, 16)
    blocks_of = [set((call // BLOCK).tolist()) for call in calls]
    assert sum(map(len, blocks_of)) == len(set.union(*blocks_of))
    assert max(map(len, blocks_of)) == max(1, int(blocks))


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path):
    data = np.random.default_rng(0).bytes((1 << 20) + 17)
    (tmp_path / "x").write_bytes(data)
    assert file_checksum(tmp_path / "x") == checksum(data)


@pytest.mark.parametrize("rows_at_once", [1, 10, 64, 1000])
def test_a_shard_that_is_read_in_parts_is_the_same(rows_at_once):
    """But for the checksum of its inputs, which tells the parts apart; shards begin anywhere."""
    x = np.random.default_rng(0).random((90, 3), dtype=np.float32)
    x[33, 1] = np.nan
    source = open_source(x)
    source.y = np.arange(90) % 7

    def work(x, index):
        failed = torch.zeros(len(x), dtype=torch.bool)
        return Computed({"v": x.sum(1) + index}, failed, tuple(f"{k}" for k in index.tolist()))

    def shard(rows_at_once, before=None):
        columns, asked = (Column("v", "float32"),), []
        read = source.read
        source.read = lambda a, b: asked.append((a, b)) or read(a, b)
        found = rows.shard_of(
            1, (13, 83), source, work, columns=columns, labels=True, to_model=lambda x: x,
            rows_at_once=rows_at_once, before=before,
        )  # fmt: skip
        source.read = read
        return found, asked

    whole, (asked,) = shard(1 << 62)
    parts, several = shard(rows_at_once)
    assert asked == (13, 83)
    assert [k for a, b in several for k in range(a, b)] == list(range(13, 83))
    assert max(b - a for a, b in several) <= rows_at_once
    assert all(a % rows_at_once == 0 for a, _ in several[1:])
    assert parts.content == whole.content
    assert parts.labels.tolist() == whole.labels.tolist()
    assert parts.failed.nonzero()[0].tolist() == [20]
    again, _ = shard(rows_at_once, parts)
    assert (again.content, again.inputs) == (parts.content, parts.inputs)
    source._x[80] = 0.0
    assert shard(rows_at_once)[0].inputs != parts.inputs
