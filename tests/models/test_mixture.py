"""A mixture of Gaussians as the prior: its density, its gradient, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaefast.models import GaussianMixture


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    means = 3.0 * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    logvars = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return means, logvars, torch.randn(5, generator=generator, dtype=torch.float64)


def test_density_and_gradient_are_those_of_torch_and_of_autograd(parts):
    means, logvars, logits = parts
    mixture = GaussianMixture(*parts)
    law = MixtureSameFamily(
        Categorical(logits=logits), Independent(Normal(means, (0.5 * logvars).exp()), 1)
    )
    z = (4.0 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1))).double()
    z[0] = 300.0  # far from all of them
    z.requires_grad_()
    expected = law.log_prob(z)
    (slope,) = torch.autograd.grad(expected.sum(), z, retain_graph=True)
    value, gradient = mixture.log_prob_and_gradient(z.detach())
    torch.testing.assert_close(value, expected.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mixture.log_prob(z), expected, rtol=1e-10, atol=1e-10)


def test_float32_latents_keep_their_dtype_and_one_variance_serves_all(parts):
    means, logvars, _ = parts
    mixture = GaussianMixture(means.float(), logvars[0].float())
    value, gradient = mixture.log_prob_and_gradient(torch.zeros(4, 3))
    assert (value.dtype, gradient.dtype) == (torch.float64, torch.float32)
    same = GaussianMixture(means.float(), logvars[:1].float().expand(5, 3))
    assert torch.equal(value, same.log_prob(torch.zeros(4, 3)))


def test_parameters_are_trained_and_buffers_move_with_the_model(parts):
    mixture = GaussianMixture(nn.Parameter(parts[0]), parts[1])
    assert [name for name, _ in mixture.named_parameters()] == ["means"]
    assert {name for name, _ in mixture.named_buffers()} == {"logvars", "logits"}
    mixture.log_prob(torch.zeros(1, 3).double()).sum().backward()
    assert mixture.means.grad is not None


def test_bad_input_is_told_in_one_line(parts):
    means, logvars, logits = parts
    for arguments, words in (
        ((means[0], logvars), r"means must be \[B, \*event\]|means must be"),
        (
            (means, logvars[:2]),
            r"logvars must be \[K, d\] = \[5, 3\] or \[d\] = \[3\], got \[2, 3\]",
        ),
        ((means, logvars, logits[:2]), r"logits must be \[K\] = \[5\], got \[2\]"),
    ):
        with pytest.raises(ValueError, match=words):
            GaussianMixture(*arguments)
    with pytest.raises(TypeError, match="means must be floating"):
        GaussianMixture(means.long(), logvars)
