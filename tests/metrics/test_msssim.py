"""MSSSIM against an independent computation with scipy.signal, and its properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import convolve, correlate

import vaefast as vf
from vaefast.metrics import msssim

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def gaussian(size):
    window = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * 1.5**2))
    return np.outer(window, window) / window.sum() ** 2


def pooled(image):
    h, w = (n // 2 * 2 for n in image.shape)
    return image[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3))


def one_scale(a, b, window, filtered):
    """Mean SSIM and mean cs of one channel, with variances as weighted squared deviations."""
    c1, c2 = 0.01**2, 0.03**2
    mu_a, mu_b = filtered(a, window), filtered(b, window)
    var_a = filtered(a**2, window) - mu_a**2
    var_b = filtered(b**2, window) - mu_b**2
    cov = filtered(a * b, window) - mu_a * mu_b
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    cs = (2 * cov + c2) / (var_a + var_b + c2)
    return (luminance * cs).mean(), cs.mean()


def valid_convolution(image, window):
    return convolve(image, window, mode="valid", method="direct")


def valid_correlation(image, window):
    return correlate(image, window, mode="valid", method="direct")


def standard_by_hand(a, b, window, scales):
    weights = WEIGHTS[:scales] / WEIGHTS[:scales].sum()
    values = []
    for one, other in zip(a, b):
        value = 1.0
        for level in range(scales):
            ssim, cs = one_scale(one, other, gaussian(window), valid_convolution)
            term = ssim if level == scales - 1 else cs
            value *= max(term, 0.0) ** weights[level]
            one, other = pooled(one), pooled(other)
        values.append(value)
    return np.mean(values)


def kuzina_by_hand(a, b):
    cs, ssim = [], []
    for _ in range(5):
        window = gaussian(min(14, *a.shape[1:]))
        terms = [one_scale(p, q, window, valid_correlation) for p, q in zip(a, b)]
        ssim.append(max(np.mean([s for s, _ in terms]), 0.0))
        cs.append(max(np.mean([c for _, c in terms]), 0.0))
        if min(a.shape[1:]) > 1:
            a, b = np.stack([pooled(p) for p in a]), np.stack([pooled(q) for q in b])
    return np.prod([cs[i] ** WEIGHTS[i] * ssim[4] ** WEIGHTS[4] for i in range(4)])


def images(*shape, seed=0, noise=0.2):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, generator=generator, dtype=torch.float64)
    b = (a + noise * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return a, b


@pytest.mark.parametrize(
    ("shape", "window", "scales"),
    [
        ((2, 1, 28, 28), 11, 2),
        ((2, 1, 8, 8), 7, 1),
        ((2, 3, 32, 32), 11, 2),
        ((1, 2, 45, 64), 11, 3),
        ((1, 1, 176, 176), 11, 5),
        ((2, 1, 13, 40), 11, 1),
        ((2, 1, 1, 1), 1, 1),
    ],
)
def test_standard_is_the_published_formula(shape, window, scales):
    a, b = images(*shape)
    result = msssim(a, b)
    assert (result.window, result.scales, result.variant) == (window, scales, "standard")
    expected = [standard_by_hand(p, q, window, scales) for p, q in zip(a.numpy(), b.numpy())]
    np.testing.assert_allclose(result.value.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 1, 8, 8), (2, 3, 32, 32), (2, 3, 5, 9)])
def test_kuzina2022_is_the_published_code(shape):
    a, b = images(*shape)
    result = msssim(a, b, variant="kuzina2022")
    assert (result.window, result.scales) == (min(14, *shape[2:]), 5)
    expected = [kuzina_by_hand(p, q) for p, q in zip(a.numpy(), b.numpy())]
    np.testing.assert_allclose(result.value.numpy(), expected, rtol=1e-10)


def test_on_one_pixel_kuzina_compares_luminance_only():
    a, b = torch.tensor([[[[0.2]]]]).double(), torch.tensor([[[[0.9]]]]).double()
    luminance = (2 * 0.2 * 0.9 + 1e-4) / (0.2**2 + 0.9**2 + 1e-4)
    value = msssim(a, b, variant="kuzina2022").value.item()
    assert value == pytest.approx(luminance ** (4 * 0.1333))


@pytest.mark.parametrize("variant", ["standard", "kuzina2022"])
class TestBothVariants:
    def test_an_image_is_like_itself(self, variant):
        a, _ = images(3, 1, 28, 28)
        assert msssim(a.float(), a.float(), variant=variant).value.tolist() == [1.0, 1.0, 1.0]

    def test_symmetric(self, variant):
        a, b = images(3, 2, 16, 16)
        torch.testing.assert_close(
            msssim(a, b, variant=variant).value, msssim(b, a, variant=variant).value
        )

    def test_falls_with_noise(self, variant):
        values = [
            msssim(*images(4, 1, 28, 28, noise=n), variant=variant).value for n in (0.05, 0.2, 0.6)
        ]
        assert (values[0] > values[1]).all()
        assert (values[1] > values[2]).all()

    @settings(max_examples=25, deadline=None)
    @given(
        side=st.integers(1, 20),
        seed=st.integers(0, 10**6),
        kind=st.sampled_from(["uniform", "binary", "inverse"]),
    )
    def test_between_0_and_1(self, variant, side, seed, kind):
        a, b = images(1, 1, side, side + seed % 3, seed=seed, noise=1.0)
        if kind != "uniform":
            a, b = a.round(), b.round() if kind == "binary" else 1 - a.round()
        value = msssim(a, b, variant=variant).value
        assert 0.0 <= value.item() <= 1.0

    def test_nan_stays_in_its_row(self, variant):
        a, b = images(3, 1, 28, 28)
        clean = msssim(a, b, variant=variant).value
        b[1, 0, 3, 3] = torch.nan if variant == "standard" else torch.inf
        value = msssim(a, b, variant=variant).value
        assert value.isnan().tolist() == [False, True, False]
        assert torch.equal(value[[0, 2]], clean[[0, 2]])

    def test_chunks_do_not_change_a_row(self, variant):
        a, b = images(50, 1, 16, 16)
        whole = msssim(a, b, variant=variant).value
        vf.set_memory(100_000)
        torch.testing.assert_close(msssim(a, b, variant=variant).value, whole, rtol=1e-12, atol=0)

    def test_gradient(self, variant):
        a, b = images(2, 1, 8, 8, noise=0.1)
        assert torch.autograd.gradcheck(
            lambda b: msssim(a, b, variant=variant).value, b.requires_grad_()
        )

    def test_gradient_is_zero_where_a_term_is_cut(self, variant):
        a, _ = images(2, 1, 16, 16)
        b = (1 - a).requires_grad_()
        value = msssim(a, b, variant=variant).value
        assert value.tolist() == [0.0, 0.0]
        value.sum().backward()
        assert torch.equal(b.grad, torch.zeros_like(b))

    def test_empty_batch(self, variant):
        a = torch.zeros(0, 1, 8, 8)
        value = msssim(a, a, variant=variant).value
        assert (value.shape, value.dtype) == ((0,), torch.float64)


def test_data_range_is_the_scale_of_the_pixels():
    a, b = images(2, 1, 28, 28)
    torch.testing.assert_close(msssim(a, b).value, msssim(255 * a, 255 * b, data_range=255.0).value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 7)), "b must be"),
        ((torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)), "a must be .B, C, H, W."),
        ((torch.zeros(2, 1, 0, 8), torch.zeros(2, 1, 0, 8)), "at least one pixel"),
    ],
)
def test_refuses_wrong_shapes(arguments, message):
    with pytest.raises(ValueError, match=message):
        msssim(*arguments)


def test_refuses_wrong_options():
    a = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="variant must be one of 'standard', 'kuzina2022'"):
        msssim(a, a, variant="ssim")
    with pytest.raises(ValueError, match="data_range must be positive"):
        msssim(a, a, data_range=0.0)
