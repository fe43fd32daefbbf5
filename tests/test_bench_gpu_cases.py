"""The cases of the GPU's benchmarks in tiny sizes: who takes part, and in what job."""

import logging

import pytest
import torch

from vaefast.bench import convolutional_hmc, jobs
from vaefast.bench.gpu import pairs
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops import decode_distance, net_chain, net_jacobian_gram
from vaefast.bench.place import Place, at_precision

TINY = Place("cpu", tiny=True)


@pytest.mark.parametrize("job", jobs.names(TINY))
def test_peers_agree_in_tiny_sizes(job):
    """The first case and the last, of which one is in bf16 and one in ieee where both are."""
    cases = jobs.cases(job, TINY)
    for title, build in dict((cases[0], cases[-1])).items():
        benchmark = build()
        assert title.split()[-1] in benchmark.case
        lines = []
        rows = list(pairs.run(benchmark, TINY, {}, rounds=1, say=lines.append))
        assert lines == []
        assert [row.provider for row in rows] == list(benchmark.providers)
        assert benchmark.bytes > 0
        assert set(benchmark.checks) | set(benchmark.at_least_of) <= set(benchmark.providers)


def test_ours_bounds_the_norm_as_the_library_does(monkeypatch):
    seen = []

    def bound(gram):
        seen.append(gram.dtype)
        return gram.diagonal(dim1=1, dim2=2).sum(1)

    monkeypatch.setattr(net_jacobian_gram, "largest_eigenvalue", bound)
    net_jacobian_gram.norms(TINY, "ieee").providers["vaefast"]()
    assert seen == [torch.float64] * net_jacobian_gram.CHUNKS


def test_no_peer_squares_in_tf32(monkeypatch):
    seen = []

    def norm(gram):
        seen.append((gram.dtype, torch.get_float32_matmul_precision()))
        return gram.diagonal(dim1=1, dim2=2).sum(1)

    monkeypatch.setattr(net_jacobian_gram, "norm", norm)
    case = net_jacobian_gram.norms(TINY, "bf16")
    with at_precision("bf16"):
        for name in (*net_jacobian_gram.BY_HAND, "vmap(jacrev)", "torch.compile of vmap(jacrev)"):
            case.providers[name]()
    assert seen == [(torch.float32, "highest")] * 4


def test_peers_that_compile_nothing_come_first():
    names = list(net_chain.case(TINY, nets.TINY, 4, "tf32").providers)
    assert names[:4] == ["vaefast", "autograd", "vmap(grad)", "CUDA graph, gradient by hand"]
    asked = list(convolutional_hmc.case(TINY, "ieee").providers)
    assert asked[:3] == ["vaefast, one block", "eager", "torch.compile, CUDA graph"]


def test_convolutional_work_is_counted():
    """Of the decoder at 8 x 8: a linear layer and three transposed convolutions."""
    job = convolutional_hmc.Job(TINY)
    case = convolutional_hmc.case(TINY, "ieee")
    assert case.flop == convolutional_hmc.TRANSITIONS * job.L * job.flop
    assert job.flop % (2 * job.N) == 0
    assert job.flop > 2 * job.N * 2 * sum(
        p.numel() for p in job.vae.decoder.parameters() if p.ndim > 1
    )  # every weight is used once or more
    assert case.limit == "ieee"
    assert all(once() >= 0 for once in case.once.values())


def test_decode_distance_tells_the_share_that_it_decided_again(monkeypatch):
    logger = logging.getLogger("vaefast")
    level = logger.level
    job = decode_distance.Job(TINY, nets.TINY, "bf16")
    assert job.decided_again() == "decided again: not known"  # the op ran in another backend
    monkeypatch.setattr(job, "ours", lambda _: logger.debug("decided 7 % of the samples again"))
    assert job.decided_again() == "decided 7 % of the samples again"
    assert logger.level == level
    assert decode_distance.case(TINY, nets.TINY, "ieee").remark is None
