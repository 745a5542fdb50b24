"""Evidence for the questions of ``bank/adaptive_rates.yaml`` that show curves, ask for code or have a fault in it."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, both_versions, normal, path_of, updates_of
from course_lib.questions.runs import Curves, Panel

ADAGRAD, RMSPROP = torch.optim.Adagrad, torch.optim.RMSprop


# Curves


def lost_sums() -> None:
    """After 3,000 steps AdaGrad steps 0.018 lr; with its sums lost, lr again, 55 times as far.

    RMSProp would take ten times lr, Adam lr; 100 steps after the restart AdaGrad is still at 0.1 lr. In the curves the
    gradient of the step that jumps is an ordinary one; that of the next is larger.
    """
    steps = -updates_of(ADAGRAD, np.ones(3000))
    assert round(steps[-1], 3) == 0.018 and round(steps[0] / steps[-1]) == 55
    first = [-updates_of(rule, [1.0])[0] for rule in (ADAGRAD, RMSPROP, ADAM)]
    assert np.allclose(first, [1, 10, 1], rtol=1e-6) and np.isclose(steps[99], 0.1)
    _, gradient, update = (np.array(panel.series["run"]) for panel in lost_sums_curves().panels)
    assert update[50] > 30 * update[:50].max() and gradient[50] < gradient[:50].max() < 0.9 * gradient[51]


def lost_sums_curves() -> Curves:
    """A noisy bowl of 100 weights under AdaGrad (lr 1), with sums of zero again at step 3,000: 50 steps before, 350 after.

    The loss is the excess over the minimum, the update in units of lr.
    """
    x, total, noise = np.full(100, 0.5), np.zeros(100), normal(3350, 100, seed=1)
    losses, gradients, updates = [], [], []
    for t, draw in enumerate(noise):
        total = np.zeros(100) if t == 3000 else total
        gradient = x + draw
        total = total + gradient**2
        update = gradient / (np.sqrt(total) + 1e-10)
        losses.append(float(np.mean(x**2) / 2))
        gradients.append(float(np.sqrt(np.mean(gradient**2))))
        updates.append(float(np.sqrt(np.mean(update**2))))
        x = x - update
    shown = slice(2950, 3350)
    return Curves(
        "step",
        [float(step) for step in range(2951, 3351)],
        [
            Panel("training loss above its minimum", {"run": losses[shown]}, log=True),
            Panel("RMS of the gradient", {"run": gradients[shown]}, log=True),
            Panel("RMS of the update (units of lr)", {"run": updates[shown]}, log=True),
        ],
    )


def _bowl(rule: str, lr: float, moves_at: int) -> np.ndarray:
    """RMS distance (moves_at + 300,) of 100 copies to a noisy bowl that moves by 10 after ``moves_at`` steps."""
    noise = normal(moves_at + 300, 100, seed=1)
    x, v, distances = np.zeros(100), np.zeros(100), []
    for t, grads in enumerate(noise):
        minimum = 10.0 if t >= moves_at else 0.0
        gradient = x - minimum + grads
        v = v + gradient**2 if rule == "adagrad" else 0.99 * v + 0.01 * gradient**2
        x = x - lr * gradient / (np.sqrt(v) + 1e-8)
        distances.append(np.sqrt(np.mean((x - minimum) ** 2)))
    return np.array(distances)


_RUNS = {"A": ("adagrad", 3.0), "B": ("rmsprop", 0.1)}


def moved_bowl() -> None:
    """A noisy bowl moves by 10 after 100, 1,000 or 10,000 steps.

    AdaGrad (lr 3) needs 15, 30 and 83 steps to come back within 1, RMSProp (lr 0.1) 62, 64 and 65. After 10,000 steps
    AdaGrad has settled at 0.13, RMSProp at 0.23.
    """
    steps, settled = {}, {}
    for name, run in _RUNS.items():
        distances = {age: _bowl(*run, age) for age in (100, 1000, 10_000)}
        steps[name] = [int(np.argmax(path[age:] < 1)) + 1 for age, path in distances.items()]
        settled[name] = distances[10_000][9900:10_000].mean()
    assert steps == {"A": [15, 30, 83], "B": [62, 64, 65]}
    assert abs(settled["A"] - 0.13) < 0.01 and abs(settled["B"] - 0.23) < 0.01


def moved_bowl_curves() -> Curves:
    """Both optimizers' distances, 50 steps before the move and 150 after, one panel for each age at which it comes."""
    panels = []
    for age in (100, 1000, 10_000):
        shown = slice(age - 50, age + 150)
        series = {name: _bowl(*run, age)[shown].tolist() for name, run in _RUNS.items()}
        panels.append(Panel(f"distance, jump after {age:,} steps", series, log=True))
    return Curves("steps since the minimum jumped", [float(step) for step in range(-49, 151)], panels)


# Code


def root_in_place() -> None:
    """The bank's code writes the root into the average: with steady gradients of 1 it steps lr, as the fix does.

    Gradients of 1e-3 then step 0.001 lr, gradients of 100 step 9.5 lr: SGD below 1, no settling above.
    """
    last = {}
    for name, rmsprop_step in both_versions("rmsprop-root-in-place", "rmsprop_step").items():
        for gradient in (1e-3, 1.0, 100.0):
            weight, state = torch.zeros(1, dtype=torch.float64), {}
            for _ in range(3000):
                before = weight.item()
                rmsprop_step(weight, torch.full((1,), gradient, dtype=torch.float64), state, 1.0)
            last[name, gradient] = round(before - weight.item(), 4)
    assert [last["fixed", gradient] for gradient in (1e-3, 1.0, 100.0)] == [1.0, 1.0, 1.0]
    assert [last["code", gradient] for gradient in (1e-3, 1.0)] == [0.001, 1.0] and round(last["code", 100.0], 1) == 9.5


def rmsprop_slips() -> None:
    """The rule as it is spoken is torch.optim.RMSprop, and what three slips make of its first step.

    With a gradient of 1e-5 and alpha 0.99 it should be 9.9 lr: 0.1 with eps inside the root, 1,000 without a root, and
    1,000 if the division comes before v has the gradient.
    """
    grads, weight, v, path = normal(200, 4), np.ones(4), np.zeros(4), [np.ones(4)]
    for grad in grads:
        grad = grad + 0.1 * weight
        v = 0.9 * v + 0.1 * grad**2
        weight = weight - 0.01 * grad / (np.sqrt(v) + 1e-2)
        path.append(weight)
    torchs = path_of(RMSPROP, np.ones(4), grads, lr=0.01, alpha=0.9, eps=1e-2, weight_decay=0.1)
    np.testing.assert_allclose(torchs, path, rtol=0, atol=1e-12)
    g, eps = 1e-5, 1e-8
    v = 0.01 * g**2
    assert round(-updates_of(RMSPROP, [g])[0], 2) == 9.9 == round(g / (np.sqrt(v) + eps), 2)
    assert round(g / np.sqrt(v + eps), 3) == 0.1 and round(g / eps) == 1000
    assert np.isclose(g / (v + eps), 1000, rtol=1e-3)


def one_write_per_row() -> None:
    """Row 2 occurs three times, then once, with gradients of 1. AdaGrad steps lr, then 0.316 lr.

    Indexed assignment writes a repeated row once: lr, then 0.707. Adding every occurrence at once: 1.73 lr; one after
    the other: 2.28. If the row had come three times again, assignment would have been right by accident.
    """
    batches = ([2, 0, 2, 2], [2, 1])

    def steps(update) -> list[float]:
        table, sums, seen = np.zeros(3), np.zeros(3), []
        for rows in batches:
            before = table[2]
            update(table, sums, np.array(rows), np.ones(len(rows)))
            seen.append(round(before - table[2], 3))
        return seen

    def right(table, sums, rows, grads):
        unique, place = np.unique(rows, return_inverse=True)
        total = np.zeros(len(unique))
        np.add.at(total, place, grads)
        sums[unique] += total**2
        table[unique] -= total / np.sqrt(sums[unique])

    def assigned(table, sums, rows, grads):
        sums[rows] += grads**2
        table[rows] -= grads / np.sqrt(sums[rows])

    def added(table, sums, rows, grads):
        np.add.at(sums, rows, grads**2)
        np.add.at(table, rows, -grads / np.sqrt(sums[rows]))

    def in_turn(table, sums, rows, grads):
        for row, grad in zip(rows, grads, strict=True):
            sums[row] += grad**2
            table[row] -= grad / np.sqrt(sums[row])

    assert steps(right) == [1.0, 0.316] and steps(assigned) == [1.0, 0.707]
    assert steps(added)[0] == 1.732 and steps(in_turn)[0] == 2.284
    embedding = torch.nn.Embedding.from_pretrained(torch.zeros(3, 1, dtype=torch.float64), freeze=False, sparse=True)
    stepper, seen = ADAGRAD(embedding.parameters(), lr=1.0), [0.0]
    for rows in batches:
        stepper.zero_grad()
        embedding(torch.tensor(rows)).sum().backward()
        with torch.sparse.check_sparse_tensor_invariants(True):
            stepper.step()
        seen.append(-embedding.weight[2].item())
    assert np.diff(seen).round(3).tolist() == [1.0, 0.316]
    batches = ([2, 0, 2, 2], [2, 2, 2, 1])
    assert steps(right) == steps(assigned) == [1.0, 0.707]
