"""The attack on the top groups: it raises what it says, in its ball, and refuses in one line."""

import pytest
import torch

from vaefast.attacks import latent_groups
from vaefast.models import MLPVAE, HierarchicalVAE, as_hierarchical

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def skl(a, b):
    """½KL + ½KL of two diagonal Gaussians, by torch.distributions."""
    p, q = (torch.distributions.Normal(g.mean, torch.exp(0.5 * g.logvar)) for g in (a, b))
    kl = torch.distributions.kl_divergence
    return 0.5 * (kl(p, q) + kl(q, p)).flatten(1).sum(1)


def divergence(model, a, b, top, draws=200, seed=1):
    """Mean over paths of the sum over the top groups, [B]."""
    generator, total = torch.Generator().manual_seed(seed), 0.0
    with torch.no_grad():
        for _ in range(draws):
            noise = [
                torch.randn(len(a), *s, generator=generator).double() for s in model.shapes[:top]
            ]
            paths = (model.posterior_path(x, noise) for x in (a, b))
            total = total + sum(skl(p, q) for p, q in zip(*paths))
    return total / draws


@pytest.fixture(scope="module")
def model():
    model = HierarchicalVAE((1, 8, 8), 3, 4, 3).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "posterior" in name or "prior" in name:
                p.mul_(6.0)  # the heads of a trained model are larger
    return model


@pytest.mark.parametrize("top", [1, 2, 3])
def test_it_raises_the_divergence_of_the_top_groups(model, top):
    found = latent_groups(model, X, top=top, eps=0.1, steps=20, restarts=2, seed=3)
    assert not found.failed.any()
    assert ((found.x_adv - X).abs() <= 0.1 + 1e-12).all()
    assert found.x_adv.min() >= 0
    assert found.x_adv.max() <= 1
    own = divergence(model, found.x_adv, X, top)
    sign = torch.randint(0, 2, X.shape, generator=torch.Generator().manual_seed(4)) * 2.0 - 1
    random = divergence(model, (X + 0.1 * sign).clip(0, 1), X, top)
    assert (own > 2 * random).all()
    assert torch.allclose(found.objective, own, rtol=0.15)  # reported on paths of its own
    if top == 1:
        assert torch.allclose(found.objective, own)


def test_more_groups_are_attacked_than_one(model):
    one, two = (latent_groups(model, X, top=k, eps=0.1, steps=20, seed=3).x_adv for k in (1, 2))
    assert (divergence(model, two, X, 2) > divergence(model, one, X, 2)).sum() >= 3


def test_a_target_is_approached(model):
    target = X.flip(0)
    found = latent_groups(model, X, target=target, top=2, eps=0.3, steps=20, seed=3)
    before, after = (divergence(model, x, target, 2) for x in (X, found.x_adv))
    assert (after < 0.8 * before).all()
    assert torch.allclose(-found.objective, after, rtol=0.15)


def test_it_repeats_and_a_row_is_the_same_alone(model):
    options = {"top": 2, "eps": 0.1, "steps": 5, "restarts": 2, "seed": 5}
    first, again = (latent_groups(model, X, **options) for _ in "ab")
    assert torch.equal(first.x_adv, again.x_adv)
    alone = latent_groups(model, X[2:3], index=torch.tensor([2]), **options)
    assert torch.allclose(alone.x_adv, first.x_adv[2:3])
    assert torch.allclose(alone.objective, first.objective[2:3])


def test_a_wrapped_module_is_attacked_through_its_path(model):
    wrapped = as_hierarchical(
        model,
        posterior_path=lambda x, noise: [g[:3] for g in model.posterior_path(x, noise)],
        log_joint=model.log_joint,
        shapes=model.shapes,
    )
    options = {"top": 2, "eps": 0.1, "steps": 5, "seed": 6}
    own, other = (latent_groups(m, X, **options) for m in (model, wrapped))
    assert torch.allclose(own.x_adv, other.x_adv)
    assert torch.allclose(own.objective, other.objective)


def test_the_published_setting(model):
    found = latent_groups(model, X[:2], top=2, eps=0.1, preset="kuzina2022", steps=3)
    assert found.x_adv.shape == (2, 10, 1, 8, 8)


def test_a_row_that_is_not_finite_fails_alone(model):
    x = X.clone()
    x[1, 0, 0, 0] = torch.nan
    with pytest.warns(UserWarning, match="1 of 4 rows failed"):
        found = latent_groups(model, x, top=2, eps=0.1, steps=3)
    assert found.failed.tolist() == [False, True, False, False]
    assert torch.allclose(found.x_adv[2], latent_groups(model, X, top=2, eps=0.1, steps=3).x_adv[2])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"top": 4}, ValueError, "top must be at most the model's 3 groups, got 4"),
        ({"draws": 0}, ValueError, "draws must be at least 1"),
        ({"divergence": "clf"}, ValueError, "divergence must be one of"),
        ({"eps": None}, TypeError, "eps is missing"),
        ({"target": X[:2]}, ValueError, "target must be"),
        ({"x": 255 * X}, ValueError, r"x must be in \[0, 1\] with likelihood 'bernoulli'"),
        ({"model": MLPVAE((1, 8, 8), (8,), 2)}, TypeError, "must be a HierarchicalVAE or come"),
        ({"preset": "mist"}, ValueError, "divergence|target|preset|low"),
    ],
)
def test_mistakes(model, change, error, words):
    arguments = {"model": model, "x": X, "eps": 0.1, **change}
    with pytest.raises(error, match=words) as caught:
        latent_groups(arguments.pop("model"), arguments.pop("x"), **arguments)
    assert "\n" not in str(caught.value)
