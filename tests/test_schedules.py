"""Each schedule against torch's where there is one, else against its formula worked out by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from course_lib import schedules
from course_lib.schedules import (
    constant,
    cosine,
    cosine_restarts,
    inverse_sqrt,
    linear_to_zero,
    linear_warmup,
    step_decay,
    warmup_stable_decay,
)

LR = 0.125  # a power of two: multiplying by it rounds nothing


def rates(make, steps: int) -> list[float]:
    """The multipliers that a scheduler of torch uses for updates 0, 1, ..., steps - 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR passes on an argument that torch deprecates
        scheduler = make(optimizer)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"] / LR)
            optimizer.step()
            scheduler.step()
    return found


def values(schedule, steps: int) -> list[float]:
    return [schedule(t) for t in range(steps)]


def warmed(warmup, make):
    """Torch's linear warmup of ``warmup`` updates, then what ``make`` builds."""
    return lambda optimizer: theirs.SequentialLR(
        optimizer,
        [theirs.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1), make(optimizer)],
        milestones=[warmup],
    )


def torch_cosine(length, floor=0.0):
    return lambda optimizer: theirs.CosineAnnealingLR(optimizer, length, eta_min=floor * LR)


def torch_restarts(period, factor=1, floor=0.0):
    return lambda optimizer: theirs.CosineAnnealingWarmRestarts(optimizer, period, factor, eta_min=floor * LR)


PAIRS = {
    "warmup alone": (linear_warmup(7), lambda o: theirs.LinearLR(o, 1 / 7, total_iters=6), 20),
    "cosine": (cosine(30), torch_cosine(30), 31),
    "cosine with a floor": (cosine(30, floor=0.1), torch_cosine(30, 0.1), 31),
    "cosine after warmup": (cosine(30, warmup=5, floor=0.1), warmed(5, torch_cosine(25, 0.1)), 31),
    "restarts": (cosine_restarts(8), torch_restarts(8), 40),
    "restarts that grow": (cosine_restarts(4, 3, floor=0.2), torch_restarts(4, 3, 0.2), 60),
    "restarts after warmup": (cosine_restarts(4, 2, warmup=6), warmed(6, torch_restarts(4, 2)), 60),
    "linear": (linear_to_zero(25), lambda o: theirs.PolynomialLR(o, total_iters=25), 30),
    "linear after warmup": (
        linear_to_zero(25, warmup=4),
        warmed(4, lambda o: theirs.PolynomialLR(o, total_iters=21)),
        30,
    ),
    "steps": (step_decay(6, 0.5), lambda o: theirs.StepLR(o, 6, 0.5), 40),
    "steps after warmup": (linear_warmup(3, step_decay(6, 0.3)), warmed(3, lambda o: theirs.StepLR(o, 6, 0.3)), 40),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_torch(name):
    mine, make, steps = PAIRS[name]
    # Torch multiplies its way from rate to rate, so that its rounding grows with the steps.
    np.testing.assert_allclose(values(mine, steps), rates(make, steps), rtol=1e-12, atol=1e-15)


def test_a_lambda_lr_takes_them():
    schedule = warmup_stable_decay(20, 4, 6)
    assert rates(lambda o: theirs.LambdaLR(o, schedule), 25) == values(schedule, 25)


def test_after_the_end_the_rate_stays_at_the_floor():
    # Torch's cosine climbs again when it is stepped on.
    assert rates(torch_cosine(10), 21)[20] == pytest.approx(1.0)
    for t in (10, 11, 15, 20, 1000):
        assert cosine(10, warmup=2, floor=0.1)(t) == pytest.approx(0.1)
        assert linear_to_zero(10)(t) == 0.0
        for shape in ("linear", "sqrt", "cosine"):
            assert warmup_stable_decay(10, 2, 3, floor=0.25, shape=shape)(t) == 0.25


# Where torch has none: by hand.


def test_warmup_stable_decay_by_hand():
    warm, stable = [0.25, 0.5, 0.75, 1.0], [1.0] * 4
    ends = {
        "linear": [1.0, 0.75, 0.5, 0.25],
        "sqrt": [1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)],
        "cosine": [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2],
    }
    for shape, end in ends.items():
        for floor in (0.0, 0.2):
            expected = [*warm, *stable, *(floor + (1 - floor) * left for left in end), floor]
            got = values(warmup_stable_decay(12, 4, 4, floor, shape), 13)
            np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_only_the_decay_knows_how_long_the_run_is():
    short, long = warmup_stable_decay(100, 10, 20), warmup_stable_decay(1000, 10, 20)
    assert values(short, 80) == values(long, 80)
    assert short(81) < long(81) == 1.0


def test_inverse_sqrt_is_the_papers_formula():
    """Vaswani et al., eq. 3: min(step^-0.5, step * warmup^-1.5) for step = 1, 2, ..., divided by its highest."""
    warmup = 16
    formula = [min(step**-0.5, step * warmup**-1.5) for step in range(1, 100)]
    np.testing.assert_allclose(values(inverse_sqrt(warmup), 99), np.array(formula) / max(formula), rtol=1e-14)
    assert inverse_sqrt(16)(63) == 0.5


def test_the_first_update_moves_and_hugging_faces_does_not():
    hugging_face = [t / 4 for t in range(4)]
    assert values(linear_warmup(4), 4) == [0.25, 0.5, 0.75, 1.0]
    assert hugging_face[0] == 0.0
    for schedule in (
        cosine(9, 4),
        linear_to_zero(9, 4),
        inverse_sqrt(4),
        warmup_stable_decay(9, 4, 2),
        cosine_restarts(3, warmup=4),
    ):
        assert values(schedule, 4) == [0.25, 0.5, 0.75, 1.0]


def test_warm_restarts_jump_back_to_the_full_rate():
    schedule = cosine_restarts(3, factor=2, floor=0.1)
    starts = [t for t in range(1, 45) if schedule(t) > schedule(t - 1)]
    assert starts == [3, 9, 21] and all(schedule(t) == 1.0 for t in starts)


@given(
    warmup=st.integers(0, 50),
    rest=st.integers(1, 200),
    floor=st.floats(0, 1),
    factor=st.integers(1, 4),
    share=st.floats(0, 1),
    shape=st.sampled_from(["linear", "sqrt", "cosine"]),
)
def test_every_rate_is_between_the_floor_and_one(warmup, rest, floor, factor, share, shape):
    total, decay = warmup + rest, max(1, round(share * rest))
    made = {
        "cosine": cosine(total, warmup, floor),
        "restarts": cosine_restarts(rest, factor, warmup, floor),
        "decay": warmup_stable_decay(total, warmup, decay, floor, shape),
        "linear": linear_to_zero(total, warmup),
        "root": inverse_sqrt(max(warmup, 1)),
        "one": linear_warmup(warmup),
    }
    for name, schedule in made.items():
        path = values(schedule, total + 3)
        assert all(0 < value <= 1 for value in path[:warmup]), name
        lowest = 0.0 if name in ("linear", "root") else floor
        assert all(lowest - 1e-12 <= value <= 1 for value in path[warmup:]), name
        if warmup:
            assert path[warmup - 1] == 1.0 and path[:warmup] == sorted(path[:warmup])
        if name != "restarts":
            falling = path[warmup:]
            assert falling == sorted(falling, reverse=True), name


# Bad input.


@pytest.mark.parametrize("bad", [-1, 1.5, "3", None, True, math.nan])
@pytest.mark.parametrize(
    "make",
    [
        linear_warmup,
        inverse_sqrt,
        linear_to_zero,
        cosine,
        cosine_restarts,
        lambda n: cosine(10, warmup=n),
        lambda n: warmup_stable_decay(10, n, 2),
        lambda n: warmup_stable_decay(10, 2, n),
        lambda n: step_decay(n, 0.5),
        lambda n: cosine_restarts(3, n),
        lambda n: warmup_stable_decay(n, 0, 1),
    ],
)
def test_counts_are_whole_numbers(make, bad):
    with pytest.raises((TypeError, ValueError), match=r"Invalid \w+: .* Allowed: a whole number of updates"):
        make(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: inverse_sqrt(0),
        lambda: linear_to_zero(0),
        lambda: cosine_restarts(0),
        lambda: step_decay(0, 0.5),
        lambda: cosine_restarts(3, 0),
        lambda: warmup_stable_decay(10, 2, 0),
    ],
)
def test_zero_is_refused_where_it_means_nothing(make):
    with pytest.raises(ValueError, match="Allowed: a whole number of updates >= 1"):
        make()


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, math.inf, "0.1", True, None])
def test_shares_are_between_zero_and_one(bad):
    for make in (
        lambda: cosine(10, floor=bad),
        lambda: cosine_restarts(10, floor=bad),
        lambda: warmup_stable_decay(10, 1, 2, floor=bad),
        lambda: step_decay(3, bad),
    ):
        with pytest.raises((TypeError, ValueError), match="Allowed: a number from 0 to 1"):
            make()


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="10 of 10 updates leave none to decay in"):
        cosine(10, warmup=10)
    with pytest.raises(ValueError, match="leave none"):
        linear_to_zero(10, warmup=12)
    with pytest.raises(ValueError, match=r"10 updates do not hold 5 of warmup and 6 of decay. Allowed: total >= 11"):
        warmup_stable_decay(10, 5, 6)
    with pytest.raises(ValueError, match=r"Invalid shape: 'sqr'. Allowed: 'linear', 'sqrt', 'cosine'"):
        warmup_stable_decay(10, 2, 3, shape="sqr")
    with pytest.raises(ValueError, match="0 < gamma"):
        step_decay(3, 0.0)


@pytest.mark.parametrize(
    "make",
    [
        constant,
        lambda: linear_warmup(3),
        lambda: cosine(9, 2),
        lambda: inverse_sqrt(3),
        lambda: step_decay(3, 0.5),
        lambda: cosine_restarts(3),
    ],
)
def test_steps_are_whole_numbers_from_zero(make):
    schedule = make()
    assert schedule(np.int64(2)) == schedule(2)
    for bad in (0.5, "1", None):
        with pytest.raises(TypeError, match="Invalid step"):
            schedule(bad)
    with pytest.raises(ValueError, match="0 is the first update"):
        schedule(-1)


def test_they_need_no_torch():
    assert not hasattr(schedules, "torch")
