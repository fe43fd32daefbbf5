"""``explain(vae, x)`` of a model in training mode took the rows into batch norm's statistics, and
dropout that is called as a function went unnoticed. It changes nothing, and names what is random.
"""

import pytest
import torch
import torch.nn.functional as F
from field_models import Hidden
from torch import nn

import vaefast as vf

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Normed(Hidden):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def hidden(self, x):
        return self.norm(x)


class Counting(Hidden):
    """Statistics of its own, which no class tells."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def hidden(self, x):
        self.seen += len(x) if self.training else 0
        return x


class AlwaysDropping(Hidden):
    def hidden(self, x):
        return F.dropout(x, 0.3)


class DroppingInTraining(Hidden):
    def hidden(self, x):
        return F.dropout(x, 0.3, training=self.training)


class Layer(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.3)


class WithLayer(Hidden):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Identity(), Layer())

    def hidden(self, x):
        return self.body(x)


class Drawing(Hidden):
    def encode(self, x):
        mean, logvar = super().encode(x)
        return mean + torch.randn_like(mean), logvar


class DroppingDecoder(Hidden):
    def decode(self, z):
        return super().decode(F.dropout(z, 0.5))


class OfTheBatch(Hidden):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def hidden(self, x):
        return self.norm(x)


def wrapped(module):
    return vf.as_vae(
        module, encoder_output="logvar", decoder_output="logits", event_shape=X.shape[1:]
    )


def state(vae):
    """All that explain could change, as values."""
    modules = [
        (m.training, {k: v for k, v in vars(m).items() if k[0] != "_"}) for m in vae.modules()
    ]
    tensors = {name: t.clone() for name, t in vae.state_dict().items()}
    return modules, tensors, torch.random.get_rng_state()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make", [Normed, Counting, DroppingInTraining, WithLayer, Drawing, OfTheBatch]
)
def test_nothing_is_changed(make, training, given):
    vae = wrapped(make().train(training))
    modules, tensors, random = state(vae)
    vf.explain(vae, X) if given else vf.explain(vae)
    after, now, random_now = state(vae)
    assert torch.equal(random, random_now)
    assert all(torch.equal(t, now[name]) for name, t in tensors.items())
    assert repr(modules) == repr(after)


NOTICED = {
    AlwaysDropping: "AlwaysDropping.encode is random",
    WithLayer: "layer 'body.1' (Layer) is random",
    Drawing: "Drawing.encode is random",
    DroppingDecoder: "DroppingDecoder.decode is random",
    OfTheBatch: "layer 'norm' (BatchNorm2d) gives a row another result beside another row",
}


@pytest.mark.parametrize("rows", [4, 1, None])
@pytest.mark.parametrize("make", NOTICED)
def test_what_is_no_function_of_its_row_is_named(make, rows):
    vae = wrapped(make().eval())
    found = vf.explain(vae) if rows is None else vf.explain(vae, X[:rows])
    assert found.mode.startswith(f"evaluation, but {NOTICED[make]}")


def test_dropout_that_follows_the_mode_is_named_in_training_mode():
    words = "training: DroppingInTraining.encode is random"
    assert vf.explain(wrapped(DroppingInTraining().train()), X).mode.startswith(words)
    assert vf.explain(wrapped(DroppingInTraining().eval()), X).mode == "evaluation"


@pytest.mark.parametrize("make", [Hidden, Normed, Counting])
def test_a_function_of_its_row_is_none_of_these(make):
    for vae in (
        wrapped(make().eval()),
        wrapped(make().double().eval()),
        wrapped(make().half().eval()),
    ):
        x = X.to(next(vae.parameters()).dtype)
        assert vf.explain(vae, x).mode == "evaluation"
    assert vf.explain(wrapped(Normed().train()), X).mode.startswith("training: layer 'encoder.mod")
