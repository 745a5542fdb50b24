"""course_lib.problems.digits: the images against scikit-learn's, batches and models against plain arithmetic."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from course_lib.problems import digits

PIXELS, LABELS = load_digits(return_X_y=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_images_are_scikit_learns_between_0_and_1(dtype):
    data = digits.load(dtype, held_out=0.0)
    assert data.images.dtype == dtype and data.labels.dtype == torch.int64
    assert np.array_equal(data.images.numpy() * 16, PIXELS) and np.array_equal(data.labels.numpy(), LABELS)
    assert data.images.min() == 0 and data.images.max() == 1
    assert data.test_images.shape == (0, 64) and data.test_labels.shape == (0,)


@given(st.floats(0.0, 0.99), st.integers(0, 99))
@settings(max_examples=20)
def test_the_split_takes_the_same_share_of_every_class_and_loses_nothing(held_out, seed):
    data = digits.load(torch.float64, held_out, seed)
    sizes, out = np.bincount(LABELS), np.bincount(data.test_labels.numpy(), minlength=10)
    assert out.tolist() == [round(held_out * size) for size in sizes]
    both = np.concatenate([np.column_stack([images, labels]) for images, labels in (
        (data.images, data.labels), (data.test_images, data.test_labels))])
    whole = np.column_stack([PIXELS / 16, LABELS])
    assert sorted(map(tuple, both)) == sorted(map(tuple, whole))


def test_a_seed_is_one_split():
    first, second, other = (digits.load(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.test_images, second.test_images)
    assert not torch.equal(first.test_images, other.test_images)


@given(n=st.integers(1, 30), batch=st.integers(1, 30), steps=st.integers(1, 20), seed=st.integers(0, 9))
@settings(max_examples=50)
def test_an_epoch_shows_no_image_twice_and_pairs_stay_pairs(n, batch, steps, seed):
    batch = min(batch, n)
    images, labels = torch.arange(n)[:, None] * torch.ones(1, 3), 10 * torch.arange(n)
    drawn = list(digits.batches(images, labels, batch, steps, seed))
    assert len(drawn) == steps
    for got, label in drawn:
        assert got.shape == (batch, 3) and torch.equal(10 * got[:, 0].long(), label)
    per_epoch = n // batch
    for first in range(0, steps, per_epoch):
        seen = torch.cat([label for _, label in drawn[first : first + per_epoch]])
        assert len(seen.unique()) == len(seen)
    again = list(digits.batches(images, labels, batch, steps, seed))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(drawn, again, strict=True))


def test_epochs_come_in_different_orders():
    labels = torch.arange(100)
    first, second = digits.batches(labels, labels, 100, 2, seed=0)
    assert not torch.equal(first[1], second[1]) and not torch.equal(first[1], labels)


@pytest.mark.parametrize("hidden", [(), (32,), (20, 15)], ids=str)
def test_weights_are_drawn_to_scale_and_leave_torchs_random_state_alone(hidden):
    state = torch.get_rng_state()
    model = digits.classifier(hidden, seed=4, dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), state)
    sizes = (64, *hidden, 10)
    assert sum(p.numel() for p in model.parameters()) == sum((a + 1) * b for a, b in zip(sizes, sizes[1:]))
    rng = np.random.default_rng(4)
    linears = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    for index, linear in enumerate(linears):
        inputs = linear.in_features
        scale = np.sqrt((1 if index == len(hidden) else 2) / inputs)
        assert np.array_equal(linear.weight.detach().numpy(), rng.normal(0, scale, tuple(linear.weight.shape)))
        assert (linear.bias == 0).all()
    assert len(model) == 2 * len(hidden) + 1


def test_the_model_computes_what_it_says():
    model = digits.classifier((7,), dtype=torch.float64)
    with torch.no_grad():
        model[0].bias.copy_(torch.linspace(-1, 1, 7, dtype=torch.float64))
        model[2].bias.copy_(torch.linspace(0, 1, 10, dtype=torch.float64))
    a, b = model[0].weight.detach().numpy(), model[2].weight.detach().numpy()
    expected = np.maximum(PIXELS[:5] / 16 @ a.T + np.linspace(-1, 1, 7), 0) @ b.T + np.linspace(0, 1, 10)
    np.testing.assert_allclose(model(torch.from_numpy(PIXELS[:5] / 16)).detach().numpy(), expected, rtol=1e-12)


def test_loss_and_accuracy_are_scikit_learns():
    """Weights fitted by scikit-learn, put into ours."""
    data = digits.load(torch.float64)
    fitted = LogisticRegression(max_iter=200).fit(data.images.numpy(), data.labels.numpy())
    model = digits.classifier(dtype=torch.float64)
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(fitted.coef_))
        model[0].bias.copy_(torch.from_numpy(fitted.intercept_))
    images, labels = data.test_images, data.test_labels
    expected = log_loss(labels.numpy(), fitted.predict_proba(images.numpy()))
    assert digits.loss(model, (images, labels)).item() == pytest.approx(expected, rel=1e-9)
    share = digits.accuracy(model, images, labels)
    assert share == pytest.approx(fitted.score(images.numpy(), labels.numpy()), abs=1e-12) and share > 0.9


def test_the_gradient_agrees_with_finite_differences():
    data = digits.load(torch.float64)
    batch = next(digits.batches(data.images, data.labels, 16, 1, seed=0))
    model = digits.classifier((6,), dtype=torch.float64)
    digits.loss(model, batch).backward()
    rng = np.random.default_rng(0)
    for param in model.parameters():
        flat, grad = param.detach().view(-1), param.grad.view(-1)
        for index in rng.integers(0, len(flat), 5):
            kept, ends = flat[index].item(), []
            for shift in (1e-5, -1e-5):
                flat[index] = kept + shift
                ends.append(digits.loss(model, batch).item())
            flat[index] = kept
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(grad[index].item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: digits.load(torch.float16), "Invalid dtype: torch.float16"),
    (lambda: digits.load(held_out=1.0), "Invalid held_out: 1.0"),
    (lambda: digits.load(held_out=-0.1), "Invalid held_out: -0.1"),
    (lambda: digits.batches(torch.zeros(3, 64), torch.zeros(3), 4, 1, 0), "Invalid batch: 4. .* all of the 3"),
    (lambda: digits.batches(torch.zeros(3, 64), torch.zeros(3), 0, 1, 0), "Invalid batch: 0"),
    (lambda: digits.batches(torch.zeros(3, 64), torch.zeros(3), 1, 0, 0), "Invalid steps: 0"),
    (lambda: digits.classifier((5, 0)), r"Invalid hidden: \(5, 0\)"),
])
def test_arguments_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_scikit_learn_a_sentence_says_what_to_install():
    script = (
        "import sys; sys.modules['sklearn'] = sys.modules['sklearn.datasets'] = None\n"
        "from course_lib.problems import digits\n"
        "digits.classifier((4,))\n"
        "try:\n    digits.load()\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("The digits come with scikit-learn, which is not installed here. Install it with: ")
    assert done.stderr == ""
