"""Probabilities become logits: exactly where a final Sigmoid is found, clamped elsewhere."""

import pytest
import torch
from torch import nn

from vaefast.models import VAE, CannotLower, as_vae, explain, lowering
from vaefast.models.likelihoods import clamped_logit

d, D = 3, 8


def vae_of(decoder, **options):
    encoder = nn.Linear(D, d)
    options = {"decoder_output": "probabilities", **options}
    return VAE(encoder_mean=encoder, encoder_logvar=encoder, decoder=decoder, **options)


class Decoding(nn.Module):
    """Wraps decode in Python code, with a gate that is a Sigmoid too."""

    def __init__(self, last=None):
        super().__init__()
        self.out, self.last = nn.Linear(d, D), last or nn.Sigmoid()
        self.gate = nn.Sequential(nn.Linear(d, D), nn.Sigmoid())  # after `last` in named_modules

    def encode(self, x):
        return x[:, :d], x[:, :d]

    def logits(self, z):
        return 3 * self.out(z) * self.gate(z)

    def decode(self, z):
        return self.last(self.logits(z)).reshape(-1, 2, 4)


@pytest.fixture
def z():
    return 2 * torch.randn(5, d, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "tail",
    [
        (nn.Sigmoid(),),
        (nn.Sequential(nn.Identity(), nn.Sigmoid()),),
        (nn.Sigmoid(), nn.Unflatten(1, (2, 4)), nn.Identity()),
    ],
    ids=["last", "nested", "reshaped"],
)
def test_a_final_sigmoid_of_a_sequential_is_left_out(tail, z):
    linear = nn.Linear(d, D)
    decoder = nn.Sequential(linear, *tail)
    vae = vae_of(decoder)
    assert torch.equal(vae.decode(z).flatten(1), linear(z))
    assert torch.equal(vae.g(z).flatten(1), torch.sigmoid(linear(z)))
    assert torch.allclose(decoder(z), vae.g(z), rtol=1e-6)
    assert any(isinstance(layer, nn.Sigmoid) for layer in decoder.modules())  # untouched
    assert "is left out" in explain(vae).decoder_output


def test_logits_stay_exact_where_probabilities_saturate():
    linear = nn.Linear(d, D)
    vae = vae_of(nn.Sequential(linear, nn.Sigmoid()))
    z = torch.full((1, d), 1e3)
    assert vae.decode(z).abs().max() > 100  # a probability rounds to 0 or 1 far below that
    assert torch.equal(vae.decode(z), linear(z))


def test_a_sigmoid_inside_python_code_is_found_at_the_first_decode(z):
    module = Decoding()
    vae = as_vae(module, decoder_output="probabilities")
    assert "decided at the first decode" in explain(vae).decoder_output
    assert torch.equal(vae.decode(z).flatten(1), module.logits(z))  # and not the gate's Sigmoid
    assert "is left out" in explain(vae).decoder_output
    assert torch.equal(module.decode(z).flatten(1), torch.sigmoid(module.logits(z)))


FUNCTIONAL = {
    "torch": torch.sigmoid,
    "functional": nn.functional.sigmoid,
    "method": lambda h: h.sigmoid(),
    "in place": lambda h: h.sigmoid_(),
    "special": torch.special.expit,
    "reshaped": lambda h: torch.sigmoid(h.view(-1, 2, 4)).flatten(1).unsqueeze(1).squeeze(1),
}


class Calling(Decoding):
    """decode ends in a function, after a gate that is a sigmoid too."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def logits(self, z):
        return 3 * self.out(z) * torch.sigmoid(self.gate[0](z))

    def decode(self, z):
        return self.end(self.logits(z))


@pytest.mark.parametrize("end", FUNCTIONAL)
def test_a_final_sigmoid_is_found_in_any_spelling(end, z):
    module = Calling(FUNCTIONAL[end])
    vae = as_vae(module, decoder_output="probabilities")
    z.requires_grad_()
    assert torch.equal(vae.decode(z), module.logits(z))
    (gradient,) = torch.autograd.grad(vae.decode(z).sum(), z)
    assert torch.allclose(gradient, torch.autograd.grad(module.logits(z).sum(), z)[0])
    assert torch.equal(vae.decode(1e3 * z), module.logits(1e3 * z))
    assert "is left out" in explain(vae).decoder_output


@pytest.mark.parametrize(
    "end",
    [
        lambda h: (torch.sigmoid(h) + 1e-7) * (1 - 2e-7),
        lambda h: torch.sigmoid(h).clamp(1e-6, 1 - 1e-6),
        lambda h: h.sigmoid_().add_(1e-8),
        lambda h: 1 - torch.sigmoid(h),
    ],
)
def test_what_follows_a_sigmoid_makes_it_no_final_one(end, z):
    module = Calling(end).double()
    vae, z = as_vae(module, decoder_output="probabilities"), z.double()
    assert torch.equal(vae.decode(z), clamped_logit(module.decode(z)))
    assert "no final sigmoid found" in explain(vae).decoder_output
    with pytest.raises(CannotLower, match="do not come from a final Sigmoid"):
        lowering.decoder(vae, z)


def test_explain_decides_with_an_input():
    vae = as_vae(Decoding(), decoder_output="probabilities")
    assert "is left out" in explain(vae, torch.rand(3, D)).decoder_output


def test_the_stripped_decoder_follows_changes_of_the_original(z):
    module = Decoding()
    vae = as_vae(module, decoder_output="probabilities")
    vae.decode(z)
    with torch.no_grad():
        module.out.weight.mul_(2.0)
    module.double()
    assert torch.equal(vae.decode(z.double()).flatten(1), module.logits(z.double()))


def test_a_decoder_may_be_exchanged(z):
    vae = vae_of(nn.Sequential(nn.Linear(d, D), nn.Sigmoid()))
    vae.decoder = nn.Sequential(nn.Linear(d, D), nn.Tanh(), nn.Linear(D, D), nn.Sigmoid())
    assert torch.equal(vae.decode(z), vae.decoder[:3](z))


@pytest.mark.parametrize("last", [nn.Hardtanh(0.0, 1.0), nn.Softmax(dim=1)])
def test_other_probabilities_take_the_clamped_logit(last, z):
    module = Decoding(last)
    vae = as_vae(module, decoder_output="probabilities")
    assert torch.equal(vae.decode(z), clamped_logit(module.decode(z)))
    eps = torch.finfo(torch.float32).eps
    assert torch.allclose(vae.g(z), module.decode(z).clamp(eps, 1 - eps), atol=1e-6)
    assert "clamped" in explain(vae).decoder_output


def test_the_clamped_logit_inverts_the_sigmoid_and_stops_at_the_ends():
    p = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    logit = clamped_logit(p)
    assert torch.isfinite(logit).all()
    assert torch.allclose(torch.sigmoid(logit), p, atol=1e-15)
    (gradient,) = torch.autograd.grad(logit.sum(), p)
    inside = p[1:4] * (1 - p[1:4])
    assert torch.allclose(gradient[1:4], 1 / inside)
    assert gradient[0] == gradient[4] == 0
    assert clamped_logit(torch.tensor([float("nan")])).isnan()
    assert clamped_logit(torch.ones(1, dtype=torch.bfloat16)).item() == pytest.approx(15.9, abs=0.1)


def test_dropout_in_training_mode_postpones_the_decision(z):
    module = Decoding(nn.Sequential(nn.Dropout(0.5), nn.Sigmoid()))
    vae = as_vae(module, decoder_output="probabilities")
    state = torch.get_rng_state()
    vae.decode(z)
    assert "decided at the first decode" in explain(vae).decoder_output
    torch.set_rng_state(state)
    vae.eval()
    assert torch.equal(vae.decode(z).flatten(1), module.logits(z))


def test_logits_that_end_in_a_sigmoid_are_warned_of():
    with pytest.warns(UserWarning, match='pass decoder_output="probabilities"'):
        vae = vae_of(nn.Sequential(nn.Linear(d, D), nn.Sigmoid()), decoder_output="logits")
    assert "ends in a Sigmoid ('1')" in explain(vae).decoder_output
