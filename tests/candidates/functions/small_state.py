"""Answers to the exercises of notebook 13."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch

# ------------------------------------------------------------------------------------------------- factored_moment


def _plain(gradients, beta2):
    row = column = 0.0
    for g in gradients:
        row = beta2 * row + (1 - beta2) * np.square(g).mean(1)
        column = beta2 * column + (1 - beta2) * np.square(g).mean(0)
    total = row.mean()
    if total == 0:
        return np.zeros((len(row), len(column)))
    return np.outer(row / total, column) / (1 - beta2 ** len(gradients))


def _of_sums(gradients, beta2):
    """Sums over rows and columns, divided by the sum of all."""
    weights = beta2 ** np.arange(len(gradients))[::-1]
    weights = weights / weights.sum()
    v = np.tensordot(weights, gradients**2, 1)
    row, column = v.sum(axis=1), v.sum(axis=0)
    return np.outer(row, column / row.sum()) if row.any() else 0 * v


def _tensors(gradients, beta2):
    g = torch.as_tensor(gradients)
    row, column = g.new_zeros(g.shape[1], 1), g.new_zeros(1, g.shape[2])
    for x in g:
        row.lerp_(x.square().mean(dim=-1, keepdim=True), 1 - beta2)
        column.lerp_(x.square().mean(dim=-2, keepdim=True), 1 - beta2)
    correction = 1 - beta2 ** len(g)
    return row / correction * (column / column.mean().clamp(min=torch.finfo(torch.float64).tiny))


def _logarithms(gradients, beta2):
    """Two vectors of logarithms, where nothing underflows."""
    row, column = np.zeros(gradients.shape[1]), np.zeros(gradients.shape[2])
    for g in gradients:
        row += (1 - beta2) * ((g * g).mean(axis=1) - row)
        column += (1 - beta2) * ((g * g).mean(axis=0) - column)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(row)[:, None] + np.log(column) - np.log(row.mean())
    return np.where(np.isnan(log), 0, np.exp(log)) / (1 - beta2 ** len(gradients))


def _moment(last, statistic=lambda g: g**2, start=0.0, correct=True, axes=(1, 0), decay=None):
    def factored_moment(gradients, beta2):
        row = np.full(gradients.shape[2 - axes[0]], start)
        column = np.full(gradients.shape[2 - axes[1]], start)
        for t, g in enumerate(gradients):
            b = beta2 if decay is None else decay(t + 1)
            row = b * row + (1 - b) * statistic(g).mean(axis=axes[0])
            column = b * column + (1 - b) * statistic(g).mean(axis=axes[1])
        if correct:
            row, column = row / (1 - beta2 ** len(gradients)), column / (1 - beta2 ** len(gradients))
        return last(row, column)

    return factored_moment


@np.errstate(invalid="ignore")
def _outer(row, column):
    return row[:, None] * column[None, :] / row.mean()


def _in_place(gradients, beta2):
    np.square(gradients, out=gradients)
    return _plain(np.sqrt(gradients), beta2)


def _adam(gradients, beta2):
    v = 0.0
    for g in gradients:
        v = beta2 * v + (1 - beta2) * g * g
    return v / (1 - beta2 ** len(gradients))


def _mean_left_uncorrected(gradients, beta2):
    raw = _moment(lambda row, column: (row, column), correct=False)(gradients, beta2)
    c = 1 - beta2 ** len(gradients)
    return np.outer(raw[0] / c, raw[1] / c) / raw[0].mean()


_FACTORED = {
    "plain": (_plain, ""),
    "sums": (_of_sums, ""),
    "tensors": (_tensors, ""),
    "logarithms": (_logarithms, ""),
    "product first": (_moment(_outer), "zeros"),
    "product first, zeros minded": (
        _moment(lambda r, c: _outer(r, c) if r.any() else np.zeros((len(r), len(c)))),
        "underflow",
    ),
    "eps of 1e-30 below": (_moment(lambda r, c: (r / (r.mean() + 1e-30))[:, None] * c), "floored"),
    "eps of 1e-30 on the squares": (
        _moment(lambda r, c: (r / r.mean())[:, None] * c, statistic=lambda g: g**2 + 1e-30),
        "floored",
    ),
    "not divided": (_moment(np.outer), "division-missing"),
    "divided by the sum": (_moment(lambda r, c: np.outer(r, c) / np.sum(r)), "divided-by-sum"),
    "axes exchanged": (_moment(_outer, axes=(0, 1)), "transposed"),
    "rows alone": (_moment(lambda r, c: np.repeat(r[:, None], len(c), axis=1)), "rows-only"),
    "root": (_moment(lambda r, c: np.sqrt(_outer(r, c))), "root-taken"),
    "rsqrt": (_moment(lambda r, c: _outer(r, c) ** -0.5), "inverse-root"),
    "Adam's": (_adam, "not-factored"),
    "not corrected": (_moment(_outer, correct=False), "not-corrected"),
    "mean not corrected": (_mean_left_uncorrected, "corrected-twice"),
    "signed": (_moment(_outer, statistic=lambda g: g), "not-squared"),
    "sizes": (_moment(_outer, statistic=np.abs), "absolute"),
    "Adafactor's beta2": (
        _moment(_outer, correct=False, decay=lambda t: 1 - t**-0.8),
        "adafactors-schedule",
    ),
    "last gradient": (lambda gradients, beta2: _plain(gradients[-1:], beta2), "last-only"),
    "float32": (lambda gradients, beta2: _plain(np.float32(gradients), beta2), "underflow"),
    "writes": (_in_place, "input-written"),
    "zeros for one dead row": (
        lambda gradients, beta2: _plain(gradients, beta2) * (gradients.any(axis=(0, 2)).all()),
        "dead-row",
    ),
    "zeros for one dead column": (
        lambda gradients, beta2: _plain(gradients, beta2) * (gradients.any(axis=(0, 1)).all()),
        "dead-row",
    ),
    "a vector": (_moment(lambda r, c: r), "wrong-shape"),
    "nothing": (lambda gradients, beta2: None, "wrong-result"),
    "blank": (None, "blank"),
}

# ------------------------------------------------------------------------------------------------- quantise_blocks


def _loop(x, table, block):
    codes, scales, back = [], [], []
    for start in range(0, len(x), block):
        part = x[start : start + block]
        largest = max(abs(part))
        scales.append(largest)
        for value in part:
            share = value / largest if largest > 0 else 0.0
            code = min(range(len(table)), key=lambda k: abs(share - table[k]))
            codes.append(code)
            back.append(table[code] * largest)
    return codes, scales, back


@np.errstate(invalid="ignore")
def _reshaped(x, table, block, mends_zero=True, fill=0.0):
    rows = np.append(x, np.full(-len(x) % block, fill)).reshape(-1, block)
    absmax = np.abs(rows).max(axis=1, keepdims=True)
    share = np.divide(rows, absmax, out=np.zeros_like(rows), where=absmax > 0) if mends_zero else rows / absmax
    codes = np.searchsorted((table[1:] + table[:-1]) / 2, share)
    return codes.ravel()[: len(x)].astype(np.uint8), absmax[:, 0], (table[codes] * absmax).ravel()[: len(x)]


def _as_tensors(x, table, block):
    x, table = torch.tensor(x), torch.tensor(table)
    parts = x.split(block)
    absmax = torch.stack([part.abs().max() for part in parts])
    of = torch.arange(len(x)) // block
    share = torch.where(absmax[of] > 0, x / absmax[of], 0)
    codes = torch.bucketize(share, (table[1:] + table[:-1]) / 2)
    return codes.to(torch.uint8), absmax, table[codes.long()] * absmax[of]


def _two_neighbours(x, table, block):
    """The entries on either side, and the nearer of the two."""
    absmax = np.maximum.reduceat(np.abs(x), np.arange(0, len(x), block))
    scale = absmax.repeat(block)[: len(x)]
    share = np.where(scale == 0, 0, x / np.where(scale == 0, 1, scale))
    high = np.clip(np.searchsorted(table, share), 1, len(table) - 1)
    codes = np.where(table[high] - share < share - table[high - 1], high, high - 1)
    return codes, absmax, table[codes] * scale


def _eps_for_zero(eps, returned):
    def quantise_blocks(x, table, block):
        of = np.arange(len(x)) // block
        largest = np.array([np.abs(x[of == k]).max() for k in range(of[-1] + 1)])
        safe = largest + eps if returned == "added" else np.maximum(largest, eps)
        codes = np.abs((x / safe[of])[:, None] - table).argmin(axis=1)
        kept = largest if returned is None else safe
        return codes, kept, table[codes] * kept[of]

    return quantise_blocks


def _block_wise(scale=lambda part: np.abs(part).max(), code=None, back=None, cut=None, divisor=0.0):
    def nearest(share, table):
        return np.abs(share[:, None] - table[None]).argmin(axis=1)

    def quantise_blocks(x, table, block):
        codes, scales, values = [], [], []
        parts = np.split(x, range(block, len(x), block)) if cut is None else cut(x, block)
        for part in parts:
            s = scale(part)
            c = (code or nearest)(part / ((s or 1.0) + divisor), table)
            codes.append(c)
            scales.append(s)
            values.append((back or (lambda v, s, c: v * s))(table[c], s, c))
        return np.concatenate(codes), np.array(scales), np.concatenate(values)

    return quantise_blocks


def _up(share, table):
    return np.minimum(np.searchsorted(table, share), len(table) - 1)


def _down(share, table):
    return np.maximum(np.searchsorted(table, share, side="right") - 1, 0)


def _ties_up(share, table):
    return np.searchsorted((table[1:] + table[:-1]) / 2, share, side="right")


def _whole_rows(x, table, block):
    return _reshaped(x[: len(x) // block * block], table, block)


def _by_columns(x, table, block):
    rows = np.append(x, np.zeros(-len(x) % block)).reshape(block, -1)
    absmax = np.abs(rows).max(axis=0)
    codes = np.abs((rows / absmax)[..., None] - table).argmin(axis=-1)
    return codes.ravel()[: len(x)], absmax, (table[codes] * absmax).ravel()[: len(x)]


def _writes(x, table, block):
    result = _reshaped(x, table, block)
    x /= np.abs(x).max() or 1
    return result


_QUANTISE = {
    "loop": (_loop, ""),
    "reshaped": (_reshaped, ""),
    "tensors": (_as_tensors, ""),
    "two neighbours": (_two_neighbours, ""),
    "split": (_block_wise(), ""),
    "rounded down": (_block_wise(code=_down), "rounded-down"),
    "rounded up": (_block_wise(code=_up), "rounded-up"),
    "ties up": (_block_wise(code=_ties_up), "ties-up"),
    "one scale": (lambda x, table, block: _reshaped(x, table, len(x)), "one-block"),
    "largest, signed": (_block_wise(scale=np.max), "largest-not-size"),
    "rms": (_block_wise(scale=lambda part: np.sqrt((part**2).mean())), "root-mean-square"),
    "no scale on the way back": (_block_wise(back=lambda v, s, c: v), "back-not-scaled"),
    "code times scale": (_block_wise(back=lambda v, s, c: c * s), "back-of-codes"),
    "int8": (_block_wise(back=lambda v, s, c: c / 127 * s), "back-by-127"),
    "last block dropped": (_whole_rows, "last-block-dropped"),
    "columns": (_by_columns, "every-kth"),
    "array_split": (_block_wise(cut=lambda x, block: np.array_split(x, -(-len(x) // block))), "wrong-numbers"),
    "zero block is 0 / 0": (lambda x, table, block: _reshaped(x, table, block, mends_zero=False), "zero-block"),
    "zero block has scale 1": (
        lambda x, table, block: (lambda c, a, b: (c, np.where(a == 0, 1.0, a), b))(*_reshaped(x, table, block)),
        "zero-block",
    ),
    "zero block has code 0": (
        lambda x, table, block: (lambda c, a, b: (np.where(a.repeat(block)[: len(x)] == 0, 0, c), a, b))(
            *_reshaped(x, table, block)
        ),
        "zero-block",
    ),
    "floor of 1e-12, kept": (_eps_for_zero(1e-12, "kept"), "zero-block"),
    "floor of 1e-12": (_eps_for_zero(1e-12, None), "floored"),
    "1e-12 added": (_eps_for_zero(1e-12, "added"), "ties-to-zero"),
    "1e-30 added to the divisor": (
        _block_wise(divisor=1e-30),
        "floored",
    ),
    "floor of 1e-30": (_eps_for_zero(1e-30, None), "floored"),
    "float32": (_block_wise(scale=lambda part: np.float32(np.abs(part).max())), "floored"),
    "scale over the table's end": (
        lambda x, table, block: _block_wise(scale=lambda part: max(abs(part)) / max(abs(table)))(x, table, block),
        "scaled-to-table",
    ),
    "codes in int8": (
        lambda x, table, block: (lambda c, a, b: (c.astype(np.int8), a, b))(*_reshaped(x, table, block)),
        "codes-overflow",
    ),
    "filled up with ones": (lambda x, table, block: _reshaped(x, table, block, fill=1.0), "wrong-numbers"),
    "writes": (_writes, "input-written"),
    "two results": (lambda x, table, block: _loop(x, table, block)[:2], "wrong-result"),
    "blank": (None, "blank"),
}

# -------------------------------------------------------------------------------------------------- small_state_gb


def _count(shape, optimizer):
    """Float32 numbers of state, 8-bit ones as a fourth."""
    *rows, columns = shape
    size = math.prod(shape)
    match optimizer, len(rows):
        case "adamw8bit", _ if size >= 4096:
            return Fraction(2 * size, 4) + 2 * (-(-size // 256))
        case (("adamw" | "adamw8bit"), _):
            return 2 * size
        case "lion", _:
            return size
        case "muon", 1:
            return size
        case "adafactor", 1:
            return rows[0] + columns
        case "adafactor", 0:
            return size
        case "came", 1:
            return size + 2 * sum(shape)
        case "adam_mini", _:
            return size + (rows[0] if rows else 1)
    return 2 * size


def _with(change=None, finish=lambda numbers: 4 * numbers / 1e9, count=_count):
    def small_state_gb(shapes, optimizer):
        total = 0
        for shape in shapes:
            total += (
                change(shape, optimizer) if change and change(shape, optimizer) is not None else count(shape, optimizer)
            )
        return finish(total)

    return small_state_gb


def _for(name, numbers):
    return _with(lambda shape, optimizer: numbers(shape, math.prod(shape)) if optimizer == name else None)


def _held(shapes, optimizer):
    """The bytes of tensors that are really made."""
    held = []
    for shape in shapes:
        size, matrix = math.prod(shape), len(shape) == 2
        whole = np.broadcast_to(np.float32(0), shape)
        if optimizer == "adamw8bit" and size >= 4096:
            held += 2 * [np.broadcast_to(np.uint8(0), shape), np.broadcast_to(np.float32(0), (math.ceil(size / 256),))]
        elif optimizer in ("adamw", "adamw8bit") or (optimizer in ("muon", "came") and not matrix):
            held += [whole, whole]
        elif optimizer in ("lion", "muon"):
            held += [whole]
        elif optimizer == "adafactor":
            held += [whole[:, 0], whole[0]] if matrix else [whole]
        elif optimizer == "came":
            held += [whole, *2 * [whole[:, 0], whole[0]]]
        else:
            held += [whole, whole[:, 0] if matrix else np.zeros(1, dtype=np.float32)]
    return sum(array.size * array.itemsize for array in held) * 1e-9


def _eight(threshold=4096, block=256, scales=2, up=True):
    def numbers(shape, size):
        if size < threshold:
            return 2 * size
        return size / 2 + scales * (-(-size // block) if up else size // block)

    return _for("adamw8bit", numbers)


def _pooled(shapes, optimizer):
    if optimizer != "adamw8bit":
        return _with()(shapes, optimizer)
    large = sum(size for size in map(math.prod, shapes) if size >= 4096)
    small = sum(size for size in map(math.prod, shapes) if size < 4096)
    return (8 * small + 2 * large + 8 * math.ceil(large / 256)) / 1e9


def _lost_in_int32(shape, optimizer):
    """Numbers that are missed if the elements are counted in 32 bits."""
    with np.errstate(over="ignore"):
        counted = int(np.prod(shape, dtype=np.int32))
    if counted == math.prod(shape) or optimizer == "adafactor":
        return 0
    if optimizer == "adamw8bit":
        return _count(shape, optimizer) - 2 * counted
    return (math.prod(shape) - counted) * (2 if optimizer == "adamw" else 1)


_SMALL_STATE = {
    "counted": (_with(), ""),
    "held": (_held, ""),
    "a fraction": (_with(finish=lambda numbers: Fraction(numbers) * 4 / 10**9), ""),
    "an array": (_with(finish=lambda numbers: np.array([float(numbers) * 4e-9])), ""),
    "8 bits for all": (_eight(threshold=0), "8bit-everywhere"),
    "8 bits above 4096": (_eight(threshold=4097), "8bit-above-4096"),
    "one scale for both": (_eight(scales=1), "8bit-one-constant"),
    "no scales": (_eight(scales=0), "8bit-constants-missing"),
    "scales rounded down": (_eight(up=False), "8bit-blocks-floored"),
    "scales rounded": (
        _for("adamw8bit", lambda shape, size: 2 * size if size < 4096 else size / 2 + 2 * round(size / 256)),
        "8bit-blocks-rounded",
    ),
    "blocks of all": (_pooled, "8bit-blocks-pooled"),
    "a set of shapes": (lambda shapes, optimizer: _with()(set(shapes), optimizer), "shapes-once"),
    "elements in int32": (
        _with(lambda shape, optimizer: _count(shape, optimizer) - _lost_in_int32(shape, optimizer)),
        "int32",
    ),
    "blocks of 2048": (_eight(block=2048), "8bit-blocks-of-2048"),
    "Adafactor with m": (_for("adafactor", lambda shape, size: size + sum(shape)), "adafactor-with-momentum"),
    "Adafactor's rows": (_for("adafactor", lambda shape, size: shape[0]), "adafactor-rows-only"),
    "CAME with one pair": (
        _for("came", lambda shape, size: size + sum(shape) if len(shape) == 2 else 2 * size),
        "came-one-pair",
    ),
    "CAME's vectors like matrices": (_for("came", lambda shape, size: size + 2 * sum(shape)), "came-vectors-thrice"),
    "Adam-mini per tensor": (_for("adam_mini", lambda shape, size: size + 1), "mini-per-tensor"),
    "Adam-mini per column": (
        _for("adam_mini", lambda shape, size: size + (shape[-1] if len(shape) == 2 else 1)),
        "mini-per-column",
    ),
    "Adam-mini per entry of a vector": (
        _for("adam_mini", lambda shape, size: size + shape[0]),
        "mini-vectors-as-adamw",
    ),
    "Muon once": (_for("muon", lambda shape, size: size), "muon-everything-once"),
    "Muon twice": (_for("muon", lambda shape, size: 2 * size), "muon-matrices-twice"),
    "Lion twice": (_for("lion", lambda shape, size: 2 * size), "lion-twice"),
    "weights": (_with(lambda shape, optimizer: _count(shape, optimizer) + math.prod(shape)), "with-master"),
    "step counts": (_with(lambda shape, optimizer: _count(shape, optimizer) + 1), "step-counts"),
    "numbers": (_with(finish=lambda numbers: numbers / 1e9), "numbers"),
    "GiB": (_with(finish=lambda numbers: 4 * numbers / 2**30), "gibibytes"),
    "bytes": (_with(finish=lambda numbers: 4 * numbers), "bytes"),
    "the first alone": (lambda shapes, optimizer: _with()(shapes[:1], optimizer), "first-tensor-only"),
    "one of the shapes is a string": (lambda shapes, optimizer: str(shapes), "wrong-result"),
    "AdamW": (lambda shapes, optimizer: _with()(shapes, "adamw"), "always-adamw"),
    "max of nothing": (lambda shapes, optimizer: _with()(shapes, optimizer) + 0 * max(shapes)[0], "raises"),
    "blank": (None, "blank"),
}

FUNCTIONS = {
    "factored_moment": _FACTORED,
    "quantise_blocks": _QUANTISE,
    "small_state_gb": _SMALL_STATE,
}
