"""Bytes of a step, derived and counted; the lists of shapes."""

from math import prod

import pytest
import torch

from course_lib.kernels import shapes, traffic
from course_lib.optim import REGISTRY, AdamW


@pytest.mark.parametrize(("key", "arguments", "total"), [
    ("adamw", {}, 28),  # p, g, m, v read; p, m, v written
    ("adamw", dict(param=2, grad=2, state=8, master=4), 28),  # mixed precision: g 2, master 4 + 4, m and v 8 + 8, p 2
    ("adamw", dict(param=2), 14),
    ("adamw", dict(param=2, state=8), 2 + 2 + 8 + 2 + 8),
    ("sgd", {}, 12),
    ("momentum", {}, 20),
    ("lion", {}, 20),
    ("amsgrad", {}, 36),
    ("adamw8bit", {}, 4 + 4 + 4 + 2 * 2 * (1 + 4 / 256)),
])
def test_the_least_is_each_byte_once(key, arguments, total):
    found = traffic.least_bytes(key, **arguments)
    assert found.total == total == found.read + found.written


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="Invalid optimizer: 'adamv'. Allowed: sgd, momentum"):
        traffic.least_bytes("adamv")


def stepped(make, tensors=3, size=64):
    params = [torch.nn.Parameter(torch.linspace(1, 2, size)) for _ in range(tensors)]
    for param in params:
        param.grad = torch.linspace(-1, 1, size)
    optimizer = make(params)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(("make", "calls", "bytes_each"), [
    # Decay 2 x 4 bytes; m by lerp 3, v by mul 2 and addcmul 3 (g is one tensor), sqrt 2, div 2, add 2, addcdiv 4.
    (lambda p: torch.optim.AdamW(p, foreach=False), 8 * 3, 4 * (2 + 3 + 2 + 3 + 2 + 2 + 2 + 4)),
    (lambda p: torch.optim.AdamW(p, foreach=True), 8, 80),
    (lambda p: torch.optim.AdamW(p, fused=True), 1, 28),
    # decay 2; m mul 2, add 3; v mul 2, addcmul 3; m_hat 2, v_hat 2; lr * m_hat 2, sqrt 2, + eps 2, / 3; sub 3
    (AdamW, 12 * 3, 4 * (2 + 2 + 3 + 2 + 3 + 2 + 2 + 2 + 2 + 2 + 3 + 3)),
])
def test_what_a_step_of_adamw_moves(make, calls, bytes_each):
    found = traffic.count(stepped(make).step)
    assert (found.calls, found.moved) == (calls, bytes_each * 3 * 64)


@pytest.mark.parametrize("key", ["sgd", "momentum", "adamw", "amsgrad"])
def test_a_fused_step_of_torch_moves_the_least(key):
    found = traffic.count(stepped(lambda p: REGISTRY[key].production(p, lr=0.1, fused=True)).step)
    least = traffic.least_bytes(key)
    if key == "amsgrad":  # whose maximum does not change while v falls, so that nothing seems to be written
        assert found.read == least.read * 3 * 64
    else:
        assert (found.read, found.written) == (least.read * 3 * 64, least.written * 3 * 64)


def test_views_and_nan_are_counted_rightly():
    x = torch.full((8,), torch.nan)
    found = traffic.count(lambda: x.view(2, 4).t().mul(2))
    assert (found.calls, found.read, found.written) == (1, 32, 32)
    assert traffic.count(lambda: x.mul_(1.0)).written == 0, "NaN times one is the same NaN"


def test_shapes_of_real_models_have_their_published_sizes():
    assert (len(shapes.shapes("gpt2")), shapes.elements(shapes.shapes("gpt2"))) == (148, 124_439_808)
    # q and o 4096 x 4096, k and v 1024 x 4096, three of 14336 x 4096, two norms.
    assert shapes.elements(shapes.shapes("llama3-layer")) == 2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 8192
    assert [len(shapes.shapes(name)) for name in ("large", "forty", "tiny")] == [1, 40, 1000]
    assert shapes.shapes("1000x256") == shapes.shapes(" Tiny ") == [(256,)] * 1000
    assert all(prod(shape) > 0 for name in shapes.SHAPES for shape in shapes.shapes(name))


@pytest.mark.parametrize("name", ["huge", "0x5", "5x0", "x", "999999x1", "100000x1000000", "-1x3"])
def test_other_lists_are_refused(name):
    with pytest.raises(ValueError, match="Invalid shapes: .* Allowed: large, forty, gpt2, llama3-layer, tiny, or TENS"):
        shapes.shapes(name)


@pytest.mark.parametrize(("name", "near"), [("larg", "large"), ("gpt-2", "gpt2"), ("llama3", "llama3-layer")])
def test_a_misspelt_list_has_a_nearest_one(name, near):
    with pytest.raises(ValueError, match=f"^Invalid shapes: '{name}'. Did you mean {near}[?]$"):
        shapes.shapes(name)


@pytest.mark.parametrize("name", ["9" * 5000 + "x1", "1x" + "9" * 5000])
def test_numbers_of_thousands_of_digits_are_refused_in_short(name):
    with pytest.raises(ValueError, match=r"^Invalid shapes: '\d*x?\d*\.\.\.\d*x?\d*'. Allowed: large") as caught:
        shapes.shapes(name)
    assert len(str(caught.value)) < 300
