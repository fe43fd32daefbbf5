"""The latent classifier fits a linear rule, deterministically, and predictions are compared."""

import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast import attacks
from vaefast.metrics import LatentClassifier, adversarial_accuracy
from vaefast.models import VAE


@pytest.fixture(scope="module")
def vae():
    """A VAE whose mean is the input itself."""
    mean = nn.Linear(2, 2, bias=False)
    nn.init.eye_(mean.weight)
    return VAE(
        encoder_mean=mean,
        encoder_logvar=torch.zeros(2),
        decoder=nn.Linear(2, 2),
        likelihood="gaussian",
    ).eval()


@pytest.fixture(scope="module")
def blobs():
    """Three well separated classes with labels 7, -2 and 3."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 3.0], [3.0, -2.0], [-3.0, -2.0]])
    which = torch.randint(3, (400,), generator=generator)
    x = centres[which] + 0.4 * torch.randn(400, 2, generator=generator)
    return x, torch.tensor([7, -2, 3])[which]


def test_separates_what_is_separable(vae, blobs):
    x, y = blobs
    classifier = LatentClassifier.fit(vae, x, y)
    assert classifier.classes.tolist() == [-2, 3, 7]
    assert classifier.validation_accuracy == 1.0
    assert (classifier.predict(x) == y).all()


def test_logits_are_one_linear_layer(vae, blobs):
    x, _ = blobs
    classifier = LatentClassifier.fit(vae, *blobs)
    expected = x @ classifier.weight.T + classifier.bias
    torch.testing.assert_close(classifier.logits(x), expected)
    torch.testing.assert_close(classifier(x), expected)
    assert torch.equal(classifier.predict(x), classifier.classes[expected.argmax(1)])


def test_approaches_the_optimum_of_the_cross_entropy(vae):
    """Two overlapping Gaussians ±m with unit variance: the best logit difference is 2mᵀx."""
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(8000) % 2
    m = torch.tensor([0.8, -0.4])
    x = (2.0 * y[:, None] - 1.0) * m + torch.randn(8000, 2, generator=generator)
    classifier = LatentClassifier.fit(vae, x, y)
    difference = classifier.weight[1] - classifier.weight[0]
    torch.testing.assert_close(difference, 2 * m, atol=0.25, rtol=0)
    best = torch.special.ndtr(m.norm()).item()
    assert (classifier.predict(x) == y).double().mean().item() == pytest.approx(best, abs=0.01)


def test_the_seed_decides_and_the_global_generator_is_left_alone(vae, blobs):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = LatentClassifier.fit(vae, *blobs, seed=1, epochs=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = LatentClassifier.fit(vae, *blobs, seed=1, epochs=3)
    other = LatentClassifier.fit(vae, *blobs, seed=2, epochs=3)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_fits_under_no_grad_and_leaves_the_model_alone(vae, blobs):
    before = [p.clone() for p in vae.parameters()]
    with torch.no_grad():
        classifier = LatentClassifier.fit(vae, *blobs, epochs=5)
    assert classifier.validation_accuracy > 0.9
    assert not classifier.weight.requires_grad
    for old, new in zip(before, vae.parameters()):
        assert torch.equal(old, new)
        assert new.grad is None


def test_fits_under_inference_mode(vae, blobs):
    expected = LatentClassifier.fit(vae, *blobs, epochs=3)
    with torch.inference_mode():
        x, y = (t.clone() for t in blobs)
        classifier = LatentClassifier.fit(vae, x, y, epochs=3)
    torch.testing.assert_close(classifier.weight, expected.weight)


def test_chunks_of_images_do_not_matter(vae, blobs):
    whole = LatentClassifier.fit(vae, *blobs, epochs=2)
    vf.set_memory(100)
    parts = LatentClassifier.fit(vae, *blobs, epochs=2)
    torch.testing.assert_close(parts.weight, whole.weight)


def test_serves_the_latent_attack(vae, blobs):
    """logits is the differentiable function that the classifier attack takes."""
    x, y = blobs
    classifier = LatentClassifier.fit(vae, x, y)
    result = attacks.latent(
        vae, x, eps=4.0, norm="l2", divergence="clf", classifier=classifier, low=-10.0, high=10.0
    )
    moved = adversarial_accuracy(classifier, x, result.x_adv)
    assert moved.accuracy < 0.05


def test_accuracy_compares_predictions_not_labels():
    """Classes are the signs of the latent; the reference's own class may be a wrong label."""
    classifier = LatentClassifier(
        weight=torch.tensor([[-1.0], [1.0]]),
        bias=torch.zeros(2),
        classes=torch.tensor([4, 9]),
        validation_accuracy=1.0,
    )
    mean = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    z_adv = torch.tensor([[2.0], [-2.0], [-3.0], [torch.nan]])
    result = adversarial_accuracy(classifier, mean, z_adv)
    assert result.same_class.tolist() == [True, False, True, False]
    assert result.failed.tolist() == [False, False, False, True]
    assert result.accuracy == pytest.approx(2 / 3)
    assert classifier.predict(z_adv).tolist() == [9, 4, 4, -1]


def test_accuracy_of_several_chains():
    classifier = LatentClassifier(
        torch.tensor([[-1.0], [1.0]]), torch.zeros(2), torch.tensor([-5, 1]), 1.0
    )
    mean = torch.tensor([[1.0], [-1.0]])
    z_adv = torch.tensor([[[1.0], [2.0], [-1.0]], [[-1.0], [-1.0], [torch.inf]]])
    result = adversarial_accuracy(classifier, mean, z_adv)
    assert result.same_class.tolist() == [[True, True, False], [True, True, False]]
    assert result.failed.tolist() == [[False] * 3, [False, False, True]]
    assert result.accuracy == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4), {}, TypeError, "y must be an integer tensor"),
        (torch.zeros(4, 2), torch.zeros(3).long(), {}, ValueError, r"y must be \[4\]"),
        (torch.zeros(4, 2), torch.ones(4).long(), {}, ValueError, "at least 2 classes"),
        (torch.full((2, 2), torch.nan), torch.arange(2), {}, ValueError, "finite means, row 0"),
        (torch.zeros(4, 2), torch.arange(4), {"validation": 1.0}, ValueError, "validation must"),
        (torch.zeros(4, 2), torch.arange(4), {"epochs": 0}, ValueError, "epochs must"),
        (torch.zeros(4, 2), torch.arange(4), {"seed": 0.5}, TypeError, "seed must be a whole"),
    ],
)
def test_refuses(vae, x, y, options, error, message):
    with pytest.raises(error, match=message):
        LatentClassifier.fit(vae, x, y, **options)


def test_refuses_what_is_no_vae(blobs):
    with pytest.raises(TypeError, match=r"vae must be a vaefast\.VAE"):
        LatentClassifier.fit(nn.Linear(2, 2), *blobs)


def test_refuses_latents_of_another_size(vae, blobs):
    classifier = LatentClassifier.fit(vae, *blobs, epochs=1)
    with pytest.raises(ValueError, match="with d = 2"):
        classifier.predict(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="z_adv must be"):
        adversarial_accuracy(classifier, torch.zeros(3, 2), torch.zeros(2, 2))
