"""Evidence for ``bank/numerics.yaml``."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from course_lib.precision import round_to
from course_lib.questions.evidence._feed import ADAM, ADAMW, both_versions


def where_the_sum_stops(start: float = 1.0, update: float = 0.005) -> float:
    """What 1,000 equal updates make of a bf16 weight that is rounded to nearest."""
    weight = torch.tensor(start, dtype=torch.bfloat16)
    for _ in range(1000):
        weight = weight + update
    return float(weight)


def least_decay_seen(bits: int = 8, lr: float = 3e-4) -> float:
    """The least weight_decay for which a step of torch's AdamW changes a weight of ``bits`` significant bits.

    Found among all weights of one octave, and confirmed with the optimizer itself for bf16 (8) and fp16 (11).
    """
    octave = np.arange(2 ** (bits - 1), 2**bits, dtype=np.float64)  # gap 1 above, and 1/2 below the first
    shares = np.where(octave == octave[0], 0.25, 0.5) / octave  # half a gap downwards
    least = float(shares.min() / lr)
    dtype = {8: torch.bfloat16, 11: torch.float16}[bits]
    for factor, moves in ((0.99, False), (1.01, True)):
        start = torch.from_numpy(octave / octave[0]).to(dtype)
        weight = torch.nn.Parameter(start.clone())
        weight.grad = torch.zeros_like(weight)
        ADAMW([weight], lr=lr, weight_decay=least * factor, eps=1e-3).step()  # the default eps is 0 in fp16
        assert bool((weight != start).any()) == moves
    return least


def v_stays_zero(beta2: float = 0.999, exponent: int = -24) -> float:
    """The size of a steady gradient below which v is zero for ever, if 2**exponent is the smallest positive number."""
    limit = float(np.sqrt(2.0 ** (exponent - 1) / (1 - beta2)))
    dtype = {-24: torch.float16, -133: torch.bfloat16, -149: torch.float32}[exponent]
    for factor, alive in ((0.99, False), (1.01, True)):
        term = torch.tensor((1 - beta2) * (factor * limit) ** 2, dtype=torch.float64)
        assert bool(term.to(dtype) > 0) == alive
        if dtype == torch.float16:
            weight = torch.nn.Parameter(torch.zeros(1, dtype=dtype))
            stepper = ADAM([weight], lr=1e-3, betas=(0.9, beta2))
            for _ in range(20):
                weight.grad = torch.full_like(weight, factor * limit)
                stepper.step()
            assert bool(stepper.state[weight]["exp_avg_sq"] > 0) == alive == bool(weight.isfinite())
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float16))
    weight.grad = torch.full_like(weight, 0.005)
    ADAM([weight], lr=1e-3, eps=1.2e-7).step()
    assert abs(weight.item() / -42 - 1) < 0.01
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.full_like(weight, 1e-25)
    ADAM([weight], lr=1.0, eps=1e-30).step()
    assert abs(weight.item() / -1e5 - 1) < 1e-3
    return limit


def order_changes_the_sum() -> None:
    """Float addition commutes and is not associative.

    (a + b) + c is another number than a + (b + c); four ranks added in a row, in a tree and backwards give three
    results in float32; and 1e8 swallows or keeps a 1, depending on who comes first.
    """
    assert 0.1 + 0.2 == 0.2 + 0.1 and (0.1 + 0.2) + 0.3 == 0.6000000000000001 != 0.1 + (0.2 + 0.3) == 0.6
    a, b, c, d = (np.float32(value) for value in (1e8, 3.0, -1e8, 3.0))
    in_a_row, in_a_tree, backwards = ((a + b) + c) + d, (a + c) + (b + d), a + (b + (c + d))
    assert (in_a_row, in_a_tree, backwards) == (3, 6, 0) and a + b == b + a
    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    totals = set()
    for seed in range(20):
        total = np.float32(0)
        for value in np.random.default_rng(seed).permutation(values):
            total = total + value
        totals.add(float(total))
    exact = float(values.astype(np.float64).sum())
    assert len(totals) > 10 and max(abs(total - exact) for total in totals) < 1e-2


def variance_in_one_pass() -> None:
    """Of two float32 numbers far from zero the bug's variance is negative, zero or twelve times too large.

    Centred first it is exact, and near zero the two agree. Two numbers, so that no order of summation matters.
    """
    versions = both_versions("numerics-bug-one-pass-variance", "standardise")
    for first, apart, found in ((5473.625, 1.25, -2.0), (9433.0, 1.0, 0.0), (9798.125, 1.625, 8.0)):
        pair = torch.tensor([first, first + apart])
        assert float(pair.square().mean() - pair.mean().square()) == found
        assert float((pair - pair.mean()).square().mean()) == apart**2 / 4
        wrong, right = versions["code"](pair), versions["fixed"](pair)
        assert torch.equal(right, torch.tensor([-1.0, 1.0]))
        assert bool(wrong.isnan().any()) if found < 0 else float(wrong.abs().max()) in (float("inf"), wrong[1]) != 1
    near = torch.tensor([-0.5, 1.5])
    assert torch.allclose(versions["code"](near), versions["fixed"](near))
    digits = [2.0**-24 * ratio**2 for ratio in (100, 4096)]
    assert digits[0] < 1e-3 and digits[1] == 1


def beta_in_bf16() -> None:
    """0.999 is 1 in bf16, so v keeps nothing of a gradient; with a float beta2 it does.

    The first step divides by eps: m is 0.01 for a gradient of 0.1, corrected 0.1. 0.95 comes out merely inexact.
    """
    assert torch.tensor(0.999).bfloat16() == 1 and torch.tensor(0.996).bfloat16() < 1
    assert round(float(torch.tensor(0.95).bfloat16()), 4) == 0.9492
    versions = both_versions("numerics-bug-beta-in-bf16", "second_moment")
    grad, v = torch.full((4,), 0.1, dtype=torch.bfloat16), torch.zeros(4, dtype=torch.bfloat16)
    wrong, sound = (versions[name](v, grad, 0.999) for name in ("code", "fixed"))
    assert (wrong == 0).all() and torch.allclose(sound.float(), torch.full((4,), 1e-5), rtol=0.01)
    m_hat = grad.float()  # the first step: 0.1 g over 1 - 0.9
    assert 9e6 < float((m_hat / (wrong.float().sqrt() + 1e-8)).max()) < 1.1e7
    assert (
        torch.tensor(0.9981).bfloat16() == 1 > torch.tensor(0.998).bfloat16() and torch.tensor(0.9999).bfloat16() == 1
    )
    for _ in range(300):
        wrong, sound = versions["code"](wrong, grad, 0.999), versions["fixed"](sound, grad, 0.999)
    assert (wrong == 0).all() and bool((sound > 1e-3).all())


def kahan_by_alias() -> None:
    """With ``before`` the weight itself nothing ever arrives, and all of it is owed again: the weight runs away.

    100 updates of 2^-7 on a bf16 weight of 1 should end at 1.78; with a copy they do.
    """
    ends = {}
    for name, add in both_versions("numerics-bug-kahan-alias", "add_compensated").items():
        weight, owed = torch.tensor([1.0]).bfloat16(), torch.zeros(1).bfloat16()
        for _ in range(100):
            add(weight, owed, torch.tensor([2.0**-7]).bfloat16())
        ends[name] = float(weight)
    assert abs(ends["fixed"] - 1.78125) < 0.01 and ends["code"] > 30


def _pairwise(values: np.ndarray) -> np.float32:
    """Sum of float32 values by halves."""
    while len(values) > 1:
        values = values[0::2] + values[1::2]
    return values[0]


def sums_in_a_row_and_by_halves() -> None:
    """n float32 numbers: relative error at most (n - 1) u in a row and log2(n) u by halves, u = 2^-24.

    A row of 2^20 times 0.1 comes near: 0.96% too large against 2e-7 by halves.
    """
    unit, count = 2.0**-24, 2**20
    values = np.full(count, 0.1, dtype=np.float32)
    exact = float(values[0]) * count
    row = float(np.cumsum(values, dtype=np.float32)[-1])
    halves = float(_pairwise(values))
    assert 0.009 < row / exact - 1 < 0.01 and abs(row - exact) < (count - 1) * unit * exact
    assert abs(halves - exact) <= 20 * unit * exact and halves == exact
    noise = np.abs(np.random.default_rng(0).standard_normal(2**16)).astype(np.float32)
    exact = float(noise.astype(np.float64).sum())
    errors = [abs(float(total) - exact) / exact for total in (np.cumsum(noise, dtype=np.float32)[-1], _pairwise(noise))]
    assert errors[1] <= 16 * unit < errors[0] < 2**16 * unit


def four_sums_and_what_they_keep() -> None:
    """4,096 times 0.1: in fp16 throughout it stops at 256; fp16 terms in float32 are off by the term's own rounding."""
    value, count = 0.1, 4096
    narrow, mixed, wide = np.float16(0), np.float32(0), np.float32(0)
    for _ in range(count):
        narrow = narrow + np.float16(value)
        mixed = mixed + np.float16(value)
        wide = wide + np.float32(value)
    assert narrow.dtype == np.float16 and mixed.dtype == np.float32
    assert float(narrow) == 256 and np.spacing(np.float16(256)) / 2 == 0.125 > value
    assert abs(float(mixed) / (count * float(np.float16(value))) - 1) < 1e-4
    assert abs(float(np.float16(value)) / value - 1) < 2**-11 and abs(float(wide) / (value * count) - 1) < 1e-4
    assert abs(float(mixed) / 409.6 - 1) < 3e-4


def _fma(a: float, b: float, c: float) -> np.float32:
    """a * b + c, rounded once to float32; exact before that."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near = np.float32(float(exact))  # float64 holds products of two float32 exactly; the sum is checked below
    assert Fraction(float(exact)) == exact
    return near


def fused_multiply_add_breaks_symmetry() -> None:
    """x * x - x * x is zero with two roundings and the rounding error of x * x with one: of either sign.

    So v - m * m of a constant gradient, never negative as products go, becomes negative under contraction.
    """
    x = (1 + np.random.default_rng(0).random(200)).astype(np.float32)
    plain = x * x - x * x
    fused = np.array([-_fma(value, value, -(value * value)) for value in x])
    assert (plain == 0).all() and (fused < 0).any() and (fused > 0).any()
    assert torch.tensor(fused[fused < 0]).sqrt().isnan().all()
    worst = max(abs(float(error)) / float(value) ** 2 for error, value in zip(fused, x, strict=True))
    assert worst <= 2.0**-24
    exact = x.astype(np.float64) ** 2 + 1 / 3
    third = np.float32(1 / 3)
    one = np.array([abs(float(np.float32(float(v) ** 2 + float(third))) - e) for v, e in zip(x, exact, strict=True)])
    two = np.abs((x * x + third).astype(np.float64) - exact)
    assert one.mean() < two.mean()


def close_numbers_subtract_exactly() -> None:
    """Numbers within a factor of two subtract without rounding, for every pair of an 8-bit significand.

    And so Kahan's ``s - w`` is exact for a bf16 weight and any update below half of it.
    """
    marks = torch.arange(128, 257, dtype=torch.float64)  # one octave of bf16 and its end
    pairs = torch.cat([marks[marks <= 256], 2 * marks])
    a, b = pairs[:, None], pairs[None, :]
    near = (a <= 2 * b) & (b <= 2 * a)
    exact = a - b
    assert ((exact.bfloat16().double() == exact) | ~near).all() and not (exact.bfloat16().double() == exact).all()
    rng = np.random.default_rng(0)
    weight = torch.tensor(rng.standard_normal(4096)).bfloat16()
    update = (weight.double() * torch.tensor(rng.uniform(-0.5, 0.5, 4096))).bfloat16()
    summed = weight + update
    assert torch.equal((summed - weight).double(), summed.double() - weight.double())
    wanted = update.double() - (summed.double() - weight.double())
    assert torch.equal((update - (summed - weight)).double(), wanted)


def _trained(steps: int = 100, dtype: torch.dtype = torch.float32, **way: bool) -> Tensor:
    """1,024 weights after AdamW on fixed noise, as float64."""
    grads = np.random.default_rng(0).standard_normal((steps, 1024))
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 1024, dtype=torch.float64).to(dtype))
    stepper = ADAMW([weight], lr=1e-3, **way)
    for grad in grads:
        weight.grad = torch.tensor(grad).to(dtype)
        stepper.step()
    return weight.detach().double()


def three_ways_and_the_judge() -> None:
    """AdamW as a loop, foreach and fused: what they differ by is far less than the error of each against float64."""
    exact = _trained(dtype=torch.float64, foreach=False)
    ways = [_trained(**way) for way in ({"foreach": False}, {"foreach": True}, {"fused": True})]
    errors = [float((way - exact).abs().max()) for way in ways]
    apart = max(float((a - b).abs().max()) for a in ways for b in ways)
    assert apart < 0.2 * min(errors) and max(errors) < 1.1 * min(errors) < 1e-5
    rounded = torch.tensor(round_to(exact.numpy(), "bf16"))
    assert float((rounded - exact).abs().max()) > 100 * max(errors)
