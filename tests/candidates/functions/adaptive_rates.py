"""Answers to the exercises of notebook 03."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import torch

# -------------------------------------------------------------------------------------------------- sparse_adagrad


def _unique(table, sums, rows, grads, lr, eps):
    table, sums = table.copy(), sums.copy()
    which, place = np.unique(rows, return_inverse=True)
    total = np.zeros((len(which), table.shape[1]))
    np.add.at(total, place, grads)
    sums[which] += total**2
    table[which] -= lr * total / (np.sqrt(sums[which]) + eps)
    return table, sums


def _dictionary(table, sums, rows, grads, lr, eps):
    total = defaultdict(float)
    for row, g in zip(rows.tolist(), grads, strict=True):
        total[row] = total[row] + g
    table, sums = np.array(table), np.array(sums)
    for row, g in total.items():
        sums[row] = sums[row] + g * g
        table[row] = table[row] - lr * g / (sums[row] ** 0.5 + eps)
    return [table, sums]


def _dense(table, sums, rows, grads, lr, eps):
    """A gradient for every row, zero where a row does not occur: such rows do not move either."""
    total = (np.arange(len(table))[:, None] == rows).astype(float) @ grads
    sums = sums + total**2
    return table - lr * total / (np.sqrt(sums) + eps), sums


def _dense_guarded(table, sums, rows, grads, lr, eps):
    """All rows at once, and a step only where there is a gradient."""
    total = np.zeros(table.shape)
    np.add.at(total, rows, grads)
    sums = sums + total**2
    step = np.divide(lr * total, np.sqrt(sums) + eps, out=np.zeros(table.shape), where=total != 0)
    return table - step, sums


def _embedding(table, sums, rows, grads, lr, eps):
    """What autograd makes of a sparse embedding: the gradients of one row are added up, and the others have none."""
    which, place = torch.unique(torch.tensor(rows), return_inverse=True)
    g = torch.zeros(len(which), table.shape[1], dtype=torch.float64).index_add_(0, place, torch.tensor(grads))
    table, sums = torch.tensor(table), torch.tensor(sums)
    sums[which] += g.square()
    table[which] -= lr * g / sums[which].sqrt().add(eps)
    return table, sums


def _square_at_each(table, sums, rows, grads, lr, eps):
    total, new, table = _added(rows, grads, len(table)), sums.copy(), table.copy()
    np.add.at(new, rows, total[rows] ** 2)
    table[rows] -= lr * total[rows] / (np.sqrt(new[rows]) + eps)
    return table, new


def _step_at_each(table, sums, rows, grads, lr, eps):
    total = _added(rows, grads, len(table))
    new, table = sums + total**2, table.copy()
    np.subtract.at(table, rows, lr * total[rows] / (np.sqrt(new[rows]) + eps))
    return table, new


def _from(total, squares=None, gather=None, move=None):
    """``total`` and ``squares`` from (rows, grads, size); ``gather`` and ``move`` as a learner would write them."""
    squares = squares or (lambda rows, grads, size: total(rows, grads, size) ** 2)
    gather = gather or (lambda sums, q: sums + q)
    move = move or (lambda g, new, old, lr, eps: lr * g / (np.sqrt(new) + eps))

    def sparse_adagrad(table, sums, rows, grads, lr, eps):
        g, q = total(rows, grads, len(table)), squares(rows, grads, len(table))
        new = gather(sums, q)
        with np.errstate(all="ignore"):
            return table - np.nan_to_num(move(g, new, sums, lr, eps)), new

    return sparse_adagrad


def _added(rows, grads, size):
    total = np.zeros((size, grads.shape[1]))
    np.add.at(total, rows, grads)
    return total


def _assigned(rows, grads, size):
    total = np.zeros((size, grads.shape[1]))
    total[rows] += grads
    return total


def _assigned_first(rows, grads, size):
    which, index = np.unique(rows, return_index=True)
    total = np.zeros((size, grads.shape[1]))
    total[which] = grads[index]
    return total


def _averaged(rows, grads, size):
    return _added(rows, grads, size) / np.maximum(np.bincount(rows, minlength=size), 1)[:, None]


def _fancy(table, sums, rows, grads, lr, eps):
    table, sums = table.copy(), sums.copy()
    sums[rows] += grads**2
    table[rows] -= lr * grads / (np.sqrt(sums[rows]) + eps)
    return table, sums


def _sums_added_step_fancy(table, sums, rows, grads, lr, eps):
    table, sums = table.copy(), sums.copy()
    np.add.at(sums, rows, grads**2)
    table[rows] -= lr * grads / (np.sqrt(sums[rows]) + eps)
    return table, sums


def _each_squared(table, sums, rows, grads, lr, eps):
    table, sums = table.copy(), sums.copy()
    np.add.at(sums, rows, grads**2)
    np.subtract.at(table, rows, lr * grads / (np.sqrt(sums[rows]) + eps))
    return table, sums


def _right_sums_fancy_step(table, sums, rows, grads, lr, eps):
    new, table = sums + _added(rows, grads, len(table)) ** 2, table.copy()
    table[rows] -= lr * grads / (np.sqrt(new[rows]) + eps)
    return table, new


def _sequential(table, sums, rows, grads, lr, eps):
    table, sums = table.copy(), sums.copy()
    for i, row in enumerate(rows):
        sums[row] += grads[i] ** 2
        table[row] -= lr * grads[i] / (np.sqrt(sums[row]) + eps)
    return table, sums


def _in_place(table, sums, rows, grads, lr, eps):
    table[:], sums[:] = _unique(table, sums, rows, grads, lr, eps)
    return table, sums


def _row_wise(table, sums, rows, grads, lr, eps):
    g = _added(rows, grads, len(table))
    new = sums + (g * g).mean(axis=1, keepdims=True)
    return table - lr * g / (np.sqrt(new) + eps), new


def _cleared_elsewhere(table, sums, rows, grads, lr, eps):
    return _unique(table, sums, rows, grads, lr, eps)[0], _added(rows, grads, len(table)) ** 2


def _replaced(table, sums, rows, grads, lr, eps):
    table, sums, g = table.copy(), sums.copy(), _added(rows, grads, len(table))
    hit = np.unique(rows)
    sums[hit] = g[hit] ** 2
    table[hit] -= lr * g[hit] / (np.sqrt(sums[hit]) + eps)
    return table, sums


def _picked(pick):
    def sparse_adagrad(table, sums, rows, grads, lr, eps):
        return pick(table, sums, rows, *_unique(table, sums, rows, grads, lr, eps))

    return sparse_adagrad


_SPARSE = {
    "unique": (_unique, ""),
    "dictionary": (_dictionary, ""),
    "dense, guarded": (_dense_guarded, ""),
    "tensors": (_embedding, ""),
    "lists": (lambda **arguments: [part.tolist() for part in _unique(**arguments)], ""),
    "float32 in the end": (lambda **arguments: [part.astype(np.float32) for part in _unique(**arguments)], ""),
    "dense": (_dense, "untouched-rows"),
    "square at each occurrence": (_square_at_each, "square-repeated"),
    "step at each occurrence": (_step_at_each, "step-repeated"),
    "exchanged": (_picked(lambda table, sums, rows, new, more: (more, new)), "order"),
    "each squared": (_each_squared, "squared-separately"),
    "one after the other": (_sequential, "one-by-one"),
    "fancy indexing": (_fancy, "last-wins"),
    "fancy total": (_from(_assigned), "last-wins"),
    "right sums, fancy step": (_right_sums_fancy_step, "last-step-wins"),
    "separate sums, fancy step": (_sums_added_step_fancy, "last-step-wins-separately"),
    "fancy squares": (_from(_added, lambda rows, grads, size: _assigned(rows, grads**2, size)), "last-square-wins"),
    "first of each": (_from(_assigned_first), "first-wins"),
    "mean": (_from(_averaged), "mean-of-occurrences"),
    "eps in the root": (
        _from(_added, move=lambda g, new, old, lr, eps: lr * g / (new + eps) ** 0.5),
        "eps-inside-root",
    ),
    "no eps": (_from(_added, move=lambda g, new, old, lr, eps: lr * g / new**0.5), "eps-missing"),
    "old sums": (_from(_added, move=lambda g, new, old, lr, eps: lr * g / (np.sqrt(old) + eps)), "old-sums"),
    "no root": (_from(_added, move=lambda g, new, old, lr, eps: lr * g / (new + eps)), "root-missing"),
    "no lr": (_from(_added, move=lambda g, new, old, lr, eps: g / (np.sqrt(new) + eps)), "lr-missing"),
    "uphill": (_from(_added, move=lambda g, new, old, lr, eps: -lr * g / (np.sqrt(new) + eps)), "ascends"),
    "plain step": (_from(_added, move=lambda g, new, old, lr, eps: lr * g), "not-adapted"),
    "no square": (_from(_added, _added), "square-missing"),
    "replaced": (_replaced, "sums-replaced"),
    "cleared": (_from(_added, gather=lambda sums, q: q), "sums-cleared"),
    "cleared in the result": (_cleared_elsewhere, "sums-cleared"),
    "decays": (_from(_added, gather=lambda sums, q: 0.9 * sums + 0.1 * q), "dense-decay"),
    "row-wise": (_row_wise, "one-sum-a-row"),
    "old sums returned": (_picked(lambda table, sums, rows, new, more: (new, sums)), "sums-not-updated"),
    "old table returned": (_picked(lambda table, sums, rows, new, more: (table, more)), "table-not-updated"),
    "occurring rows": (
        _picked(lambda table, sums, rows, new, more: (new[sorted(set(rows))], more[sorted(set(rows))])),
        "rows-only",
    ),
    "rows as they come": (_picked(lambda table, sums, rows, new, more: (new[rows], more[rows])), "occurrences-only"),
    "change": (_picked(lambda table, sums, rows, new, more: (new - table, more)), "changes"),
    "in place": (_in_place, "input-written"),
    "table alone": (_picked(lambda table, sums, rows, new, more: new), "wrong-result"),
    "nothing": (_picked(lambda *_: None), "wrong-result"),
    "flat": (_picked(lambda table, sums, rows, new, more: (new.ravel(), more.ravel())), "wrong-shape"),
    "NaN": (_picked(lambda table, sums, rows, new, more: (new * math.nan, more)), "not-finite"),
    "far off": (_picked(lambda table, sums, rows, new, more: (new + 1, more + 1)), "wrong-numbers"),
    "duplicates refused": (lambda table, sums, rows, grads, lr, eps: np.linalg.inv(grads), "raises"),
}


# ------------------------------------------------------------------------------------------------ centered_divisor


def _averages(gradients, alpha, eps):
    m = v = np.zeros(gradients.shape[1])
    rows = []
    for g in gradients:
        m = alpha * m + (1 - alpha) * g
        v = alpha * v + (1 - alpha) * g**2
        rows.append(np.sqrt(np.maximum(v - m**2, 0.0)) + eps)
    return np.array(rows)


def _like_torch(gradients, alpha, eps):
    square_avg = torch.zeros(gradients.shape[1], dtype=torch.float64)
    grad_avg = torch.zeros_like(square_avg)
    rows = []
    for grad in torch.from_numpy(gradients):
        square_avg.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        grad_avg.lerp_(grad, 1 - alpha)
        rows.append(square_avg.addcmul(grad_avg, grad_avg, value=-1).clamp_(min=0).sqrt_().add_(eps))
    return torch.stack(rows)


def _number_by_number(gradients, alpha, eps):
    columns = []
    for column in gradients.T.tolist():
        m, v, out = 0.0, 0.0, []
        for g in column:
            m, v = m - (1 - alpha) * (m - g), v - (1 - alpha) * (v - g * g)
            out.append(eps + math.sqrt(max((math.sqrt(v) - m) * (math.sqrt(v) + m), 0.0)))
        columns.append(out)
    return np.array(columns).T


def _fused(gradients, alpha, eps):
    """Both averages rounded once an update, as a fused multiplication and addition rounds them."""
    wide, m = np.longdouble, np.zeros(gradients.shape[1])
    v, rows = m.copy(), []
    for g in gradients:
        m = (wide(alpha) * m + (1 - alpha) * g).astype(np.float64)
        v = (wide(alpha) * v + (1 - alpha) * wide(1) * g * g).astype(np.float64)
        rows.append(np.sqrt(np.maximum((v - wide(1) * m * m).astype(np.float64), 0)) + eps)
    return np.stack(rows)


def _no_nan_and_eps(gradients, alpha, eps):
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(_bare(gradients, alpha)) + eps


def _eps_and_no_nan(gradients, alpha, eps):
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(_bare(gradients, alpha) + eps)


def _bare(gradients, alpha):
    out, m, v = [], 0.0, 0.0
    for g in gradients:
        m, v = alpha * m + (1 - alpha) * g, alpha * v + (1 - alpha) * g**2
        out.append(np.sqrt(v - m**2))
    return np.array(out)


def _in_float32(gradients, alpha, eps):
    m = v = np.zeros(gradients.shape[1], dtype=np.float32)
    rows = []
    for g in gradients.astype(np.float32):
        m, v = alpha * m + (1 - alpha) * g, alpha * v + (1 - alpha) * g**2
        rows.append(np.sqrt(np.maximum(v - m**2, 0)) + eps)
    return np.array(rows)


def _read_in_float32(gradients, alpha, eps):
    return _averages(gradients.astype(np.float32).astype(np.float64), alpha, eps)


def _tensors_of_float32(gradients, alpha, eps):
    v = m = torch.zeros(gradients.shape[1])
    rows = []
    for g in torch.tensor(gradients, dtype=torch.float32):
        v, m = torch.lerp(v, g * g, 1 - alpha), torch.lerp(m, g, 1 - alpha)
        rows.append((v - m * m).relu().sqrt() + eps)
    return torch.stack(rows).double()


def _divided_before(gradients, alpha, eps):
    v = m = np.zeros(gradients.shape[1])
    rows = []
    for g in gradients:
        rows.append(np.sqrt(np.clip(v - m**2, 0, None)) + eps)
        v, m = alpha * v + (1 - alpha) * g**2, alpha * m + (1 - alpha) * g
    return np.array(rows)


def _weights(gradients, alpha, eps):
    t = np.arange(len(gradients))
    w = np.where(t[:, None] >= t, (1 - alpha) * alpha ** np.abs(t[:, None] - t), 0.0)
    return np.sqrt(np.clip(w @ gradients**2 - (w @ gradients) ** 2, 0, None)) + eps


def _unclipped(gradients, alpha, eps):
    out = np.empty_like(gradients)
    m, v = np.zeros(gradients.shape[1]), np.zeros(gradients.shape[1])
    for t, g in enumerate(gradients):
        m += (1 - alpha) * (g - m)
        v += (1 - alpha) * (g * g - v)
        out[t] = (v - m * m) ** 0.5 + eps
    return out


def _divisor(
    make=lambda v, m, eps: np.sqrt(v - m * m) + eps,
    of_g=lambda m, g, a: a * m + (1 - a) * g,
    of_squares=lambda v, g, a, m: a * v + (1 - a) * g * g,
    begin=None,
    order="both",
    correct=False,
):
    def centered_divisor(gradients, alpha, eps):
        m = np.zeros_like(gradients[0]) if begin is None else gradients[0]
        v = np.zeros_like(gradients[0]) if begin is None else gradients[0] ** 2
        rows = []
        for t, g in enumerate(gradients, 1):
            before = m
            m = of_g(m, g, alpha)
            v = of_squares(v, g, alpha, m)
            k = 1 - alpha**t if correct else 1
            with np.errstate(all="ignore"):
                rows.append(make(v / k, (before if order == "mean late" else m) / k, eps))
        return np.stack(rows)

    return centered_divisor


def _same_rows(gradients, alpha, eps):
    row, rows = np.zeros(gradients.shape[1]), []
    for value in _averages(gradients, alpha, eps):
        row[:] = value
        rows.append(row)
    return np.array(rows)


def _overwrites(gradients, alpha, eps):
    gradients[:] = _averages(gradients, alpha, eps)
    return gradients


_CENTERED = {
    "averages": (_averages, ""),
    "torch's": (_like_torch, ""),
    "weights": (_weights, ""),
    "number by number": (_number_by_number, ""),
    "rounded once": (_fused, ""),
    "no NaN, then eps": (_no_nan_and_eps, ""),
    "float32 in the end": (lambda **arguments: _averages(**arguments).astype(np.float32), ""),
    "lists": (lambda **arguments: _averages(**arguments).tolist(), ""),
    "not clipped": (_unclipped, "not-clipped"),
    "size in place of clipping": (_divisor(lambda v, m, eps: np.sqrt(np.abs(v - m**2)) + eps), "abs-not-clip"),
    "eps, then no NaN": (_eps_and_no_nan, "eps-lost"),
    "0 for what is negative": (
        _divisor(lambda v, m, eps: np.where(v < m * m, 0.0, np.sqrt(np.abs(v - m * m)) + eps)),
        "eps-lost",
    ),
    "float32": (_in_float32, "single-precision"),
    "gradients of float32": (_read_in_float32, "single-precision"),
    "tensors of float32": (_tensors_of_float32, "single-precision"),
    "eps or the root": (_divisor(lambda v, m, eps: np.fmax(np.sqrt(v - m * m), eps)), "eps-as-floor"),
    "clipped at eps": (_divisor(lambda v, m, eps: np.clip(v - m * m, eps, None) ** 0.5), "eps-as-floor-inside"),
    "mean late, clipped": (
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m * m, 0)) + eps, order="mean late"),
        "mean-behind-clipped",
    ),
    "divided before": (_divided_before, "divisor-behind"),
    "quotient": (lambda gradients, alpha, eps: gradients / _averages(gradients, alpha, eps), "step"),
    "not centred": (_divisor(lambda v, m, eps: np.sqrt(v) + eps), "not-centred"),
    "eps in the root": (_divisor(lambda v, m, eps: np.sqrt(v - m**2 + eps)), "eps-inside-root"),
    "no eps": (_divisor(lambda v, m, eps: np.sqrt(v - m**2)), "eps-missing"),
    "eps twice": (_divisor(lambda v, m, eps: np.sqrt(v - m**2 + eps) + eps), "eps-in-both"),
    "mean not squared": (_divisor(lambda v, m, eps: np.sqrt(v - m) + eps), "mean-not-squared"),
    "mean not squared, clipped": (
        _divisor(lambda v, m, eps: np.clip(v - m, 0, None) ** 0.5 + eps),
        "mean-clipped-not-squared",
    ),
    "plus": (_divisor(lambda v, m, eps: np.hypot(np.sqrt(v), m) + eps), "mean-added"),
    "no root": (_divisor(lambda v, m, eps: v - m**2 + eps), "root-missing"),
    "roots apart": (_divisor(lambda v, m, eps: np.sqrt(v) - np.sqrt(m**2) + eps), "root-before-mean"),
    "reciprocal": (_divisor(lambda v, m, eps: 1 / (np.sqrt(v - m**2) + eps)), "reciprocal"),
    "corrected": (_divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0)) + eps, correct=True), "bias-corrected"),
    "weights exchanged": (
        _divisor(of_g=lambda m, g, a: a * g + (1 - a) * m, of_squares=lambda v, g, a, m: a * g**2 + (1 - a) * v),
        "weights-swapped",
    ),
    "sums": (
        _divisor(
            lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0)) + eps,
            of_g=lambda m, g, a: a * m + g,
            of_squares=lambda v, g, a, m: a * v + g**2,
        ),
        "gain-missing",
    ),
    "mean sums": (
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0)) + eps, of_g=lambda m, g, a: a * m + g),
        "gain-missing-in-the-mean",
    ),
    "squares sum": (_divisor(of_squares=lambda v, g, a, m: a * v + g**2), "gain-missing-in-the-squares"),
    "mean late": (_divisor(order="mean late"), "mean-behind"),
    "deviations": (
        _divisor(lambda v, m, eps: np.sqrt(v) + eps, of_squares=lambda v, g, a, m: a * v + (1 - a) * (g - m) ** 2),
        "deviations-averaged",
    ),
    "centred twice": (
        _divisor(
            lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0)) + eps,
            of_squares=lambda v, g, a, m: a * v + (1 - a) * (g - m) ** 2,
        ),
        "centred-twice",
    ),
    "from the first": (
        _divisor(lambda v, m, eps: np.sqrt(np.maximum(v - m**2, 0)) + eps, begin="first"),
        "starts-at-the-first-gradient",
    ),
    "magnitude": (lambda gradients, alpha, eps: np.abs(gradients) + eps, "magnitude"),
    "nothing": (lambda gradients, alpha, eps: np.sqrt(gradients**2 - gradients**2) + eps, "nothing-averaged"),
    "deviation so far": (
        lambda gradients, alpha, eps: [np.std(gradients[:t], axis=0) + eps for t in range(1, len(gradients) + 1)],
        "plain-deviation",
    ),
    "last": (lambda **arguments: _averages(**arguments)[-1], "last-only"),
    "same rows": (_same_rows, "aliased"),
    "columns": (lambda **arguments: _averages(**arguments).T, "transposed"),
    "overwrites": (_overwrites, "input-written"),
    "one too few": (lambda **arguments: _averages(**arguments)[:-1], "wrong-shape"),
    "twice": (lambda **arguments: 2 * _averages(**arguments), "wrong-numbers"),
    "None": (lambda gradients, alpha, eps: None, "wrong-result"),
    "ragged": (lambda gradients, alpha, eps: [[1.0], [1.0, 2.0]], "wrong-result"),
    "other names": (lambda gradients, beta, eps: gradients, "signature"),
}

FUNCTIONS = {"sparse_adagrad": _SPARSE, "centered_divisor": _CENTERED}
