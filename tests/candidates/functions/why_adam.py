"""Answers to the exercise of notebook 06 that asks for a function."""

from __future__ import annotations

import numpy as np
import torch

# ---------------------------------------------------------------------------------------------------- block_rates


def _plain(blocks):
    def factor(values):
        rate = 2 / (values[0] + values[-1])
        return max(abs(1 - rate * values[0]), abs(1 - rate * values[-1]))

    each = [np.linalg.eigvalsh(block) for block in blocks]
    return factor(np.sort(np.concatenate(each))), max(factor(values) for values in each)


def _one_matrix(blocks):
    """The whole Hessian, block-diagonal, and each block by its condition number."""
    whole = torch.block_diag(*map(torch.from_numpy, blocks))
    values = torch.linalg.eigvalsh(whole)
    kappas = [torch.linalg.cond(torch.from_numpy(block)) for block in blocks]
    return (values[-1] - values[0]) / (values[-1] + values[0]), max((k - 1) / (k + 1) for k in kappas)


def _singular_values(blocks):
    ends = [(s[0], s[-1]) for s in (np.linalg.svd(block, compute_uv=False) for block in blocks)]
    top, low = max(a for a, _ in ends), min(b for _, b in ends)
    return np.array([(top - low) / (top + low), max((a - b) / (a + b) for a, b in ends)])


def _descended(blocks):
    """The norm of what one step leaves of the identity."""

    def left(blocks, rate):
        return max(np.linalg.norm(np.eye(len(b)) - rate * b, 2) for b in blocks)

    def best(blocks):
        values = np.concatenate([np.linalg.eigvals(b).real for b in blocks])
        return left(blocks, 2 / (values.min() + values.max()))

    return [best(blocks), max(best([b]) for b in blocks)]


def _with(values=np.linalg.eigvalsh, factor=lambda top, low: (top - low) / (top + low), together=max):
    def block_rates(blocks):
        each = [values(block) for block in blocks]
        one = factor(max(max(e) for e in each), min(min(e) for e in each))
        return one, together([factor(max(e), min(e)) for e in each])

    return block_rates


def _single(rate):
    """The right factors of the blocks, and another single rate."""

    def block_rates(blocks):
        every = np.concatenate([np.linalg.eigvalsh(block) for block in blocks])
        own = [2 / (np.linalg.eigvalsh(b)[0] + np.linalg.eigvalsh(b)[-1]) for b in blocks]
        return np.abs(1 - rate(every, own) * every).max(), _plain(blocks)[1]

    return block_rates


def _in_place(blocks):
    result = _plain(blocks)
    for block in blocks:
        block /= np.linalg.norm(block)
    return result


def _popped(blocks):
    ends, result = [], _plain(blocks)
    while blocks:
        ends.append(blocks.pop())
    return result


def _single_curvatures_fail(blocks):
    each = [np.linalg.eigvalsh(block) for block in blocks]
    spread = [(e[-1] - e[-2]) / (e[-1] + e[-2]) if len(e) < 2 else (e[-1] - e[0]) / (e[-1] + e[0]) for e in each]
    return _plain(blocks)[0], max(spread)


_BLOCK_RATES = {
    "plain": (_plain, ""),
    "one matrix, condition numbers": (_one_matrix, ""),
    "singular values": (_singular_values, ""),
    "norms of matrices": (_descended, ""),
    "comprehensions": (_with(), ""),
    "exchanged": (lambda blocks: _plain(blocks)[::-1], "order"),
    "diagonals": (_with(values=np.diag), "diagonal"),
    "Gershgorin": (_with(values=lambda b: np.abs(b).sum(1)), "row-sums"),
    "of the square": (_with(values=lambda b: np.linalg.eigvalsh(b @ b)), "squared-curvatures"),
    "rate 1 / L": (_with(factor=lambda top, low: 1 - low / top), "one-over-l"),
    "rate 2 / L": (_with(factor=lambda top, low: abs(1 - 2 / top * top)), "at-the-limit"),
    "condition numbers": (_with(values=np.linalg.eigvalsh, factor=lambda top, low: top / low), "condition-number"),
    "momentum": (_with(factor=lambda a, b: (a**0.5 - b**0.5) / (a**0.5 + b**0.5)), "momentums-factor"),
    "of the loss": (_with(factor=lambda a, b: (1 - 2 / (a + b) * b) ** 2), "factor-of-the-loss"),
    "gain": (_with(factor=lambda a, b: 2 * b / (a + b)), "share-removed"),
    "rates": (_with(factor=lambda a, b: 2 / (a + b)), "rates"),
    "mean": (_with(together=np.mean), "mean-over-blocks"),
    "best": (_with(together=min), "best-block"),
    "the first": (_with(together=lambda factors: factors[0]), "first-block"),
    "the loop's last": (_with(together=lambda factors: factors[-1]), "last-block"),
    "product": (_with(together=np.prod), "product"),
    "a factor for each block": (_with(together=list), "wrong-shape"),
    "both the worst block's": (lambda blocks: (_plain(blocks)[1],) * 2, "one-of-the-worst-block"),
    "both with the single rate": (lambda blocks: (_plain(blocks)[0],) * 2, "per-block-is-one"),
    "mean rate": (_single(lambda every, own: sum(own) / len(own)), "mean-of-the-rates"),
    "smallest rate": (_single(lambda every, own: min(own)), "smallest-of-the-rates"),
    "largest rate": (_single(lambda every, own: max(own)), "largest-of-the-rates"),
    "mean curvature": (_single(lambda every, own: 1 / every.mean()), "rate-of-the-mean-curvature"),
    "1 / L for all": (_single(lambda every, own: 1 / every.max()), "one-over-l"),
    "a mean for each block": (
        lambda blocks: (_plain([np.diag([np.diag(b).mean() for b in blocks])])[0], _plain(blocks)[1]),
        "one-curvature-a-block",
    ),
    "best direction": (
        lambda blocks: (
            np.abs(
                1 - (lambda e: 2 / (e.min() + e.max()) * e)(np.concatenate([*map(np.linalg.eigvalsh, blocks)]))
            ).min(),
            max(np.abs(1 - 2 / (e[0] + e[-1]) * e).min() for e in map(np.linalg.eigvalsh, blocks)),
        ),
        "fastest-direction",
    ),
    "mean, and 1 / L for all": (
        lambda blocks: (_single(lambda every, own: 1 / every.max())(blocks)[0], _with(together=np.mean)(blocks)[1]),
        "mean-over-blocks",
    ),
    "writes into the blocks": (_in_place, "input-written"),
    "empties the list": (_popped, "input-written"),
    "no blocks of one": (_single_curvatures_fail, "raises"),
    "one number": (lambda blocks: _plain(blocks)[0], "wrong-result"),
    "a number": (0.5, "wrong-type"),
    "not written": (lambda blocks: (_ for _ in ()).throw(NotImplementedError), "blank"),
}

FUNCTIONS = {"block_rates": _BLOCK_RATES}
