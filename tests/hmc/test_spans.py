"""One call of the op per run: which transitions it holds, and which draws are kept of them."""

import pytest
import torch

from vaefast import ops
from vaefast.hmc import sample
from vaefast.hmc.options import Options
from vaefast.hmc.spans import kept_draws, op_thin, passed_draws, spans


def options(steps, keep, warmup=0):
    return Options.checked(
        chains=1, steps=steps, warmup=warmup, leapfrog=None, adapt=None, jitter=None, mass=None,
        schedule=None, keep=keep, precision="ieee", memory_format="contiguous", seed=0,
    )  # fmt: skip


def images(rows):
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def calls(monkeypatch):
    """Records (first_step, steps, thin) of every call of net_chain."""
    made = []
    net_chain = ops.net_chain

    def counted(*tensors, **given):
        made.append((given["first_step"], given["steps"], given["thin"]))
        return net_chain(*tensors, **given)

    monkeypatch.setattr(ops, "net_chain", counted)
    return made


@pytest.mark.parametrize(
    ("keep", "thin"), [("all", 1), ("last", 0), (1, 0), (3, 33), (9, 11), (10, 9), (98, 1)]
)
def test_a_frozen_run_is_one_call_of_the_op(mlp_vae, calls, keep, thin):
    result = sample(mlp_vae(), images(3), adapt=None, warmup=0, steps=99, leapfrog=1, keep=keep)
    assert calls == [(0, 99, thin)]
    assert result.z.shape[2] == {"all": 99, "last": 1}.get(keep, keep)


@pytest.mark.parametrize("adapt", [None, "dual_averaging"])
def test_the_warm_up_adds_one_call_at_most(mlp_vae, calls, adapt):
    """The gap of 9 is no divisor of 107, the index of the last transition plus one: all pass by."""
    sample(mlp_vae(), images(3), adapt=adapt, warmup=8, steps=99, leapfrog=1, keep=10)
    assert calls == [(0, 8, 0)] * (adapt is None) + [(8, 99, 1)]


def test_each_chunk_of_rows_is_a_call(mlp_vae, calls, budget):
    budget(40_000)
    sample(mlp_vae(), images(40), adapt=None, warmup=0, steps=9, leapfrog=1, keep="last")
    assert len(calls) > 1
    assert set(calls) == {(0, 9, 0)}


def test_a_progress_bar_cuts_the_run(mlp_vae, calls):
    sample(mlp_vae(), images(2), adapt=None, warmup=0, steps=100, leapfrog=1, progress=True)
    assert calls == [(first, 2, 1) for first in range(0, 100, 2)]


def test_draws_that_do_not_fit_are_not_passed_by(mlp_vae, calls, budget):
    """Then a call ends at every draw that is kept: 3 of 99 transitions, after a warm-up of 8."""
    budget(2_000)
    few = sample(mlp_vae(), images(1), adapt=None, warmup=8, steps=99, leapfrog=1, keep=3)
    assert calls == [(0, 8, 0), (8, 33, 0), (41, 33, 0), (74, 33, 0)]
    budget(1 << 30)
    one = sample(mlp_vae(), images(1), adapt=None, warmup=8, steps=99, leapfrog=1, keep=3)
    assert torch.equal(few.z, one.z)
    assert torch.equal(few.energy, one.energy)


@pytest.mark.parametrize("warmup", [0, 3, 7])
@pytest.mark.parametrize("steps", [1, 2, 7, 12])
@pytest.mark.parametrize("shown", [False, True])
def test_every_transition_runs_once_in_order(warmup, steps, shown, monkeypatch):
    monkeypatch.setattr("vaefast.hmc.spans.SEGMENTS", 3)
    for keep in range(1, steps + 1):
        chosen = options(steps, keep, warmup)
        for thin in {0, op_thin(chosen, 1, 24)}:
            cuts = spans(chosen, thin=thin, shown=shown)
            run = [t for span in cuts for t in range(span.first_step, span.end)]
            assert run == list(range(warmup + steps))
            assert any(span.first_step == warmup for span in cuts)


class Ends:
    """A run whose state after transition t is t + 1."""

    def __init__(self, span):
        self.z = torch.full((1, 1), float(span.end))
        self.U = self.z[:, 0]
        ends = range(span.first_step + 1, span.end + 1)
        kept = [end for end in ends if span.thin and end % span.thin == 0]
        self.draws = torch.tensor(kept).view(1, -1, 1)
        self.energies = self.draws[..., 0]


@pytest.mark.parametrize("warmup", [0, 3, 7])
@pytest.mark.parametrize("steps", [1, 2, 7, 12])
@pytest.mark.parametrize("shown", [False, True])
def test_the_kept_draws_are_evenly_spaced_and_the_last_is_one(warmup, steps, shown, monkeypatch):
    monkeypatch.setattr("vaefast.hmc.spans.SEGMENTS", 3)
    for keep in range(1, steps + 1):
        chosen = options(steps, keep, warmup)
        expected = [warmup + steps - k * (steps // keep) for k in reversed(range(keep))]
        for thin in {0, op_thin(chosen, 1, 24)}:
            parts = [(s, Ends(s)) for s in spans(chosen, thin=thin, shown=shown)]
            z, U = kept_draws(chosen, [part for part in parts if part[0].first_step >= warmup])
            assert z[0, :, 0].tolist() == U[0].tolist() == expected


def test_draws_passed_by_are_counted():
    aligned, crossed = options(99, 9), options(99, 10, warmup=1)
    assert (op_thin(aligned, 1, 24), passed_draws(aligned, 11)) == (11, 9)
    assert (op_thin(crossed, 1, 24), passed_draws(crossed, 1)) == (1, 99)
    assert passed_draws(crossed, 0) == 10
