"""Pyro's kernel and runner, chains in one batch: layout, laws, and Pyro's own numbers."""

import pytest
import torch

library = pytest.importorskip("pyro", reason="pyro-ppl is not installed")
ours = pytest.importorskip("vaefast.integrations.pyro")
dist = pytest.importorskip("pyro.distributions")
infer = pytest.importorskip("pyro.infer")

MEAN = torch.tensor([[1.0, -2.0], [0.0, 30.0]])
SCALE = torch.tensor([[0.1, 1.0], [2.0, 10.0]])


def potential(params):
    """One chain: a matrix of Gaussians and a scalar whose scale another one is."""
    z, log_scale = params["z"], params["a"]
    return 0.5 * (((z - MEAN) / SCALE) ** 2).sum() + 0.5 * log_scale**2


def starts(chains):
    generator = torch.Generator().manual_seed(0)
    return {
        "z": torch.randn(chains, 2, 2, generator=generator),
        "a": torch.randn(chains, generator=generator),
    }


def run(chains=12, samples=100, warmup=150, kernel=None, params=None, **options):
    library.set_rng_seed(1)
    kernel = ours.HMC(potential_fn=potential) if kernel is None else kernel
    params = starts(chains) if params is None else params
    mcmc = ours.MCMC(
        kernel, samples, warmup_steps=warmup, num_chains=chains, initial_params=params, **options
    )
    mcmc.run()
    return mcmc


def test_layout_and_law():
    mcmc = run()
    by_chain, flat = mcmc.get_samples(group_by_chain=True), mcmc.get_samples()
    assert by_chain["z"].shape == (12, 100, 2, 2)
    assert by_chain["a"].shape == (12, 100)
    assert flat["z"].shape == (1200, 2, 2)
    assert torch.equal(flat["z"], by_chain["z"].flatten(0, 1))
    assert mcmc.get_samples(num_samples=7)["a"].shape == (7,)
    assert ((flat["z"].mean(0) - MEAN) / SCALE).abs().max() < 0.15
    assert (flat["z"].std(0) / SCALE - 1).abs().max() < 0.12
    assert abs(float(flat["a"].std()) - 1) < 0.1


def test_diagnostics_and_summary_are_pyros(capsys):
    mcmc = run(chains=4)
    found = mcmc.diagnostics()
    assert (found["z"]["r_hat"] < 1.05).all()
    assert found["z"]["n_eff"].shape == (2, 2)
    assert list(found["acceptance rate"]) == ["chain 0", "chain 1", "chain 2", "chain 3"]
    assert found["divergences"] == {f"chain {n}": [] for n in range(4)}
    mcmc.summary()
    assert "Number of divergences: 0" in capsys.readouterr().out
    reference = infer.MCMC(
        infer.HMC(potential_fn=potential, num_steps=3),
        num_samples=5,
        warmup_steps=5,
        initial_params={name: value[0] for name, value in starts(1).items()},
        disable_progbar=True,
    )
    reference.run()
    assert set(reference.diagnostics()) == set(found)


def test_one_chain_a_batched_potential_and_seeds():
    def batched(params):
        z = params["z"].flatten(1)
        a = params["a"]
        return 0.5 * (((z - MEAN.flatten()) / SCALE.flatten()) ** 2).sum(1) + 0.5 * a**2

    one = {name: value[0] for name, value in starts(1).items()}
    runs = [
        run(1, 20, 60, ours.HMC(potential_fn=function, batched=whole, num_steps=5), one)
        for function, whole in ((potential, False), (batched, True), (batched, True))
    ]
    first, second, third = (mcmc.get_samples()["z"] for mcmc in runs)
    assert first.shape == (20, 2, 2)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)
    assert torch.equal(second, third)


def test_the_kernels_arguments_count():
    kernel = ours.HMC(
        potential_fn=potential,
        step_size=0.05,
        num_steps=7,
        adapt_step_size=False,
        adapt_mass_matrix=False,
        jitter=0.0,
    )
    result = run(3, 20, 5, kernel).result
    assert (result.step_size == 0.05).all()
    assert result.leapfrog.tolist() == [7]
    assert result.mass == "unit"
    assert result.accept_rate.min() > 0.9
    fixed = ours.HMC(potential_fn=potential, step_size=0.1, trajectory_length=0.55,
                     adapt_step_size=False)  # fmt: skip
    assert run(2, 5, 5, fixed).result.leapfrog.tolist() == [5]
    adapted = ours.HMC(potential_fn=potential, trajectory_length=2.0)
    with pytest.warns(UserWarning, match="trajectory_length is not held"):
        run(2, 5, 60, adapted)


DATA = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools(data):
    """The eight schools, not centred."""
    mu = library.sample("mu", dist.Normal(0.0, 5.0))
    tau = library.sample("tau", dist.HalfCauchy(5.0))
    with library.plate("schools", 8):
        eta = library.sample("eta", dist.Normal(0.0, 1.0))
        library.sample("y", dist.Normal(mu + tau * eta, ERRORS), obs=data)


def test_a_pyro_model():
    library.set_rng_seed(0)
    mcmc = ours.MCMC(ours.HMC(schools, num_steps=8), 60, warmup_steps=150, num_chains=40)
    mcmc.run(DATA)
    samples = mcmc.get_samples()
    assert samples["eta"].shape == (2400, 8)
    assert (samples["tau"] > 0).all()
    assert abs(float(samples["mu"].mean()) - 4.4) < 0.5  # by long runs of other samplers
    assert abs(float(samples["tau"].mean()) - 3.6) < 0.6
    assert mcmc.diagnostics()["mu"]["r_hat"] < 1.05


def test_models_that_have_no_place():
    def discrete():
        which = library.sample("which", dist.Bernoulli(0.3))
        library.sample("z", dist.Normal(which, 1.0))

    def branching():
        z = library.sample("z", dist.Normal(0.0, 1.0))
        if z > 0:
            library.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    for model, message in ((discrete, "discrete latents"), (branching, "cannot map this model")):
        mcmc = ours.MCMC(ours.HMC(model), 5, num_chains=2)
        with pytest.raises(NotImplementedError, match=f"{message}.*pyro.infer.MCMC"):
            mcmc.run()


def test_pyros_own_runner_takes_the_kernel():
    kernel = ours.HMC(potential_fn=potential, num_steps=4)
    assert isinstance(kernel, infer.HMC)
    mcmc = infer.MCMC(
        kernel,
        num_samples=8,
        warmup_steps=8,
        initial_params={name: value[0] for name, value in starts(1).items()},
        disable_progbar=True,
    )
    mcmc.run()
    assert mcmc.get_samples()["z"].shape == (8, 2, 2)


def test_mistakes():
    with pytest.raises(TypeError, match="kernel must be a vaefast"):
        ours.MCMC(infer.HMC(potential_fn=potential), 5)
    with pytest.raises(ValueError, match="initial parameters"):
        ours.MCMC(ours.HMC(potential_fn=potential), 5)
    with pytest.raises(ValueError, match="leading dimension"):
        ours.MCMC(ours.HMC(potential_fn=potential), 5, num_chains=3, initial_params=starts(2))
    with pytest.raises(ValueError, match="full_mass=True has no place"):
        ours.HMC(potential_fn=potential, full_mass=True)
