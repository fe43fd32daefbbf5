"""Networks kept from call to call are those of now, whatever was changed in between."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.models import MLPVAE, known


@pytest.fixture(autouse=True)
def _cpp(require):
    require("net_forward", "cpp")


@pytest.fixture
def x():
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def make():
    return MLPVAE((1, 4, 4), hidden=(12,), latent=3, seed=0).eval()


def measured(vae, x):
    """What the encoder and the decoder have a share in."""
    drawn = vf.hmc.sample(vae, x, steps=2, warmup=2, leapfrog=2)
    p = vf.certify.robust_probability(vae, x, 0.5, samples=50)
    return drawn.z, p.p, vf.geometry.frobenius_norm(vae, x, of="reconstruction")


def write_in_place(vae):
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(1.5)


def write_past_the_versions(vae):
    for p in vae.parameters():
        p.data.mul_(1.5)
        p.detach().numpy()[...] += 0.01


def other_memory(vae):
    for p in vae.parameters():
        p.data = p.data * 1.5


def other_parameters(vae):
    for layer in vae.modules():
        for name, p in list(layer._parameters.items()):
            if p is not None:
                setattr(layer, name, nn.Parameter(p.detach() * 1.5))


def other_activation(vae):
    for layer in vae.modules():
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.ReLU | nn.Tanh):
                setattr(layer, name, nn.Softplus())


def other_decoder(vae):
    vae.decoder = MLPVAE((1, 4, 4), hidden=(12,), latent=3, seed=5).decoder


def hook(vae):
    linear = next(m for m in vae.decoder.modules() if isinstance(m, nn.Linear))
    linear.register_forward_hook(lambda module, args, out: out * 1.5)


def forward_of_the_object(vae):
    linear = next(m for m in vae.encoder.modules() if isinstance(m, nn.Linear))
    plain = linear.forward
    linear.forward = lambda x: plain(x) * 1.5


CHANGES = (
    write_in_place,
    write_past_the_versions,
    other_memory,
    other_parameters,
    other_activation,
    other_decoder,
    hook,
    forward_of_the_object,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_seen(change, x):
    vae, fresh = make(), make()
    for _ in range(3):
        before = measured(vae, x)
    assert known._last[vae].stands(x)
    change(vae), change(fresh)
    after, wanted = measured(vae, x), measured(fresh, x)
    assert all(torch.equal(*pair) for pair in zip(after, wanted))
    assert not any(torch.equal(*pair) for pair in zip(after, before))


def test_a_global_hook_is_seen(x):
    vae = make()
    for _ in range(3):
        before = measured(vae, x)

    def brighter(module, args, out):
        return out * 1.5 if isinstance(module, nn.Linear) else None

    handle = nn.modules.module.register_module_forward_hook(brighter)
    try:
        after, wanted = measured(vae, x), measured(make(), x)
    finally:
        handle.remove()
    assert all(torch.allclose(*pair) for pair in zip(after, wanted))
    assert not any(torch.equal(*pair) for pair in zip(after, before))
    assert all(torch.equal(*pair) for pair in zip(measured(vae, x), before))


def test_training_mode_is_refused(x):
    vae = make()
    vae.decoder.append(nn.Dropout())
    vae.eval()
    for _ in range(3):
        measured(vae, x)
    vae.train()
    with pytest.raises(RuntimeError, match="training mode"):
        measured(vae, x)


def test_another_kind_of_x(x):
    vae = make()
    for _ in range(3):
        single = measured(vae, x)
    vae.double()
    double = measured(vae, x.double())
    assert double[0].dtype == torch.float64
    vae.float()
    assert all(torch.equal(*pair) for pair in zip(measured(vae, x), single))


def test_folded_weights_are_not_kept(x):
    vae = make()
    vae.decoder.append(nn.BatchNorm2d(1).eval())
    vae.decoder[-1].running_var.fill_(2.0)
    for _ in range(3):
        before = measured(vae, x)
    vae.decoder[-1].running_var.data.fill_(0.1)
    assert not torch.equal(measured(vae, x)[0], before[0])


def test_a_model_is_not_kept_alive(x):
    vae = make()
    for _ in range(3):
        measured(vae, x)
    kept = len(known._last)
    del vae
    assert len(known._last) == kept - 1


@pytest.mark.parametrize("change", CHANGES[:-1], ids=lambda change: change.__name__)
def test_a_fingerprint_is_that_of_now(change, x):
    vae, fresh = make(), make()
    for _ in range(3):
        before = vf.certify.robust_probability(vae, x, 0.5, samples=5).fingerprint
    assert before == vf.certify.robust_probability(fresh, x, 0.5, samples=5).fingerprint
    change(vae), change(fresh)
    after = vf.certify.robust_probability(vae, x, 0.5, samples=5).fingerprint
    assert after == vf.certify.robust_probability(fresh, x, 0.5, samples=5).fingerprint
    assert (after == before) == (change is hook or change is other_activation)
