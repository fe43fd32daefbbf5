"""A ``decode`` that ends in a sigmoid was taken for logits without a word: margins three times too
large; and the sampler refused it in terms of the ops.

One warning says it, whatever the spelling and whichever function is called first; ``explain`` says
it too. Every function then runs, with what ``decoder_output`` says.
"""

import pytest
import torch
from field_models import warned
from torch import nn
from torch.nn import functional as F

import vaefast as vf

SPELLINGS = {
    "torch": torch.sigmoid,
    "functional": F.sigmoid,
    "method": lambda h: h.sigmoid(),
    "special": torch.special.expit,
    "in place": lambda h: h.sigmoid_(),
    "by hand": lambda h: 1 / (1 + torch.exp(-h)),
    "reshaped": lambda h: torch.sigmoid(h).view(-1, 9, 1).flatten(1),
}
HMC = {"steps": 3, "warmup": 3, "leapfrog": 2, "chains": 2}
CALLS = {
    "latent": lambda v, x: vf.attacks.latent(v, x, eps=0.1, steps=2),
    "max_damage": lambda v, x: vf.attacks.max_damage(v, x, eps=0.1, steps=2),
    "margin": lambda v, x: vf.certify.margin(v, x, 3.0, samples=20),
    "sample": lambda v, x: vf.hmc.sample(v, x, **HMC),
    "defend": lambda v, x: vf.hmc.defend(v, x, **HMC),
    "tune": lambda v, x: vf.hmc.tune(v, x, leapfrogs=(2,), steps=2, warmup=2),
    "elbo": vf.training.evaluate_elbo,
    "spectral_norm": lambda v, x: vf.geometry.spectral_norm(v, x, of="decoder"),
}
X = torch.rand(3, 9, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    def __init__(self, end):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mean, self.logvar = nn.Linear(9, 2), nn.Linear(9, 2)
            self.hidden, self.out = nn.Linear(2, 8), nn.Linear(8, 9)
        self.end = end

    def encode(self, x):
        return self.mean(x), self.logvar(x)

    def decode(self, z):
        return self.end(self.out(self.hidden(z).relu()))


def said(function):
    return warned(function, "lie in [0, 1]")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("end", SPELLINGS)
def test_one_warning_and_every_function_runs(end, name):
    vae = vf.as_vae(Model(SPELLINGS[end]).eval())
    first, second = (said(lambda: CALLS[name](vae, X)) for _ in range(2))
    assert len(first) == 1
    assert 'pass decoder_output="probabilities"' in first[0]
    assert not second


@pytest.mark.parametrize("end", SPELLINGS)
def test_explain_says_it(end):
    assert (
        "decode returns values in [0, 1]"
        in vf.explain(vf.as_vae(Model(SPELLINGS[end]).eval()), X).decoder_output
    )


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_energies_are_those_of_what_was_said(output):
    model = Model(torch.sigmoid).double().eval()
    vae, x = vf.as_vae(model, decoder_output=output), X.double()
    assert not said(lambda: vf.hmc.sample(vae, x, **HMC))
    found = vf.hmc.sample(vae, x, **HMC)
    z = found.z[:, 0, -1]
    out = model.decode(z)
    logits = out if output == "logits" else torch.logit(out)
    log_p = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    prior = 0.5 * z.square().sum(1) + torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(found.energy[:, 0, -1], log_p + prior, rtol=1e-6, atol=1e-6)
    fused = vf.explain(vae, x).posterior.fused
    assert fused == (output == "probabilities")
