"""The defence: last states and what they decode to."""

import pytest
import torch

from vaefast.hmc import KUZINA2022, defend, sample

SHORT = {"chains": 2, "steps": 10, "warmup": 5, "seed": 3}


def images(rows):
    return torch.rand(rows, 1, 2, 3, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("generic", [False, True])
def test_decodes_the_last_state_of_every_chain(mlp_vae, likelihood, generic):
    vae, x = mlp_vae(likelihood, generic=generic), images(3)
    defence = defend(vae, x, **SHORT)
    chains = sample(vae, x, **SHORT)
    torch.testing.assert_close(defence.z, chains.z[:, :, -1], rtol=1e-6, atol=1e-8)
    assert defence.reconstruction.shape == (3, 2, 1, 2, 3)
    assert defence.reconstruction.dtype == x.dtype
    with torch.no_grad():
        expected = vae.g(defence.z.flatten(0, 1)).view(3, 2, 1, 2, 3)
    torch.testing.assert_close(defence.reconstruction, expected)
    assert defence.result.z.shape == (3, 2, 1, 2)
    assert not defence.reconstruction.requires_grad


def test_keeps_what_it_is_told(mlp_vae):
    defence = defend(mlp_vae(), images(3), keep="all", **SHORT)
    assert defence.result.z.shape == (3, 2, 10, 2)
    assert torch.equal(defence.z, defence.result.z[:, :, -1])


def test_a_bad_row_is_nan(mlp_vae):
    x = images(3)
    x[1, 0, 0, 0] = torch.nan
    defence = defend(mlp_vae(), x, **SHORT)
    assert defence.z[1].isnan().all()
    assert defence.reconstruction[1].isnan().all()
    assert defence.reconstruction[[0, 2]].isfinite().all()


def test_a_users_decoder_never_sees_nan(mlp_vae):
    vae, x, clean = mlp_vae(generic=True), images(3), []
    vae.decoder.register_forward_hook(lambda m, z, out: clean.append(bool(z[0].isfinite().all())))
    x[1, 0, 0, 0] = torch.nan
    assert defend(vae, x, **SHORT).result.failed.tolist() == [False, True, False]
    assert all(clean)


def test_memory_chunks_change_nothing(mlp_vae, budget):
    vae, x = mlp_vae(), images(20)
    whole = defend(vae, x, **SHORT)
    budget(30_000)
    cut = defend(vae, x, **SHORT)
    torch.testing.assert_close(cut.reconstruction, whole.reconstruction, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rows", [0, 2])
def test_published_defence(mlp_vae, rows):
    preset = {**KUZINA2022["mnist"], "steps": 10}
    defence = defend(mlp_vae(), images(rows), **preset, group=2, chains=3)
    assert defence.z.shape == (rows, 3, 2)
    assert defence.reconstruction.shape == (rows, 3, 1, 2, 3)


def test_moves_towards_the_posterior(mlp_vae):
    """Chains that start far away end where the joint density is high."""
    vae, x = mlp_vae("gaussian"), images(4)
    far = torch.full((4, 2), 6.0).double()
    start = sample(vae, x, init=far, steps=1, warmup=0, step_size=1e-9, adapt=None)
    end = defend(vae, x, init=far, chains=4, steps=50, warmup=100).result
    assert (end.energy.mean(1) < start.energy[:, 0] - 5).all()
