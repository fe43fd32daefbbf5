"""Traces are kept per module, and a network always has the weights of the moment."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaefast as vf
from vaefast.functional.network import evaluate
from vaefast.models import CannotLower, as_vae, lowering, traces, tracing


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.mean, self.logvar = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.norm, self.up = nn.BatchNorm1d(8), nn.Linear(3, 12)
        self.low = -4.0

    def encode(self, x):
        h = F.relu(self.norm(self.trunk(x.flatten(1))))
        return self.mean(h), self.logvar(h).clamp(self.low, 4.0)

    def decode(self, z):
        return torch.sigmoid(self.up(z))

    def forward(self, x):
        return self.decode(self.encode(x)[0])


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Plain().double().eval()


@pytest.fixture
def x():
    return torch.rand(5, 3, 4, dtype=torch.float64)


@pytest.fixture
def traced(monkeypatch):
    """How many forwards were recorded."""
    calls = []

    def counted(root, rows):
        calls.append(root.label)
        return tracing.trace(root, rows)

    monkeypatch.setattr(traces, "trace", counted)
    return calls


def agrees(module, x):
    net = vf.lower(module, x)
    tolerance = 64 * torch.finfo(x.dtype).eps
    got, expected = evaluate(x.flatten(1), net), module(x)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def add(module):
    with torch.no_grad():
        module.up.weight.add_(0.5)


def by_data(module):
    module.up.weight.data *= 2.0
    module.norm.running_var.data *= 3.0


def by_numpy(module):
    module.trunk.weight.detach().numpy()[...] *= 1.5


def by_optimizer(module):
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    module(torch.rand(2, 12, dtype=torch.float64)).sum().backward()
    optimizer.step()


def by_load(module):
    module.load_state_dict(Plain().double().state_dict())


@pytest.mark.parametrize("write", [add, by_data, by_numpy, by_optimizer, by_load])
def test_written_weights_are_seen_without_another_trace(module, x, traced, write):
    agrees(module, x)
    write(module)
    agrees(module, x)
    assert len(traced) == 1


def replaced(module):
    module.up = nn.Linear(3, 12, bias=False).double()


def hooked(module):
    module.up.register_forward_hook(lambda m, args, out: 2 * out)


def prehooked(module):
    module.up.register_forward_pre_hook(lambda m, args: (args[0] + 1,))


def flag(module):
    module.low = -0.1


def forward(module):
    up = module.up
    up.forward = lambda z: F.linear(z, up.weight)


def parameter(module):
    module.up.weight = nn.Parameter(torch.rand(12, 3, dtype=torch.float64))


@pytest.mark.parametrize("change", [replaced, hooked, prehooked, flag, forward, parameter])
def test_another_structure_is_traced_anew(module, x, traced, change):
    agrees(module, x)
    change(module)
    agrees(module, x)
    assert len(traced) == 2


def test_training_mode_is_another_structure(module, x, traced):
    agrees(module, x)
    module.train()
    statistics = module.norm.running_mean.clone()
    with pytest.raises(CannotLower, match=r"'norm' \(BatchNorm1d\) writes"):
        vf.lower(module, x)
    with pytest.raises(CannotLower):  # and so is the reason kept
        vf.lower(module, x)
    assert len(traced) == 2
    module.eval()
    agrees(module, x)
    assert torch.equal(statistics, module.norm.running_mean)


def test_shape_and_dtype_are_part_of_the_key(module, x, traced):
    agrees(module, x)
    agrees(module, x.flatten(1))
    agrees(module.float(), x.float())
    assert len(traced) == 3


def test_a_module_may_die(x):
    module = Plain().double().eval()
    agrees(module, x)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


class Set(nn.Module):
    """Everything that a forward may depend on and that no attribute of the module tells."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.config, self.options = SimpleNamespace(scale=1.0), {"act": F.relu}
        self.scales, self.layers = [1.0], [nn.Linear(12, 8).double()]
        self.register_buffer("gain", torch.ones((), dtype=torch.float64))
        self.mean, self.logvar, self.up = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(3, 12)

    def scaled(self, h):
        return h * self.gain.item()

    def encode(self, x):
        h = self.options["act"](self.layers[0](x.flatten(1)))
        h = self.scaled(h) * self.config.scale * self.scales[0] * Set.factor
        return self.mean(h), self.logvar(h)

    def decode(self, z):
        return self.up(z) * self.config.scale


HIDDEN = {
    "configuration": lambda module, patch: setattr(module.config, "scale", 3.0),
    "entry of a dict": lambda module, patch: module.options.update(act=torch.tanh),
    "entry of a list": lambda module, patch: module.scales.__setitem__(0, 3.0),
    "layer in a list": lambda module, patch: module.layers.__setitem__(
        0, nn.Linear(12, 8).double()
    ),
    "global": lambda module, patch: patch.setattr(Set, "factor", 3.0),
    "helper method": lambda module, patch: patch.setattr(Set, "scaled", lambda self, h: -2 * h),
    "item of a buffer": lambda module, patch: module.gain.data.fill_(3.0),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_change_that_no_state_tells_is_seen_by_the_next_call(name, x, monkeypatch):
    torch.manual_seed(0)
    module = Set().double().eval()
    vae = as_vae(module)
    for change in (lambda *_: None, HIDDEN[name]):
        change(module, monkeypatch)
        jacobian = torch.autograd.functional.jacobian(lambda t: module.encode(t)[0].sum(0), x)
        expected = jacobian.flatten(2).norm(dim=(0, 2))
        torch.testing.assert_close(vf.geometry.frobenius_norm(vae, x), expected)
    z = torch.rand(4, 3, dtype=torch.float64)
    torch.testing.assert_close(evaluate(z, lowering.decoder(vae, z)), module.decode(z))


def test_another_number_of_results_is_seen(x):
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.config = nn.Linear(12, 4), SimpleNamespace(times=1)

        def forward(self, x):
            return [self.a(x.flatten(1))] * self.config.times

    module = Counted().double()
    vf.lower(module, x)
    module.config.times = 2
    with pytest.raises(CannotLower, match="returns 2 tensors"):
        vf.lower(module, x)


def test_networks_are_compared_in_every_call_but_for_frozen_ones(module, x, monkeypatch):
    calls, vae = [], as_vae(module, decoder_output="logits")
    monkeypatch.setattr(Plain, "decode", lambda self, z: calls.append(1) or self.up(z))
    z = torch.rand(2, 3, dtype=torch.float64)
    lowering.decoder(vae, z)
    ran = len(calls)
    lowering.decoder(vae, z)
    assert len(calls) == ran + 1
    with vf.frozen(vae):
        lowering.decoder(vae, z)
        assert len(calls) == ran + 1
    lowering.decoder(vae, z)
    assert len(calls) == ran + 2


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_a_trace_that_is_wrong_in_one_pixel_is_not_believed(module, x, scale, monkeypatch):
    def corrupted(root, rows):
        traced = tracing.trace(root, rows)
        plan = traced.plans[0]
        last = plan.parameters[-1]

        def wrong(values):
            weight, bias = last(values)
            return weight, bias + 1e-9 * scale * (torch.arange(12) == 7)

        return traced._replace(plans=(type(plan)((*plan.parameters[:-1], wrong), plan.texts),))

    monkeypatch.setattr(traces, "trace", corrupted)
    with pytest.raises(CannotLower, match=r"^Plain differs from its trace by .* is allowed"):
        vf.lower(module, x)


def test_hidden_control_flow_is_found_by_the_comparison(x):
    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.calls = nn.Linear(12, 4), 0

        def forward(self, x):
            self.calls += 1
            return self.a(x.flatten(1)) * (-1.0) ** self.calls

    with pytest.raises(CannotLower, match="Turning differs from its trace"):
        vf.lower(Turning().double(), x)


def test_both_heads_come_from_one_trace_and_share_their_trunk(module, x, traced):
    vae = as_vae(module, decoder_output="probabilities")
    mean, logvar, why_not = lowering.encoder(vae, x)[:3]
    assert (traced, why_not) == (["Plain.encode"], "")
    assert mean.weights[0] is logvar.weights[0]
    assert mean.layers == ["linear relu", "linear identity"]
    assert logvar.layers == ["linear relu", "linear clamp:-4.0:4.0"]
    torch.testing.assert_close(evaluate(x.flatten(1), mean), vae.encode(x)[0])
    torch.testing.assert_close(evaluate(x.flatten(1), logvar), vae.encode(x)[1])
    z = vae.encode(x)[0]
    assert lowering.decoder(vae, z).layers == ["linear identity"]
    assert lowering.pixels(vae, z).layers == ["linear sigmoid"]
    torch.testing.assert_close(evaluate(z, lowering.pixels(vae, z)), vae.g(z).flatten(1))


def test_one_head_may_lower_alone(module, x, monkeypatch):
    def encode(self, x):
        h = F.relu(self.trunk(x.flatten(1)))
        return self.mean(h), torch.log(F.softplus(self.logvar(h)))

    monkeypatch.setattr(Plain, "encode", encode)
    mean, logvar, why_not = lowering.encoder(as_vae(module), x)[:3]
    assert mean.layers == ["linear relu", "linear identity"]
    assert logvar is None
    assert "Plain.encode is the logarithm of what is no exponential (aten.log.default)" in why_not


def test_half_precision_keeps_its_dtype(module, x):
    vae = as_vae(module.to(torch.bfloat16))
    mean, _, why_not = lowering.encoder(vae, x.float())[:3]
    assert (mean.weights[0].dtype, why_not) == (torch.bfloat16, "")


def test_works_in_every_grad_mode(module, x):
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            net = vf.lower(module, x)
        assert not any(w.requires_grad or w.is_inference() for w in net.weights)


def made_of_layers():
    return vf.models.MLPVAE((12,), hidden=(5,), latent=3, seed=0).eval()


def count_forwards(vae, act, x):
    """How often an encoder ran in a call after ``act``, which follows two calls."""
    calls, encode = [], vf.VAE.q
    vf.geometry.frobenius_norm(vae, x)
    vf.geometry.frobenius_norm(vae, x)
    undo = act(vae)
    try:
        vf.VAE.q = lambda self, *a, **k: calls.append(1) or encode(self, *a, **k)
        vf.geometry.frobenius_norm(vae, x)
    finally:
        vf.VAE.q = encode
        (undo or (lambda: None))()
    return len(calls)


def watched_everywhere(vae):
    return nn.modules.module.register_module_forward_hook(lambda *_: None).remove


def with_a_forward_of_its_own(vae):
    layer = vae.encoder.mean
    layer.forward = type(layer).forward.__get__(layer)


class Rounded(nn.Linear):
    pass


def of_another_class(vae):
    vae.encoder.mean.__class__ = Rounded


def with_other_weights(vae):
    with torch.no_grad():
        vae.encoder.mean.weight.mul_(2.0)


OBSERVED = {
    "a hook": lambda vae: vae.encoder.mean.register_forward_hook(lambda *_: None).remove,
    "a hook of all modules": watched_everywhere,
    "an instance's forward": with_a_forward_of_its_own,
    "a subclass": of_another_class,
    "other weights": with_other_weights,
}


def test_nothing_is_compared_again_that_consists_of_torchs_own_layers(x):
    vae = made_of_layers()
    assert count_forwards(vae, lambda vae: None, x.float().flatten(1)) == 0


@pytest.mark.parametrize("name", OBSERVED)
def test_but_where_code_or_weights_may_be_others(name, x):
    assert count_forwards(made_of_layers(), OBSERVED[name], x.float().flatten(1)) > 0


def test_a_subclass_that_encodes_otherwise_is_compared(x):
    vae = made_of_layers()
    vae.__class__ = type("Own", (type(vae),), {"__module__": "elsewhere"})
    assert count_forwards(vae, lambda vae: None, x.float().flatten(1)) > 0
