"""Block Lanczos against the exact spectrum: from below, with residuals that hold, row by row."""

import warnings

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import geometry
from vaefast.geometry.lanczos import ritz_pairs
from vaefast.geometry.operators import Operator
from vaefast.models import VAE, as_vae

CASES = [
    ("encoder", False),
    ("encoder", True),
    ("decoder", False),
    ("reconstruction", False),
    ("reconstruction", True),
    ("fisher", False),
]


def lanczos(vae, x, **options):
    return geometry.pullback_spectrum(vae, x, method="lanczos", tolerance=1e-9, **options)


@pytest.mark.parametrize(("of", "std"), CASES)
def test_the_largest_pairs_are_those_of_the_exact_spectrum(vae, x, of, std):
    exact = geometry.pullback_spectrum(vae, x, of=of, std=std, vectors=2, method="exact")
    found = lanczos(vae, x, of=of, std=std, vectors=2)
    assert list(found.eigenvalues.shape) == [5, 2]
    torch.testing.assert_close(found.eigenvalues, exact.eigenvalues[:, :2], rtol=1e-8, atol=0)
    torch.testing.assert_close(found.vectors, exact.vectors, rtol=1e-5, atol=1e-6)
    assert (found.residuals <= 1e-9 * exact.eigenvalues[:, :1]).all()
    assert found.kind.startswith("Ritz values: lower bounds")
    assert exact.kind == "exact to round-off"
    assert exact.residuals is None


def diagonal(values):
    """An operator with JJᵀ = diag(values) for each of b rows [b, m]."""
    root = values.sqrt().unsqueeze(1)
    return Operator(
        size=values.shape[1],
        half=lambda u: u * root,
        back=lambda w: w * root,
        squares=lambda u: (u * root).square().sum(-1),
    )


SPECTRA = {
    "flat": torch.linspace(1.0, 2.0, 60),
    "steep": 2.0 ** -torch.arange(60.0),
    "double": torch.cat([torch.tensor([3.0, 3.0]), torch.linspace(0.0, 2.9, 58)]),
    "rank 3": torch.cat([torch.tensor([5.0, 2.0, 1.0]), torch.zeros(57)]),
    "zero": torch.zeros(60),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("iterations", [1, 2, 4, 100])
def test_ritz_values_are_lower_bounds_and_residuals_hold(name, iterations):
    values = SPECTRA[name].double().sort(descending=True).values
    start = torch.randn(4, 3, 60, generator=torch.Generator().manual_seed(0)).double()
    op = diagonal(values.expand(4, -1))
    found = ritz_pairs(op, start, 3, iterations=iterations, tolerance=1e-12)
    assert (found.values <= values[:3] * (1 + 1e-12) + 1e-14).all()
    nearest = (found.values[..., None] - values).abs().amin(2)
    assert (nearest <= found.residuals + 1e-12).all()
    if iterations == 100:
        torch.testing.assert_close(found.values, values[:3].expand(4, -1), rtol=1e-9, atol=1e-9)


def test_a_row_does_not_depend_on_the_others(build):
    vae = build("plain")
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    options = {"method": "lanczos", "iterations": 2, "of": "reconstruction", "seed": 5}
    index = torch.tensor([7, 3, 1 << 40, 0, 9, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = geometry.pullback_spectrum(vae, x, index=index, **options)
        for row in (0, 2, 5):
            part = slice(row, row + 1)
            alone = geometry.pullback_spectrum(vae, x[part], index=index[part], **options)
            torch.testing.assert_close(alone.eigenvalues, whole.eigenvalues[part])
            torch.testing.assert_close(alone.residuals, whole.residuals[part], rtol=1e-6, atol=0)
        other = geometry.pullback_spectrum(vae, x, index=index + 1, **options)
        vf.set_memory(20_000)
        cut = geometry.pullback_spectrum(vae, x, index=index, **options)
    assert not torch.equal(other.residuals, whole.residuals)
    torch.testing.assert_close(cut.eigenvalues, whole.eigenvalues)


class Pictures(nn.Module):
    """Latents of the shape of pictures: 4×20×20 of 3×40×40, too many for a matrix at each input."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.d = nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1)

    def encode(self, x):
        mean, logvar = self.e(x).cumsum(1).tanh().chunk(2, dim=1)
        return mean, logvar

    def decode(self, z):
        return self.d(z.cumsum(1).tanh())


@pytest.mark.parametrize("of", ["encoder", "decoder", "reconstruction", "fisher"])
def test_large_latents_and_outputs_take_lanczos_by_themselves(of):
    vae = as_vae(Pictures().eval(), likelihood="gaussian")
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    found = geometry.pullback_spectrum(vae, x, of=of, iterations=60)
    assert list(found.eigenvalues.shape) == [2, 1]
    assert found.kind.startswith("Ritz")
    (v,) = found.vectors[:1].flatten(1)
    z = vae.encode(x[:1])[0].flatten(1).detach()
    if of == "decoder":
        moved = torch.func.jvp(lambda t: vae.g(t), (z,), (v[None],))[1]
    elif of == "reconstruction":
        moved = torch.func.jvp(vae.reconstruct, (x[:1],), (v.view(1, 3, 40, 40),))[1]
    else:
        moved = torch.func.jvp(lambda t: vae.encode(t)[0], (x[:1],), (v.view(1, 3, 40, 40),))[1]
    gain = moved.square().sum()
    if of == "fisher":
        assert gain > 0
    else:
        torch.testing.assert_close(gain.double(), found.eigenvalues[0, 0], rtol=1e-3, atol=0)


class Periodic(nn.Module):
    """4×64×64 latents by periodic convolutions: their singular values are those of symbols."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        options = {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "bias": False}
        self.e, self.s = nn.Conv2d(3, 4, **options), nn.Conv2d(3, 4, **options)
        self.d = nn.Conv2d(4, 3, **options)

    def encode(self, x):
        return self.e(x), self.s(x)

    def decode(self, z):
        return self.d(z)


def symbols(conv, side):
    """The matrices [side², out, in] that a periodic convolution is, frequency by frequency."""
    weight = conv.weight.detach().double()
    return torch.fft.fft2(weight, s=(side, side)).permute(2, 3, 0, 1).flatten(0, 1)


@pytest.mark.parametrize("of", ["encoder", "decoder", "reconstruction"])
def test_latents_of_4x64x64_against_the_exact_spectrum_of_convolutions(of):
    module = Periodic().eval()
    vae = as_vae(module, likelihood="gaussian")
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = geometry.pullback_spectrum(vae, x, of=of, iterations=40, tolerance=1e-2)
    e, d = symbols(module.e, 64), symbols(module.d, 64)
    matrix = {"encoder": e, "decoder": d, "reconstruction": d @ e}[of]
    exact = torch.linalg.matrix_norm(matrix, ord=2).square().max()
    value, residual = found.eigenvalues[0, 0], found.residuals[0, 0]
    assert exact * (1 - 1e-2) <= value <= exact * (1 + 1e-5)
    assert residual <= 1e-2 * value


def test_one_warning_names_rows_that_are_not_done(build):
    vae = build("plain")
    x = torch.rand(3, 1, 4, 4).double()
    with pytest.warns(UserWarning, match=r"residuals above 1e-12 .* in 3 of 3 inputs .* more iter"):
        geometry.pullback_spectrum(vae, x, method="lanczos", iterations=1, tolerance=1e-12)


def test_nan_rows_and_rows_whose_jacobian_is_0():
    weight = nn.Linear(6, 4, bias=False)
    weight.weight.data.zero_()
    vae = VAE(
        encoder_mean=weight,
        encoder_logvar=torch.zeros(4),
        decoder=nn.Linear(4, 6),
        likelihood="gaussian",
    ).eval()
    x = torch.rand(2, 6)
    with pytest.warns(UserWarning, match="Jacobian of the encoder is 0 in 2 of 2"):
        found = lanczos(vae, x)
    assert torch.equal(found.eigenvalues, torch.zeros(2, 1).double())
    assert not found.vectors.any()
    x[1, 2] = torch.nan
    found = geometry.pullback_spectrum(vae, x, of="decoder", method="lanczos")
    assert found.eigenvalues.isnan().flatten().tolist() == [False, True]


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="method must be one of 'auto', 'exact', 'lanczos'"):
        geometry.pullback_spectrum(vae, x, method="power")
    with pytest.raises(ValueError, match="vectors of Lanczos must be at least 1, got 0"):
        geometry.pullback_spectrum(vae, x, method="lanczos", vectors=0)
    with pytest.raises(ValueError, match=r"tolerance must lie in \(0, 1\), got 1"):
        geometry.pullback_spectrum(vae, x, tolerance=1.0)
    vf.set_memory(100)
    with pytest.raises(MemoryError, match=r"spectrum of a 3×3 matrix needs .* method=\"lanczos\""):
        geometry.pullback_spectrum(vae, x, method="exact")
