"""Norms against the singular values of Jacobians that autograd computes."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import vaefast as vf
from vaefast import geometry
from vaefast.models import VAE, as_vae

OF = ("encoder", "decoder", "reconstruction")


def linear_encoder(weight):
    """A VAE with μ(x) = Wx and σ = 1."""
    mean = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(weight.dtype)
    mean.weight.data.copy_(weight)
    decoder = nn.Linear(weight.shape[0], weight.shape[1]).to(weight.dtype)
    logvar = torch.zeros(weight.shape[0], dtype=weight.dtype)
    return VAE(
        encoder_mean=mean, encoder_logvar=logvar, decoder=decoder, likelihood="gaussian"
    ).eval()


@pytest.mark.parametrize("of", OF)
def test_exact_norms(vae, x, maps, of):
    singular = torch.linalg.svdvals(maps[of])
    frobenius = geometry.frobenius_norm(vae, x, of=of)
    assert frobenius.dtype == torch.float64
    torch.testing.assert_close(frobenius, singular.square().sum(1).sqrt())
    upper = geometry.spectral_norm(vae, x, of=of)
    torch.testing.assert_close(upper, singular[:, 0])
    assert (upper <= frobenius * (1 + 1e-9)).all()


def test_whitened_norms(vae, x, maps):
    whitened = maps["encoder"] / vae.posterior(x)[1].detach()[..., None]
    singular = torch.linalg.svdvals(whitened)
    torch.testing.assert_close(
        geometry.frobenius_norm(vae, x, whiten=True), singular.square().sum(1).sqrt()
    )
    for bound in ("upper", "lower"):
        torch.testing.assert_close(
            geometry.spectral_norm(vae, x, whiten=True, bound=bound, iterations=200),
            singular[:, 0],
        )


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
@pytest.mark.parametrize("bias", [8.0, 9.0])
def test_float32_upper_bound_holds_for_saturated_units(activation, bias):
    torch.manual_seed(0)
    hidden = nn.Linear(6, 8)
    nn.init.constant_(hidden.bias, bias)
    mean = nn.Sequential(hidden, activation(), nn.Linear(8, 2))
    vae = VAE(encoder_mean=mean, encoder_logvar=torch.zeros(2), decoder=nn.Linear(2, 6)).eval()
    x = torch.rand(20, 6)
    upper = geometry.spectral_norm(vae, x)
    full = geometry.jacobian(vae.double(), x.double())
    exact = torch.linalg.matrix_norm(full, ord=2)
    assert (upper >= exact).all()
    torch.testing.assert_close(upper, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_estimates_converge(vae, x, of, method):
    exact = geometry.frobenius_norm(vae, x, of=of)
    estimate = geometry.frobenius_norm(vae, x, of=of, method=method, probes=3000)
    torch.testing.assert_close(estimate, exact, rtol=0.08, atol=0)


@pytest.mark.parametrize("of", ["encoder", "decoder"])
def test_hutchpp_is_exact_once_the_sketch_spans_the_latents(vae, x, of):
    exact = geometry.frobenius_norm(vae, x, of=of)
    estimate = geometry.frobenius_norm(vae, x, of=of, method="hutch++", probes=9)
    torch.testing.assert_close(estimate, exact)


def test_hutchpp_is_unbiased_below_that(build):
    """Rank 3 seen through a sketch of one column: the mean over many rows' probes is ‖J‖_F²."""
    vae = build("mlp")
    x = torch.rand(1, 1, 4, 4).double()
    exact = geometry.frobenius_norm(vae, x).square().item()
    for probes in (3, 5):
        estimate = geometry.frobenius_norm(
            vae, x.expand(8000, -1, -1, -1), method="hutch++", probes=probes
        ).square()
        error = 5 * estimate.std().item() / 8000**0.5
        assert estimate.mean().item() == pytest.approx(exact, abs=error)


def test_hutchpp_beats_hutchinson_on_a_decaying_spectrum():
    generator = torch.Generator().manual_seed(0)
    values = 2.0 ** -torch.arange(40, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64)).Q
    vae = linear_encoder(values[:, None] * basis)
    x, exact = torch.zeros(200, 40).double(), values.norm()
    error = {
        method: (geometry.frobenius_norm(vae, x, method=method, probes=15) / exact - 1).abs().mean()
        for method in ("hutchinson", "hutch++")
    }
    assert error["hutch++"] < 0.1 * error["hutchinson"]


@pytest.mark.parametrize("of", OF)
def test_power_iteration_bounds_from_below_and_converges(vae, x, maps, of):
    largest = torch.linalg.svdvals(maps[of])[:, 0]
    for iterations in (1, 3):
        lower = geometry.spectral_norm(vae, x, of=of, bound="lower", iterations=iterations)
        assert (lower < largest).all()
    lower = geometry.spectral_norm(vae, x, of=of, bound="lower", iterations=300)
    torch.testing.assert_close(lower, largest)


@pytest.mark.parametrize("of", OF)
def test_float32_bounds_enclose_the_float64_norm(build, of):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(100, 1, 4, 4, generator=generator)
    for kind in ("mlp", "plain"):
        vae = build(kind)
        exact = geometry.spectral_norm(vae, x.double(), of=of) / (1 + 1e-12)
        single = vae.float()
        assert (geometry.spectral_norm(single, x, of=of) >= exact).all()
        lower = geometry.spectral_norm(single, x, of=of, bound="lower", iterations=200)
        assert (lower <= exact).all()
        torch.testing.assert_close(lower, exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("rank", [1, 6])
@pytest.mark.parametrize("probes", [1, 4])
def test_upper_confidence_bound_fails_at_most_alpha_of_the_time(rank, probes):
    """Rank one is the worst case: there the failure rate is alpha itself."""
    alpha, rows = 0.05, 20_000
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in (6, 8))
    weight = torch.linalg.qr(u).Q @ torch.linalg.qr(v).Q.T
    bound = geometry.frobenius_norm(
        linear_encoder(weight),
        torch.zeros(rows, 8).double(),
        method="hutchinson",
        probes=probes,
        upper_confidence=1 - alpha,
    )
    failures = int((bound < weight.norm() * (1 - 1e-12)).sum())
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], rows, alpha)
    assert failures <= high
    assert rank > 1 or failures >= low


def test_upper_confidence_is_the_chi_square_quantile(build):
    vae = build("mlp")
    x = torch.rand(3, 1, 4, 4).double()
    options = {"method": "hutchinson", "probes": 8}
    estimate = geometry.frobenius_norm(vae, x, **options)
    bound = geometry.frobenius_norm(vae, x, **options, upper_confidence=0.999)
    factor = np.sqrt(8 / stats.chi2.ppf(0.001, 8))
    torch.testing.assert_close(bound, estimate * factor)
    assert factor == pytest.approx(np.sqrt(9.3), rel=0.01)  # mathematics.md 9


def test_upper_confidence_is_refused_outside_its_region(build):
    """α ≤ P(χ²_K ≤ K): .683 at K = 1, .632 at K = 2; beyond it rank one is not the worst case."""
    vae, x = build("mlp"), torch.rand(2, 1, 4, 4).double()
    for probes, limit in ((1, 0.683), (2, 0.632)):
        options = {"method": "hutchinson", "probes": probes}
        geometry.frobenius_norm(vae, x, **options, upper_confidence=1 - limit + 0.002)
        with pytest.raises(ValueError, match="upper_confidence must lie in"):
            geometry.frobenius_norm(vae, x, **options, upper_confidence=1 - limit - 0.002)
    for method in ("exact", "hutch++"):
        with pytest.raises(ValueError, match='needs method="hutchinson"'):
            geometry.frobenius_norm(vae, x, method=method, upper_confidence=0.9)
    with pytest.raises(ValueError, match="upper_confidence must lie in"):
        geometry.frobenius_norm(vae, x, method="hutchinson", upper_confidence=1.0)


STOCHASTIC = (
    lambda vae, x, **o: geometry.frobenius_norm(vae, x, method="hutchinson", **o),
    lambda vae, x, **o: geometry.frobenius_norm(vae, x, method="hutch++", probes=6, **o),
    lambda vae, x, **o: geometry.spectral_norm(vae, x, bound="lower", iterations=2, **o),
)


@pytest.mark.parametrize("norm", STOCHASTIC)
def test_a_row_depends_on_its_index_and_the_seed_only(vae, x, norm):
    whole = norm(vae, x, seed=3)
    alone = norm(vae, x[3:], seed=3, index=torch.tensor([3, 4]))
    torch.testing.assert_close(alone, whole[3:], rtol=1e-10, atol=0)
    assert not torch.allclose(norm(vae, x, seed=4), whole)


def test_probe_k_does_not_depend_on_how_many_there_are():
    """Nested estimates: K+1 probes add one to the K before; more than 4096 get new counters."""
    vae = linear_encoder(torch.eye(1).double())
    x = torch.zeros(1, 1).double()

    def total(probes):
        return probes * geometry.frobenius_norm(vae, x, method="hutchinson", probes=probes) ** 2

    assert (total(5) > total(4)).all()
    fourth = torch.stack([total(k) for k in range(1, 30)]).diff(dim=0)
    assert (fourth > 0).all()
    assert total(8192).item() == pytest.approx(8192, rel=0.1)
    assert total(8192).item() != pytest.approx(2 * total(4096).item(), rel=1e-6)


@pytest.mark.parametrize("of", OF)
@pytest.mark.parametrize("method", ["exact", "hutchinson", "hutch++"])
def test_nan_stays_in_its_row_and_chunks_do_not_matter(vae, x, of, method):
    clean = geometry.frobenius_norm(vae, x, of=of, method=method, probes=6)
    x[2, 0, 0, 0] = torch.nan
    vf.set_memory(20_000)
    norm = geometry.frobenius_norm(vae, x, of=of, method=method, probes=6)
    assert norm.isnan().tolist() == [False, False, True, False, False]
    good = [0, 1, 3, 4]
    torch.testing.assert_close(norm[good], clean[good])
    for bound in ("upper", "lower"):
        spectral = geometry.spectral_norm(vae, x, of=of, bound=bound)
        assert spectral.isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("of", OF)
def test_no_call_of_the_model_exceeds_the_memory_budget(build, of):
    """Probes are cut as well as rows: a call in forward mode shows them all as one batch."""
    vae, x = build("unlowered"), torch.rand(60, 1, 8, 8).double()
    calls = []
    for module in (vae.encoder, vae.decoder):
        module.register_forward_hook(
            lambda module, inputs, out: calls.append(len(out[0] if isinstance(out, tuple) else out))
        )
    options = {"of": of, "method": "hutchinson", "probes": 30}
    whole = geometry.frobenius_norm(vae, x, **options)
    assert max(calls) == 60
    calls.clear()
    vf.set_memory(2_000_000)
    parts = geometry.frobenius_norm(vae, x, **options)
    assert 1 < max(calls) < 20
    torch.testing.assert_close(parts, whole)


class Opaque(torch.autograd.Function):
    """tanh without a batching rule, a forward-mode rule or a setup_context."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 - x.tanh() ** 2)


class OpaqueLayer(nn.Module):
    def forward(self, x):
        return Opaque.apply(x)


def opaque(activation):
    torch.manual_seed(4)
    return (
        VAE(
            encoder_mean=nn.Sequential(nn.Linear(6, 5), activation, nn.Linear(5, 3)),
            encoder_logvar=nn.Linear(6, 3),
            decoder=nn.Sequential(nn.Linear(3, 5), activation, nn.Linear(5, 6)),
        )
        .double()
        .eval()
    )


@pytest.mark.parametrize("of", OF)
def test_layers_without_batching_or_forward_rules(of):
    x = torch.rand(4, 6).double()
    slow, fast = opaque(OpaqueLayer()), opaque(nn.Tanh())
    for function in (
        lambda vae: geometry.jacobian(vae, x, of=of),
        lambda vae: geometry.spectral_norm(vae, x, of=of, bound="lower"),
        lambda vae: geometry.frobenius_norm(vae, x, of=of, method="hutchinson"),
    ):
        torch.testing.assert_close(function(slow), function(fast))


class Cut(nn.Module):
    """A user's module that cuts the autograd graph where it is told to."""

    def __init__(self, where, how):
        super().__init__()
        self.where, self.how = where, how
        self.inner, self.outer = nn.Linear(6, 2), nn.Linear(2, 6)

    def encode(self, x):
        x = self._cut(x, "encode")
        return self.inner(x), x.new_zeros(len(x), 2)

    def decode(self, z):
        return self.outer(self._cut(z, "decode"))

    def _cut(self, value, where):
        if where != self.where:
            return value
        return value.detach() if self.how == "detach" else value.new_ones(value.shape)


@pytest.mark.parametrize("how", ["detach", "constant"])
@pytest.mark.parametrize("where", ["encode", "decode"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_cut_graph_is_refused_rather_than_measured_as_0(where, how, frozen):
    vae, x = as_vae(Cut(where, how).eval().requires_grad_(not frozen)), torch.rand(3, 6)
    other = "decoder" if where == "encode" else "encoder"
    assert (geometry.frobenius_norm(vae, x, of=other) > 0).all()
    for of in set(OF) - {other}:
        with pytest.raises(ValueError, match=rf"{where}\(\) must depend on its input"):
            geometry.frobenius_norm(vae, x, of=of)


def test_zero_weights_have_norm_0():
    vae, x = linear_encoder(torch.zeros(2, 6)), torch.rand(3, 6)
    for of in ("encoder", "reconstruction"):
        for bound in ("upper", "lower"):
            norm = geometry.spectral_norm(vae, x, of=of, bound=bound)
            assert torch.equal(norm, torch.zeros(3).double())


@pytest.mark.parametrize("of", OF)
def test_the_model_and_the_global_generator_are_left_alone(vae, x, of):
    state = {name: t.clone() for name, t in vae.state_dict().items()}
    generator = torch.get_rng_state()
    geometry.frobenius_norm(vae, x, of=of, method="hutchinson")
    geometry.spectral_norm(vae, x, of=of)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not vae.training
    for name, parameter in vae.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, state[name])
    assert not x.requires_grad


def test_under_no_grad_and_inference_mode(vae, x):
    expected = geometry.spectral_norm(vae, x)
    with torch.no_grad():
        assert torch.equal(geometry.spectral_norm(vae, x), expected)
    with torch.inference_mode():
        torch.testing.assert_close(geometry.spectral_norm(vae, x.clone()), expected)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_half_precision_models_are_measured_in_float32(build, kind):
    vae = build(kind)
    side = 8 if kind == "conv" else 4
    x = torch.rand(4, 1, side, side).double()
    exact = geometry.frobenius_norm(vae, x)
    half = geometry.frobenius_norm(vae.bfloat16(), x.bfloat16())
    torch.testing.assert_close(half, exact, rtol=0.1, atol=0)
    assert (geometry.spectral_norm(vae, x.bfloat16()) >= 0.9 * exact / 3**0.5).all()


def test_empty_batch(vae, x):
    assert geometry.frobenius_norm(vae, x[:0]).shape == (0,)
    assert geometry.spectral_norm(vae, x[:0], bound="lower").shape == (0,)


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="method must be one of 'auto', 'exact', 'hutchinson'"):
        geometry.frobenius_norm(vae, x, method="power")
    with pytest.raises(ValueError, match="bound must be one of 'upper', 'lower'"):
        geometry.spectral_norm(vae, x, bound="both")
    with pytest.raises(ValueError, match="probes must be at least 3"):
        geometry.frobenius_norm(vae, x, method="hutch++", probes=2)
    for norm in (geometry.frobenius_norm, geometry.spectral_norm):
        with pytest.raises(TypeError, match="seed must be a whole number, got str"):
            norm(vae, x, seed="a")
    with pytest.raises(TypeError, match=r"vae must be a vaefast\.VAE"):
        geometry.frobenius_norm(nn.Linear(2, 2), x)
