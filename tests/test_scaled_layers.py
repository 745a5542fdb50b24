"""course_lib.problems.scaled_layers: what scales change and what they leave, and the rates that follow."""

import math

import pytest
import torch

from course_lib.optim.lamb import LAMB
from course_lib.optim.lars import LARS
from course_lib.problems.scaled_layers import ScaledLayers, relative_sizes

SIZES = (6, 8, 8, 3)


def make(scales, normalise=True, seed=0):
    return ScaledLayers(scales, SIZES, normalise=normalise, seed=seed, dtype=torch.float64)


def inputs():
    return torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(10, 6).sin()


def test_scales_multiply_the_weights_and_leave_the_function_of_a_normalised_network():
    plain, scaled = make((1, 1, 1)), make((0.125, 32.0, 1))
    for one, other, factor in zip(plain.layers, scaled.layers, (0.125, 32.0, 1)):
        torch.testing.assert_close(other, factor * one, rtol=1e-15, atol=0)
    assert [tuple(layer.shape) for layer in plain.layers] == [(8, 6), (8, 8), (3, 8)]
    torch.testing.assert_close(plain(inputs()), scaled(inputs()), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(plain(inputs()), make((1, 1, 1), seed=1)(inputs()))


def test_layers_are_orthogonal_at_the_start():
    for weight in make((1, 1, 1)).layers:
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        torch.testing.assert_close(gram.detach(), torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-12)


def test_without_normalisation_it_is_the_product_of_the_matrices():
    net = make((1, 2, 3), normalise=False)
    first, second, third = net.layers
    torch.testing.assert_close(net(inputs()), inputs() @ (third @ second @ first).T, rtol=1e-12, atol=1e-12)


def test_in_a_normalised_network_the_ratio_grows_with_the_square_of_the_scale():
    ratios = []
    for scales in ((1, 1, 1), (0.25, 16.0, 1)):
        net = make(scales)
        net(inputs()).square().sum().backward()
        ratios.append(relative_sizes(net))
    assert ratios[1] == pytest.approx([ratios[0][0] * 0.0625, ratios[0][1] * 256, ratios[0][2]], rel=1e-9)


def test_in_a_linear_network_every_layer_has_the_same_inner_product_with_its_gradient():
    net = make((0.1, 1, 10), normalise=False)
    (net(inputs()) - 1).square().mean().backward()
    inner = [(weight * weight.grad).sum().item() for weight in net.layers]
    assert inner == pytest.approx([inner[0]] * 3, rel=1e-9) and abs(inner[0]) > 1e-3


@pytest.mark.parametrize("rule", [
    lambda p: LARS(p, lr=0.1, trust_coefficient=0.5, eps=0.0), lambda p: LAMB(p, lr=0.05, eps=1e-30),
], ids=["lars", "lamb"])
def test_the_trust_ratio_sees_no_scales(rule):
    """The paths of two networks that are one function at the start stay one function."""
    paths = []
    for scales in ((1, 1, 1), (1 / 64, 64, 1)):
        net = make(scales)
        optimizer = rule(net.parameters())
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (net(inputs()) - inputs()[:, :3]).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        paths.append(losses)
    assert paths[0] == pytest.approx(paths[1], rel=1e-6) and paths[0][-1] < 0.7 * paths[0][0]


@pytest.mark.parametrize(("name", "scales", "sizes"), [
    ("scales", (), (3,)), ("scales", (1.0, 0.0), (3, 3, 3)), ("scales", (math.nan,), (3, 3)),
    ("sizes", (1.0,), (3,)), ("sizes", (1.0,), (3, 3, 3)), ("sizes", (1.0,), (0, 3)),
])
def test_arguments_out_of_range_are_named(name, scales, sizes):
    with pytest.raises(ValueError, match=rf"^Invalid {name}: .*Allowed: "):
        ScaledLayers(scales, sizes, normalise=False)
