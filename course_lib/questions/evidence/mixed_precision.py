"""Evidence for ``bank/mixed_precision.yaml``: formats, updates and master weights, autocast, fp8."""

from __future__ import annotations

import math

import numpy as np
import torch

from course_lib import precision
from course_lib.questions.evidence._feed import ADAMW, normal

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def _stored(value: float, dtype: torch.dtype) -> float:
    """``value`` as a tensor of that dtype holds it."""
    return torch.tensor(value, dtype=FP32).to(dtype).item()


def range_against_digits() -> None:
    """fp16 has no 70,000 and no 1e-8 but tells 1.001 from 1; bf16 has both and does not."""
    assert math.isinf(_stored(70_000.0, FP16)) and math.isfinite(_stored(70_000.0, BF16))
    assert _stored(1e-8, FP16) == 0 and abs(_stored(1e-8, BF16) / 1e-8 - 1) < 2**-8
    assert _stored(1.001, FP16) > 1 == _stored(1.001, BF16)
    assert torch.finfo(FP16).max == 65504 and torch.finfo(FP16).smallest_normal == 2**-14
    assert torch.finfo(BF16).smallest_normal == torch.finfo(FP32).smallest_normal
    x = torch.linspace(1, 2, 100_001)
    errors = {dtype: ((x.to(dtype).float() - x) / x).abs().max().item() for dtype in (FP16, BF16)}
    assert 0.9 * 2**-11 < errors[FP16] <= 2**-11 and 0.9 * 2**-8 < errors[BF16] <= 2**-8


def masters_add_up() -> None:
    """3 - 10,000 x 0.0003: bf16 and fp16 weights stay at 3, the bf16 copy of a float32 master arrives at 0."""
    ends = {}
    for dtype in (BF16, FP16, FP32):
        weight = torch.tensor(3.0, dtype=dtype)
        for _ in range(10_000):
            weight -= 3e-4
        ends[dtype] = weight.to(BF16).item()
    assert ends[BF16] == ends[FP16] == 3.0 and abs(ends[FP32]) < 1e-3


def size_of_standstill(step: float = 3e-4, dtype: torch.dtype = BF16) -> float:
    """Size from which on no weight of this dtype moves by ``step``, in either direction."""
    pattern = torch.arange(1, 0x7F80 if dtype is BF16 else 0x7C00, dtype=torch.int16)
    weights = pattern.view(dtype)  # all positive finite numbers, ascending
    moves = ((weights.float() - step).to(dtype) != weights) | ((weights.float() + step).to(dtype) != weights)
    return weights[moves].max().item()


def standstill_at_the_end() -> None:
    """At lr 3e-5 bf16 weights stand still from 2^-7 on; fp16 weights at 3e-4 from 1 on."""
    assert size_of_standstill(3e-5) == 2**-7 and size_of_standstill(3e-4, FP16) == 1.0
    assert size_of_standstill(3e-4) == 2**-3


def fp16_step_needs_more() -> None:
    """A gradient of 1e-8 is zero in fp16 and not in bf16; an infinite one makes a float32 master NaN."""
    for dtype, survives in ((FP16, False), (BF16, True)):
        weight = torch.ones(1, dtype=dtype, requires_grad=True)
        ((weight * 1e-4).float() * 1e-4).sum().backward()
        assert bool(weight.grad != 0) is survives
    master = torch.nn.Parameter(torch.ones(1))
    master.grad = torch.tensor([70_000.0]).half().float()
    ADAMW([master], lr=1e-3).step()
    assert master.isnan().all()


def largest_logit_gradient(sequences: int = 8, length: int = 4096) -> float:
    """Largest gradient that a logit can have when the loss is the mean over sequences * length positions."""
    positions = sequences * length
    logits = torch.tensor([[-100.0, 100.0]]).repeat(positions, 1).requires_grad_()
    torch.nn.functional.cross_entropy(logits, torch.zeros(positions, dtype=torch.long)).backward()
    largest = logits.grad.abs().max().item()
    assert largest < torch.finfo(FP16).smallest_normal and _stored(0.0009 * largest, FP16) == 0
    if positions == 8 * 4096:
        assert _stored(65536 * largest, FP16) == 2.0
    return largest


def power_of_two_is_exact() -> None:
    """Gradients are linear in the loss's scale: 2^16 comes out again bit for bit, 1,000 leaves rounding errors."""
    inputs, targets = (torch.from_numpy(normal(64, 16, seed)).float() for seed in (0, 1))
    weight = torch.from_numpy(normal(16, 16, 2)).float().requires_grad_()

    def gradient(scale: float) -> torch.Tensor:
        loss = (torch.tanh(inputs[:, :, None] * weight).sum(1) - targets).square().mean()
        return torch.autograd.grad(scale * loss, weight)[0] / scale

    assert torch.equal(gradient(2.0**16), gradient(1.0))
    thousand = gradient(1000.0)
    assert not torch.equal(thousand, gradient(1.0)) and torch.allclose(thousand, gradient(1.0), rtol=1e-5)


def bf16_gains_nothing_from_scaling() -> None:
    """In bf16 a scale of 2^16 changes no bit of a gradient of 1e-10; in fp16 it decides whether there is one."""
    grads = torch.from_numpy(1e-10 * normal(1000, 1)[:, 0]).float()
    assert torch.equal((grads * 2**16).to(BF16).float() / 2**16, grads.to(BF16).float())
    assert (grads.to(FP16) == 0).all() and ((grads * 2**16).to(FP16) != 0).float().mean() > 0.9


def eight_times_finer() -> None:
    """Inside its range fp16 rounds eight times as finely as bf16; on numbers over 16 decades it loses half of them."""
    x = torch.from_numpy(normal(100_000, 1)[:, 0]).float()
    fine, coarse = ((x.to(dtype).float() - x).square().mean().sqrt().item() for dtype in (FP16, BF16))
    assert 7.9 < coarse / fine < 8.1
    wide = torch.logspace(-15, 1, 1000)
    assert 0.45 < (wide.to(FP16) == 0).float().mean() < 0.5 and (wide.to(BF16) != 0).all()


def share_summed_in_bf16(micro_batches: int = 1024) -> float:
    """Percent of the sum of equal gradients that arrives in a bf16 buffer; fp16 stops at 2,048 of them."""
    buffer, half = torch.zeros(1, dtype=BF16), torch.zeros(1, dtype=FP16)
    for _ in range(micro_batches):
        buffer += 1.0
        half += 1.0
    assert buffer.item() == min(256, micro_batches) and half.item() == min(2048, micro_batches)
    return 100 * buffer.item() / micro_batches


def longest_memory(bits: int = 7) -> float:
    """Longest memory 1/(1 - beta2) with which v shrinks from every value when its gradients are zero.

    v is rounded to nearest, ties to even, in a format with so many stored mantissa bits; bf16 has 7.
    """
    v = 1 + np.arange(2**bits) / 2**bits  # one octave: 1 to 2
    steps = np.arange(2, 2 ** (bits + 2))
    mantissa, exponent = np.frexp(v - v / steps[:, None])
    rounded = np.ldexp(np.rint(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)
    shrinks = (rounded < v).all(axis=1)
    assert (shrinks[:-1] >= shrinks[1:]).all()
    if bits == 7:
        low = torch.from_numpy(v).to(BF16)
        assert bool((low * (1 - 1 / 258) < low).all()) and not bool((low * (1 - 1 / 260) < low).all())
        assert torch.tensor(0.999).to(BF16) == 1 and not bool((low * 0.999 < low).any())
    return float(steps[shrinks].max())


def _by_noise(x: float) -> np.ndarray:
    """The bf16 numbers that each of the 65,536 noises makes of a float32 ``x``, in NumPy."""
    bits = np.array([x], dtype=np.float32).view(np.uint32) + np.arange(2**16, dtype=np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


def rounding_right_on_average() -> None:
    """Over all noises the mean of stochastic rounding is x exactly, and the variance is p (1 - p) gap^2."""
    for x in np.float32([1.001, -3.14159, 2e-5, 0.3]):
        results = _by_noise(x)
        below, above = results.min(), results.max()
        p = (np.float64(x) - below) / (above - below)
        assert results.mean() == np.float64(x)
        assert np.isclose(results.var(), p * (1 - p) * (above - below) ** 2, rtol=1e-9)


def rounding_with_bits() -> None:
    """Add the noise, cut 16 bits: as enumerated, with either sign; bf16 numbers, infinities and NaN stay."""
    noise = torch.arange(2**16, dtype=torch.int32)
    for x in (1.001, -3.14159, 0.5):
        mine = precision.stochastic_round(torch.full((2**16,), x), noise=noise)
        np.testing.assert_array_equal(mine.double().numpy(), _by_noise(x))
    edges = torch.tensor([math.inf, -math.inf, math.nan, 0.0])
    kept = precision.stochastic_round(edges, noise=torch.full((4,), 2**16 - 1, dtype=torch.int32)).float()
    assert torch.equal(kept[[0, 1, 3]], edges[[0, 1, 3]]) and kept[2].isnan()
    assert torch.tensor([0x7F800000 + 0xFFFF], dtype=torch.int32).view(FP32).isnan()  # inf with noise, not cut


def _adam_on_a_bowl(rounds: str, steps: int = 600, size: int = 64) -> float:
    """Last loss of Adam, lr from 1e-2 to 0, on (w - target)^2 / 2 with w kept in bf16; ``rounds`` says how."""
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.standard_normal(size))
    weight, master, rest = (torch.zeros(size, dtype=dtype) for dtype in (BF16, FP32, BF16))
    m, v = torch.zeros(size), torch.zeros(size)
    for t in range(1, steps + 1):
        error = weight.double() - target
        m, v = 0.9 * m + 0.1 * error, 0.95 * v + 0.05 * error**2
        rate = 0.5e-2 * (1 + math.cos(math.pi * t / steps))
        update = (rate * m / (1 - 0.9**t) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)).float()
        if rounds == "master":
            weight = master.sub_(update).to(BF16)
        elif rounds == "stochastic":
            noise = torch.from_numpy(rng.integers(0, 2**16, size, dtype=np.int32))
            weight = ((weight.float() - update).view(torch.int32) + noise >> 16 << 16).view(FP32).to(BF16)
        elif rounds == "kahan":
            wanted = rest - update.to(BF16)
            moved = weight + wanted
            weight, rest = moved, wanted - (moved - weight)
        else:
            weight = (weight.float() - update).to(BF16)
    return error.square().mean().item() / 2


def three_ways_without_loss() -> None:
    """To nearest, the loss stops more than ten times above that of stochastic rounding, Kahan or a master."""
    losses = {rounds: _adam_on_a_bowl(rounds) for rounds in ("nearest", "stochastic", "kahan", "master")}
    assert losses["nearest"] > 10 * max(losses["stochastic"], losses["kahan"], losses["master"])
    assert max(losses["stochastic"], losses["kahan"]) < 3 * losses["master"]


def kahan_remembers() -> None:
    """3 - 10,000 x 0.0003 in bf16: at 0 with a bf16 compensation, at 3 without."""
    weight, rest, plain = torch.tensor(3.0, dtype=BF16), torch.tensor(0.0, dtype=BF16), torch.tensor(3.0, dtype=BF16)
    for _ in range(10_000):
        plain -= 3e-4
        wanted = rest - 3e-4
        moved = weight + wanted
        weight, rest = moved, wanted - (moved - weight)
    assert plain == 3 and abs(weight.item()) < 0.02


def which_moment_bears_bf16() -> None:
    """An average in bf16 stands still while (1 - beta) |new - old| is under half a gap.

    m at 0.9 follows news of 4%; v at 0.999 ignores squares of 4 times its value, and at 0.95 follows 8%.
    """

    def follows(beta: float, news: float) -> bool:
        old = torch.arange(0x3F80, 0x4000, dtype=torch.int16).view(BF16).float()  # 1 to 2
        return bool(((beta * old + (1 - beta) * news * old).to(BF16).float() != old).all())

    assert follows(0.9, 1.04) and not follows(0.9, 1.01)
    assert not follows(0.999, 4.0) and follows(0.999, 5.0)
    assert follows(0.95, 1.08) and not follows(0.95, 1.02)
    assert torch.tensor(1e-4, dtype=FP16).square() == 0


def autocast_by_operation() -> None:
    """Products go to bf16, losses to float32, the rest takes what it gets; the weight and its gradient stay float32.

    A model that was made bf16 first has bf16 gradients and moments, and a weight of 3 that steps of 1e-3 do not move.
    """
    weight, low = torch.nn.Parameter(torch.ones(4, 4)), torch.ones(4, 4, dtype=BF16)
    functional = torch.nn.functional
    with torch.autocast("cpu", dtype=BF16):
        product = torch.ones(2, 4) @ weight
        taken = (functional.gelu(low), low.softmax(-1), functional.layer_norm(low, (4,)))
        loss = functional.cross_entropy(low, torch.arange(4))
        assert (low + weight).dtype == FP32
    assert product.dtype == BF16 and loss.dtype == FP32 and {result.dtype for result in taken} == {BF16}
    product.float().sum().backward()
    assert weight.dtype == weight.grad.dtype == FP32
    halved = torch.nn.Parameter(torch.full((4, 4), 3.0, dtype=BF16))
    with torch.autocast("cpu", dtype=BF16):
        (torch.ones(2, 4) @ halved).float().sum().backward()
    stepper = ADAMW([halved], lr=1e-3, weight_decay=0.0)
    stepper.step()
    assert halved.grad.dtype == stepper.state[halved]["exp_avg"].dtype == BF16 and (halved == 3).all()


def speed_is_the_share_of_products() -> None:
    """Products 16 times as fast, by the share of time that they took: 60% give 2.3 times, 90% give 6.4, 0 give 1."""
    speed = {share: 1 / (1 - share + share / 16) for share in (0.0, 0.6, 0.9)}
    assert round(speed[0.6], 1) == 2.3 and round(speed[0.9], 1) == 6.4 and speed[0.0] == 1
    assert round(1 / (1 - 0.6 + 0.6 / 2), 1) == 1.4 and 312 / 19.5 == 16 and 312 / 156 == 2


def fp8_formats_and_blocks() -> None:
    """e4m3: 448, three mantissa bits; e5m2: 57,344, two. An outlier spoils its block of 128 and no other."""
    e4m3, e5m2 = torch.finfo(torch.float8_e4m3fn), torch.finfo(torch.float8_e5m2)
    assert (e4m3.max, e4m3.eps, e5m2.max, e5m2.eps) == (448, 2**-3, 57_344, 2**-2)
    values = normal(128, 128)
    values[0, 0] = 1e5
    errors = {}
    for name, axis in (("tensor", None), ("block", 1)):
        scale = 448 / abs(values).max(axis=axis, keepdims=True)
        stored = torch.from_numpy((values * scale).astype(np.float32)).to(torch.float8_e4m3fn).double().numpy() / scale
        errors[name] = np.sqrt(np.mean((stored - values)[1:] ** 2))
    assert errors["tensor"] > 4 * errors["block"] and errors["block"] < 0.03


def zeros_beside_an_outlier(outlier: float = 1e5) -> float:
    """Percent of standard normal values that e4m3 turns to zero if one scale maps ``outlier`` to 448."""
    edge = 2**-10 * outlier / 448  # half of the smallest number, in units of the values
    share = math.erf(edge / math.sqrt(2))
    values = torch.from_numpy(normal(100_000, 1)[:, 0] * 448 / outlier).float()
    assert abs((values.to(torch.float8_e4m3fn).float() == 0).float().mean().item() - share) < 0.01
    return 100 * share


def tf32_is_not_stored() -> None:
    """A tf32 operand keeps 10 of 23 mantissa bits; the tensor in memory is float32 before and after."""
    x = normal(1000, 1)[:, 0].astype(np.float32)
    read = precision.round_to(x, "tf32")
    assert 0.9 * 2**-12 < np.abs(read / x - 1).max() <= 2**-11
    bits = x.view(np.uint32)
    np.testing.assert_array_equal(read, (bits + 0xFFF + (bits >> 13 & 1) >> 13 << 13).view(np.float32))
    assert precision.FORMATS["tf32"].dtype is None
    assert torch.get_float32_matmul_precision() == "highest" and torch.backends.cudnn.allow_tf32
