"""How the rows of a shard are cut for the task."""

import numpy as np
import pytest
import torch

from vaefast.jobs import rows
from vaefast.jobs.durable import checksum, file_checksum
from vaefast.jobs.manifest import Column
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
