"""Scikit-learn's images of handwritten digits: real data that needs no download.

1,797 images of 8 by 8 pixels, written by 13 people: the test part of the UCI set *Optical Recognition of Handwritten
Digits* (Alpaydin & Kaynak 1998), which comes inside the package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXELS = 64
CLASSES = 10


@dataclass(frozen=True, eq=False)
class Digits:
    """Images and labels, to train on and held out.

    Attributes:
        images: floating point (n, 64), pixels from 0, paper, to 1, ink, row by row.
        labels: int64 (n,), 0 to 9.
        test_images, test_labels: the same for the images that are held out; (0, 64) and (0,) if none are.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load(dtype: torch.dtype = torch.float32, held_out: float = 0.2, seed: int = 0) -> Digits:
    """Load the digits, split so that every class has the same share held out.

    Of each class, ``round(held_out * its size)`` images are drawn with ``numpy.random.default_rng(seed)``. Both parts
    keep the order of the data set. Pixels are sixteenths, which both dtypes hold exactly.

    Args:
        dtype: of the images, torch.float32 or torch.float64.
        held_out: share of each class that is held out, 0 <= held_out < 1.
        seed: of the split.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: an argument is out of its range.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"Invalid dtype: {dtype!r}. Allowed: torch.float32 or torch.float64.")
    if not 0 <= held_out < 1:
        raise ValueError(f"Invalid held_out: {held_out!r}. Allowed: a share of each class, 0 <= held_out < 1.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed here. "
            'Install it with: pip install "scikit-learn>=1.6"'
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    out = np.zeros(len(labels), dtype=bool)
    for label in range(CLASSES):
        members = np.flatnonzero(labels == label)
        out[rng.permutation(members)[: round(held_out * len(members))]] = True
    images, targets = torch.as_tensor(pixels / 16, dtype=dtype), torch.as_tensor(labels, dtype=torch.int64)
    return Digits(images[~out], targets[~out], images[out], targets[out])


def batches(images: Tensor, labels: Tensor, batch: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw ``steps`` mini-batches: each epoch goes through the images once, in a new order.

    The orders are drawn with ``numpy.random.default_rng(seed)``: the same arguments give the same batches on every
    machine. What is left over at the end of an epoch, fewer than ``batch`` images, is dropped.

    Args:
        images, labels: (n, ...) and (n,).
        batch: images per batch, 1 <= batch <= n.
        steps: how many batches, >= 1.
        seed: of the orders.

    Yields:
        ``(images, labels)`` of shapes (batch, ...) and (batch,).

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 1 <= batch <= len(images):
        raise ValueError(f"Invalid batch: {batch!r}. Allowed: from 1 to all of the {len(images)} images.")
    if steps < 1:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: a whole number >= 1.")
    return _batches(images, labels, batch, steps, np.random.default_rng(seed))


def _batches(images: Tensor, labels: Tensor, batch: int, steps: int, rng: np.random.Generator) -> Iterator:
    per_epoch = len(images) // batch
    for step in range(steps):
        at = step % per_epoch
        if at == 0:
            order = torch.from_numpy(rng.permutation(len(images)))
        chosen = order[at * batch : (at + 1) * batch]
        yield images[chosen], labels[chosen]


def classifier(hidden: Sequence[int] = (), seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A model of the digits: images (batch, 64) to logits (batch, 10).

    Without hidden layers it is softmax regression, 650 parameters; with them a ReLU network. Weights are drawn with
    ``numpy.random.default_rng(seed)``: N(0, 2 / inputs) before a ReLU (He et al. 2015, arXiv 1502.01852), N(0, 1 /
    inputs) for the logits. Biases start at 0.

    Args:
        hidden: units of each hidden layer, each >= 1.
        seed: of the weights.
        dtype: of the parameters.

    Raises:
        ValueError: a layer has no unit.
    """
    for units in hidden:
        if units < 1:
            raise ValueError(f"Invalid hidden: {tuple(hidden)!r}. Allowed: whole numbers >= 1, or () for no layer.")
    rng = np.random.default_rng(seed)
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise((PIXELS, *hidden, CLASSES))):
        gain = 2.0 if index < len(hidden) else 1.0
        # Made without drawing: torch's random state stays as it was.
        linear = torch.nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(rng.normal(0.0, (gain / inputs) ** 0.5, (outputs, inputs))))
            linear.bias.zero_()
        layers += [linear, nn.ReLU()] if index < len(hidden) else [linear]
    return nn.Sequential(*layers)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy in nats: a ``loss_fn`` for :func:`course_lib.train.train`.

    Args:
        model: maps images (batch, 64) to logits (batch, 10).
        batch: ``(images, labels)``, as :func:`batches` yields.
    """
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images, 0 to 1, whose largest logit is that of the label; evaluated where the model is."""
    device = next(model.parameters()).device
    return (model(images.to(device)).argmax(dim=1) == labels.to(device)).double().mean().item()
