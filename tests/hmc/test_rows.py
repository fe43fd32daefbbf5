"""What goes wrong stays in its row, and the caller's model and modes are left alone."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.hmc import sample
from vaefast.philox import Use, normal

FIELDS = ("z", "accept_rate", "step_size", "energy", "divergent", "failed")
SHORT = {"chains": 2, "steps": 20, "warmup": 8, "leapfrog": 4, "seed": 5}
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def sampled_by(dtype):
    """What a lowered model promises, by what its ops run on here."""
    fused = ("net_forward", "net_potential", "net_trajectory", "net_chain")
    return "bits" if all(vf.supports(op, "cpp", dtype=dtype) for op in fused) else "round-off"


def images(rows, D=6, dtype=torch.float64, seed=0):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("generic", [False, True])
def test_divergent_transitions_are_rejected_and_counted(mlp_vae, generic):
    vae, x = mlp_vae("gaussian", generic=generic), images(3)
    init = torch.zeros(3, 2).double()
    step_size = torch.tensor([0.05, 1e4, 1e200], dtype=torch.float64)
    result = sample(
        vae, x, init=init, chains=2, warmup=3, steps=10, step_size=step_size, adapt=None
    )
    assert result.divergent.tolist() == [[0, 0], [10, 10], [10, 10]]
    assert (result.accept_rate[1:] == 0).all()
    assert (result.z[1:] == 0).all()
    assert result.accept_rate[0].min() > 0.5
    assert not result.failed.any()


@pytest.mark.parametrize("generic", [False, True])
def test_divergent_means_an_energy_error_above_1000(linear_gaussian, generic):
    """One leapfrog from 0 on N(0, 1): the energy error is p²ε⁴/8, so both sides occur."""
    model = linear_gaussian(torch.zeros(2, 1).double(), rows=2, generic=generic)
    step_size = torch.tensor([5.0, 12.0]).double()
    result = sample(
        model.vae,
        model.x,
        init=torch.zeros(2, 1).double(),
        steps=40,
        warmup=0,
        leapfrog=1,
        jitter=0.0,
        step_size=step_size,
        adapt=None,
        seed=1,
    )
    number = torch.arange(40)
    p = normal(1, seed=1, index=torch.ones_like(number), step=number, use=Use.MOMENTUM)
    expected = int((p.square() * 12.0**4 / 8 > 1000).sum())
    assert 5 < expected < 35
    assert result.divergent.flatten().tolist() == [0, expected]
    assert (result.z[1] == 0).all()


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "options", [{}, {"mass": "posterior"}, {"schedule": "kuzina2022", "group": 3}]
)
def test_a_bad_row_fails_alone(mlp_vae, generic, bad, options):
    vae, x = mlp_vae(generic=generic), images(3)
    options = {**SHORT, "keep": 3, **options}
    if "schedule" in options:
        del options["warmup"]
    broken = x.clone()
    broken[1, 2] = bad
    result = sample(vae, broken, **options)
    assert result.failed.tolist() == [False, True, False]
    for field in ("z", "accept_rate", "step_size", "energy"):
        assert getattr(result, field)[1].isnan().all()
        assert getattr(result, field)[[0, 2]].isfinite().all()
    assert (result.divergent[1] == 0).all()
    others = torch.tensor([0, 2])
    if "group" in options:
        options["group"] = torch.tensor([0, 0])
    without = sample(vae, x[others], index=others, **options)
    for field in FIELDS:
        torch.testing.assert_close(getattr(result, field)[others], getattr(without, field), **CLOSE)


def test_a_prior_that_checks_its_argument_never_sees_nan(mlp_vae):
    """torch.distributions raises on NaN: one bad row or divergent step must not stop the others."""
    normal = torch.distributions.Normal(torch.zeros(2).double(), 1.0, validate_args=True)
    vae = mlp_vae("gaussian", prior=torch.distributions.Independent(normal, 1))
    x = images(3)
    x[1] = torch.nan
    step_size = torch.tensor([0.05, 0.05, 1e200], dtype=torch.float64)
    result = sample(vae, x, steps=10, warmup=0, step_size=step_size, adapt=None)
    assert result.failed.tolist() == [False, True, False]
    assert result.divergent.tolist() == [[0], [0], [10]]


def test_a_bad_start_fails_its_row(mlp_vae):
    init = torch.zeros(2, 2, 2).double()
    init[1, 0, 0] = torch.nan
    result = sample(mlp_vae(), images(2), init=init, **SHORT)
    assert result.failed.tolist() == [False, True]


def test_the_callers_model_is_left_alone(mlp_vae):
    for generic in (False, True):
        vae = mlp_vae(generic=generic).train()
        state = {name: value.clone() for name, value in vae.state_dict().items()}
        sample(vae, images(2).requires_grad_(), **SHORT)
        assert vae.training
        assert all(parameter.requires_grad for parameter in vae.decoder.parameters())
        assert all(parameter.grad is None for parameter in vae.parameters())
        assert all(torch.equal(state[name], value) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_under_every_grad_mode(mlp_vae, generic, guard):
    vae, x = mlp_vae(generic=generic), images(2)
    plain = sample(vae, x, **SHORT)
    with guard():
        inside = sample(vae, x.clone(), **SHORT)
    torch.testing.assert_close(inside.z, plain.z, rtol=0, atol=0)
    assert not inside.z.requires_grad
    assert not inside.z.is_inference()


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(6)])
def test_a_module_in_training_mode_is_refused(mlp_vae, layer):
    vae = mlp_vae()
    vae.decoder.append(layer)
    with pytest.raises(RuntimeError, match=r"eval\(\)"):
        sample(vae.train(), images(2), **SHORT)


@pytest.mark.parametrize("generic", [False, True])
def test_float32_and_images(mlp_vae, generic):
    vae = mlp_vae(generic=generic, dtype=torch.float32)
    x = images(3, dtype=torch.float32).view(3, 1, 2, 3)
    options = {**SHORT, "adapt": None}
    result = sample(vae, x, **options)
    assert result.z.shape == (3, 2, 20, 2)
    assert result.z.dtype == result.step_size.dtype == result.accept_rate.dtype == torch.float32
    assert result.energy.dtype == torch.float64
    assert result.divergent.dtype == torch.int64
    assert result.reproducible == ("round-off" if generic else sampled_by(torch.float32))
    double = sample(mlp_vae(generic=generic), x.double(), **options)
    torch.testing.assert_close(
        result.z[:, :, :3].double(), double.z[:, :, :3], rtol=0.01, atol=0.01
    )


def test_half_precision_models_keep_a_float32_state(mlp_vae):
    result = sample(mlp_vae(dtype=torch.bfloat16), images(2, dtype=torch.bfloat16), **SHORT)
    assert result.z.dtype == torch.float32
    assert not result.failed.any()
    assert result.accept_rate.mean() > 0.3


@pytest.mark.parametrize("generic", [False, True])
def test_no_rows(mlp_vae, generic):
    result = sample(mlp_vae(generic=generic), images(0), **SHORT)
    assert result.z.shape == (0, 2, 20, 2)
    assert result.energy.shape == (0, 2, 20)


def test_progress_bar(mlp_vae, capsys):
    for generic in (False, True):
        sample(mlp_vae(generic=generic), images(2), progress=True, **SHORT)
        assert "28/28" in capsys.readouterr().err


def test_interruption_leaves_the_sampler_usable(mlp_vae, opaque):
    vae = mlp_vae(generic=True)
    plain = sample(vae, images(2), **SHORT)
    forward = vae.decoder.forward

    def interrupt(z):
        if vae.decoder.calls > 300:
            raise KeyboardInterrupt
        return forward(z)

    vae.decoder.calls, vae.decoder.forward = 0, interrupt
    with pytest.raises(KeyboardInterrupt):
        sample(vae, images(2), **{**SHORT, "steps": 1000})
    del vae.decoder.forward
    assert torch.is_grad_enabled()
    torch.testing.assert_close(sample(vae, images(2), **SHORT).z, plain.z, rtol=0, atol=0)
