"""Decompositions of many matrices: the same bits for any number of threads."""

import pytest
import torch

from vaefast.runtime import matrices, openmp, threads


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("b", "m"), [(0, 4), (1, 8), (5, 3), (40, 48), (101, 40)])
def test_threads_and_cuts_change_no_bit(monkeypatch, count, b, m):
    monkeypatch.setattr(threads, "count", lambda: count)
    factors = torch.randn(b, m, m, generator=torch.Generator().manual_seed(0)).double()
    gram = factors @ factors.mT
    found = torch.cat(matrices.each(torch.linalg.eigvalsh, gram))
    with openmp.at_most(1):
        assert torch.equal(found, torch.linalg.eigvalsh(gram))


def test_large_matrices_keep_all_threads():
    calls = []
    matrices.each(lambda part: calls.append(len(part)), torch.zeros(3, matrices.LARGE, 2))
    assert calls == [3]


def test_an_error_of_a_part_arrives(monkeypatch):
    monkeypatch.setattr(threads, "count", lambda: 2)

    def fail(part):
        raise ValueError("no decomposition")

    with pytest.raises(ValueError, match="no decomposition"):
        matrices.each(fail, torch.zeros(100, 64, 64))
