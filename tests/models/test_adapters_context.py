"""Conditions per row reach encode, decode and the prior, and nobody takes them by position."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from vaefast import attacks
from vaefast.models import VAE, as_vae
from vaefast.models import context as contexts

D, d, K = 5, 2, 3


class Conditional(nn.Module):
    """encode(x, y) and decode(z, y) of a one-hot class y."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.out = nn.Linear(D + K, 2 * d), nn.Linear(d + K, D)

    def encode(self, x, y):
        return self.heads(torch.cat([x, y], dim=1)).chunk(2, dim=1)

    def decode(self, z, y):
        return self.out(torch.cat([z, y], dim=1))


class Named(Conditional):
    def encode(self, x, *, y):
        return super().encode(x, y)

    def decode(self, z, *, y, shift):
        return super().decode(z, y) + shift


class Half(Conditional):
    """Only the decoder is conditional."""

    def encode(self, x, return_dict=True):
        assert return_dict is True
        return x[:, :d], x[:, d : 2 * d]

    def decode(self, z, context=None):
        return super().decode(z, context)


class Head(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear = nn.Linear(inputs + K, outputs)

    def forward(self, x, context):
        return self.linear(torch.cat([x, context], dim=1))


@pytest.fixture
def x():
    return torch.rand(4, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y():
    return torch.eye(K)[torch.tensor([0, 2, 1, 2])]


def test_a_tensor_goes_to_the_second_parameter(x, y):
    model = Conditional()
    vae = as_vae(model)
    mean, logvar = vae.encode(x, y)
    assert torch.equal(mean, model.encode(x, y)[0])
    assert torch.equal(logvar, model.encode(x, y)[1])
    assert torch.equal(vae.posterior(x, context=y)[1], torch.exp(0.5 * logvar))
    assert torch.equal(vae.decode(mean, y), model.decode(mean, y))
    assert torch.equal(vae.g(mean, y), torch.sigmoid(model.decode(mean, y)))
    assert torch.equal(vae.reconstruct(x, y), vae.g(mean, y))
    assert not torch.allclose(vae.encode(x, y.flip(0))[0], mean)


def test_a_dict_goes_to_the_parameters_that_it_names(x, y):
    model, shift = Named(), torch.rand(4, 1)
    vae = as_vae(model)
    context = {"y": y, "shift": shift}
    mean = vae.encode(x, context)[0]
    assert torch.equal(mean, model.encode(x, y=y)[0])
    assert torch.equal(vae.decode(mean, context), model.decode(mean, y=y, shift=shift))
    with pytest.raises(TypeError, match="context entries 'z' are taken by neither"):
        vae.encode(x, context | {"z": y})


def test_only_what_takes_a_context_gets_it(x, y):
    model = Half()
    vae = as_vae(model)
    mean = vae.encode(x, y)[0]
    assert torch.equal(mean, x[:, :d])
    assert torch.equal(vae.decode(mean, y), model.decode(mean, y))


def test_the_prior_takes_it_too(x, y):
    def conditional(z, y):
        return Independent(Normal(y[:, :d], 1.0), 1).log_prob(z)

    z = torch.randn(4, d)
    vae = as_vae(Conditional(), prior=conditional)
    assert torch.allclose(vae.log_prior(z, y), conditional(z, y).double())
    plain = as_vae(Conditional(), prior=Independent(Normal(torch.zeros(d), 2.0), 1))
    assert torch.equal(plain.log_prior(z, y), plain.log_prior(z))


def test_heads_of_a_vae_take_it(x, y):
    mean, decoder = Head(D, d), Head(d, D)
    vae = VAE(encoder_mean=mean, encoder_logvar=nn.Linear(D, d), decoder=decoder)
    assert torch.equal(vae.encode(x, y)[0], mean(x, y))
    assert torch.equal(vae.encode(x, y)[1], vae.encoder.logvar(x))
    z = mean(x, y)
    assert torch.equal(vae.decode(z, y), decoder(z, y))


def test_probabilities_of_a_conditional_decoder_become_exact_logits(x, y):
    class Ends(Conditional):
        def __init__(self):
            super().__init__()
            self.last = nn.Sigmoid()

        def decode(self, z, y):
            return self.last(super().decode(z, y))

    model = Ends()
    vae = as_vae(model, decoder_output="probabilities")
    z = 50 * torch.randn(4, d)
    assert torch.equal(vae.decode(z, y), model.out(torch.cat([z, y], dim=1)))


def test_what_no_part_takes_is_refused(x, y):
    vae = VAE(encoder_mean=nn.Linear(D, d), encoder_logvar=torch.zeros(d), decoder=nn.Linear(d, D))
    for context in (y, {"y": y}):
        with pytest.raises(TypeError, match="taken by neither encode, decode nor the prior"):
            vae.encode(x, context)


@pytest.mark.parametrize(
    ("context", "error", "words"),
    [
        (
            [1, 2, 3, 4],
            TypeError,
            r"context must be a tensor \[B, ...\] or .*, got list",
        ),
        ({"y": 1.0}, TypeError, r"context\['y'\] must be a tensor .* got float"),
        (
            torch.zeros(3, K),
            ValueError,
            r"context must be \[4, ...\], .* got \[3, 3\]",
        ),
        ({"y": torch.zeros(())}, ValueError, r"context\['y'\] must be \[4, ...\], .* got \[\]"),
    ],
)
def test_a_context_has_a_row_for_every_input(context, error, words, x):
    with pytest.raises(error, match=words):
        as_vae(Conditional()).encode(x, context)


def test_rows_and_repeats_keep_the_order(y):
    assert contexts.rows(None, slice(0, 2)) is None
    assert contexts.repeated(None, 3) is None
    assert torch.equal(contexts.rows(y, slice(1, 3)), y[1:3])
    assert torch.equal(contexts.rows({"y": y}, torch.tensor([3, 0]))["y"], y[[3, 0]])
    assert torch.equal(contexts.repeated({"y": y}, 2)["y"], y[[0, 0, 1, 1, 2, 2, 3, 3]])
    assert torch.equal(contexts.repeated(y, 2), y[[0, 0, 1, 1, 2, 2, 3, 3]])


def test_a_missing_context_is_one_line(x, y):
    vae = as_vae(Conditional(), likelihood="gaussian")
    with pytest.raises(TypeError, match=r"^Conditional.encode takes conditions beside x; pass"):
        vae.encode(x)
    with pytest.raises(TypeError, match=r"^Conditional.encode takes conditions beside x; pass"):
        attacks.latent(vae, x, eps=0.1, steps=1)
    with pytest.raises(TypeError, match=r"^Conditional.decode takes conditions beside z; pass"):
        vae.decode(torch.zeros(4, d))
    with pytest.raises(TypeError, match=r"^Head takes conditions beside x; pass context=$"):
        contexts.call(Head(2, 2), x[:, :2], None)


def test_other_type_errors_are_left_alone(x):
    def broken(x):
        raise TypeError("of its own")

    for function in (broken, lambda x, scale=2.0: x + "1"):
        with pytest.raises(TypeError) as raised:
            contexts.call(function, x, None)
        assert "context" not in str(raised.value)
