"""The exercise `lamb_step`: one step of LAMB on several layers, with layers and updates of length zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Array = np.ndarray
Result = tuple[Array | None, Array | None, Array | None]


def _length(x: Array) -> Array:
    """A row's length, in a column."""
    return np.sqrt((x * x).sum(axis=1, keepdims=True))


def _average(old: Array, new: Array, beta: float) -> Array:
    return beta * old + (1 - beta) * new


def _correction(beta: float, t: int) -> float:
    return 1 - beta**t


def _direction(m: Array, v: Array, c1: float, c2: float, eps: float) -> Array:
    return (m / c1) / (np.sqrt(v / c2) + eps)


def _trust(w: Array, u: Array, g: Array) -> Array:
    size, length = _length(w), _length(u)
    return np.where((size > 0) & (length > 0), size / np.where(length > 0, length, 1), 1.0)


def _arrive(w: Array, u: Array, ratio: Array, lr: float, decay: float) -> Array:
    return w - lr * ratio * u


def _lamb(
    first: Callable[..., Array] = _average,
    second: Callable[..., Array] = lambda v, g, beta: _average(v, g * g, beta),
    corrections: Callable[..., tuple[float, float]] = lambda betas, t: (
        _correction(betas[0], t),
        _correction(betas[1], t),
    ),
    direction: Callable[..., Array] = _direction,
    decayed: Callable[[Array, Array, float], Array] = lambda u, w, decay: u + decay * w,
    ratio: Callable[[Array, Array, Array], Array] = _trust,
    arrive: Callable[..., Array] = _arrive,
    gradient: Callable[[Array, Array, float], Array] = lambda g, w, decay: g,
) -> Callable[..., Result]:
    """Each argument is one line of Algorithm 2; rows are layers."""

    def run(
        w: Array,
        m: Array,
        v: Array,
        g: Array,
        t: int,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> Result:
        g = gradient(g, w, weight_decay)
        m, v = first(m, g, betas[0]), second(v, g, betas[1])
        u = decayed(direction(m, v, *corrections(betas, t), eps), w, weight_decay)
        return arrive(w, u, ratio(w, u, g), lr, weight_decay), m, v

    return run


def _w(**lines: Callable[..., Any]) -> Callable[..., Result]:
    """A wrong w; m and v are not spoken of."""

    def run(**case: Any) -> Result:
        return _lamb(**lines)(**case)[0], None, None

    return run


def _all_one(w: Array, u: Array, g: Array) -> Array:
    return np.full((len(w), 1), np.sqrt((w * w).sum()) / np.sqrt((u * u).sum()))


def _other(**changed: Any) -> Callable[..., Result]:
    """The right w for other arguments, m and v being right."""
    return lambda **case: (_right(**(case | changed))[0], None, None)


def _m(change: Callable[..., Array]) -> Callable[..., Result]:
    return lambda **case: (None, change(**case), None)


def _v(change: Callable[..., Array]) -> Callable[..., Result]:
    return lambda **case: (None, None, change(**case))


def _clipped_first(g: Array, w: Array, decay: float) -> Array:
    return g / max(1.0, np.sqrt((g * g).sum()))


_right = _lamb()
_RATIO = "The ratio: the length of a layer's weights over the length of its update u. What does u consist of?"
_LAYER = "Each layer has a ratio of its own: over which axis is a length taken?"
_DECAY = "Where does lambda w stand in Algorithm 2: before the ratio or after it?"
_CORRECT = "m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t), t being the number of this step, from 1."
_EPS = "u = m_hat / (sqrt(v_hat) + eps) + lambda w."
_KEPT = "What is returned is the raw average, as the next step needs it."
_MISTAKES = (
    Known("ratio-missing", "AdamW: the trust ratio is missing", _RATIO, _w(ratio=lambda w, u, g: 1.0)),
    Known("ratio-upside-down", "a ratio upside down: |u| / |w|", _RATIO, _w(ratio=lambda w, u, g: 1 / _trust(w, u, g))),
    Known("one-ratio", "one ratio for all layers together", _LAYER, _w(ratio=_all_one)),
    Known("ratio-of-elements", "a ratio for every element: |w| / |u|", _LAYER, _w(ratio=lambda w, u, g: np.abs(w) / np.abs(u))),
    Known("ratio-of-gradient", "LARS's ratio, |w| / |g|", _RATIO, _w(ratio=lambda w, u, g: _length(w) / _length(g))),
    Known("ratio-without-root", "a ratio of squared lengths", _RATIO, _w(ratio=lambda w, u, g: _trust(w, u, g) ** 2)),
    Known("ratio-of-sums", "a ratio of the sums of sizes (1-norms)", "The length is the root of the sum of squares.",
          _w(ratio=lambda w, u, g: np.abs(w).sum(axis=1, keepdims=True) / np.abs(u).sum(axis=1, keepdims=True))),
    Known("length-one", "an update of length lr: the weights' length is missing", _RATIO, _w(ratio=lambda w, u, g: 1 / _length(u))),
    Known("times-weights", "an update that is multiplied by |w| and not divided by |u|", _RATIO, _w(ratio=lambda w, u, g: _length(w))),
    Known("ratio-capped-at-ten", "a ratio of at most 10, as the first version of the paper and timm have it", "Here phi is the identity: the ratio has no bounds.",
          _w(ratio=lambda w, u, g: np.minimum(_trust(w, u, g), 10)), OTHER_SPECIFICATION),
    Known("ratio-capped-at-one", "a ratio of at most 1, as bitsandbytes has it: steps are only ever shortened", "Here the ratio has no bounds.",
          _w(ratio=lambda w, u, g: np.minimum(_trust(w, u, g), 1)), OTHER_SPECIFICATION),
    Known("weights-cut-at-ten", "a length of the weights that is cut off at 10, as pytorch_optimizer has it", "Here phi is the identity.",
          _w(ratio=lambda w, u, g: np.minimum(_length(w), 10) / _length(u)), OTHER_SPECIFICATION),
    Known("gradient-normalised", "a gradient that is clipped to a global norm of 1 first, as NVIDIA's LAMB does", "Algorithm 2 takes the gradient as it is.",
          _lamb(gradient=_clipped_first), OTHER_SPECIFICATION),
    Known("decay-after", "a decay beside the scaled step, as in AdamW: it has no part in the ratio", _DECAY,
          _w(decayed=lambda u, w, decay: u, arrive=lambda w, u, ratio, lr, decay: w - lr * (ratio * u + decay * w))),
    Known("decay-not-measured", "a decay that is scaled by the ratio and not measured by it", _DECAY,
          _w(decayed=lambda u, w, decay: u, arrive=lambda w, u, ratio, lr, decay: w - lr * ratio * (u + decay * w))),
    Known("decay-measured-only", "a decay that is in the ratio and not in the step", _DECAY,
          _w(arrive=lambda w, u, ratio, lr, decay: w - lr * ratio * (u - decay * w))),
    Known("decay-in-gradient", "an L2 penalty: the decay is in the gradient", _DECAY, _lamb(gradient=lambda g, w, decay: g + decay * w, decayed=lambda u, w, decay: u)),
    Known("decay-missing", "a step without weight decay", _DECAY, _other(weight_decay=0.0)),
    Known("decay-subtracted", "a decay with its sign turned: the weights grow", _DECAY, _w(decayed=lambda u, w, decay: u - decay * w)),
    Known("decay-with-lr", "a decay of lr * lambda * w within u: lr is in it twice", "u is multiplied by lr afterwards.",
          lambda **case: (_right(**(case | {"weight_decay": case["lr"] * case["weight_decay"]}))[0], None, None)),
    Known("not-corrected", "averages without bias correction", _CORRECT, _w(corrections=lambda betas, t: (1.0, 1.0))),
    Known("m-not-corrected", "an m without bias correction", _CORRECT, _w(corrections=lambda betas, t: (1.0, _correction(betas[1], t)))),
    Known("v-not-corrected", "a v without bias correction", _CORRECT, _w(corrections=lambda betas, t: (_correction(betas[0], t), 1.0))),
    Known("count-ahead", "a count that is one ahead: t + 1", _CORRECT, _w(corrections=lambda betas, t: (_correction(betas[0], t + 1), _correction(betas[1], t + 1)))),
    Known("count-behind", "a count that is one behind: t - 1", _CORRECT,
          _w(corrections=lambda betas, t: (np.float64(_correction(betas[0], t - 1)), np.float64(_correction(betas[1], t - 1))))),
    Known("corrected-twice", "averages that are corrected although they were corrected", _CORRECT,
          _w(corrections=lambda betas, t: (_correction(betas[0], t) ** 2, _correction(betas[1], t) ** 2))),
    Known("eps-inside", "an eps inside the root", _EPS, _w(direction=lambda m, v, c1, c2, eps: m / c1 / np.sqrt(v / c2 + eps))),
    Known("eps-before-correction", "an eps beside the root of the raw v", _EPS, _w(direction=lambda m, v, c1, c2, eps: m / c1 / (np.sqrt(v) + eps) * np.sqrt(c2))),
    Known("eps-missing", "no eps", _EPS, _other(eps=0.0)),
    Known("eps-beside-length", "an eps beside |u|", "Only zero lengths are special, and their ratio is 1.", lambda **case: (_w(
        ratio=lambda w, u, g: _length(w) / (_length(u) + case["eps"]))(**case)[0], None, None)),
    Known("root-missing", "a division by v in the place of its root", _EPS, _w(direction=lambda m, v, c1, c2, eps: m / c1 / (v / c2 + eps))),
    Known("gradient-for-m", "the gradient in the place of m", "u is made of the averages.", lambda **case: (_lamb(
        direction=lambda m, v, c1, c2, eps: case["g"] / (np.sqrt(v / c2) + eps))(**case)[0], None, None)),
    Known("old-averages", "a step with the m and v of before", "Both averages take this gradient in first.", lambda **case: (_lamb(
        direction=lambda m, v, c1, c2, eps: _direction(case["m"], case["v"], c1, c2, eps))(**case)[0], None, None)),
    Known("ascends", "a step uphill", "Which way is down?", _w(arrive=lambda w, u, ratio, lr, decay: w + lr * ratio * u)),
    Known("lr-missing", "a step without the learning rate", "What scales u beside the ratio?", _other(lr=1.0)),
    Known("betas-swapped", "beta1 and beta2 exchanged", "Which of the two is longer remembered?", lambda **case: _right(**(case | {"betas": case["betas"][::-1]}))),
    Known("weights-swapped", "averages with their weights exchanged", "Does beta weigh the past or the present?",
          _lamb(lambda m, g, beta: _average(g, m, beta), lambda v, g, beta: _average(g * g, v, beta))),
    Known("gain-missing", "sums: (1 - beta) is missing", "If every gradient were 1, what should m come to?",
          _lamb(lambda m, g, beta: beta * m + g, lambda v, g, beta: beta * v + g * g)),
    Known("m-corrected-kept", "a corrected m that is kept", _KEPT, _m(lambda **case: _right(**case)[1] / _correction(case["betas"][0], case["t"]))),
    Known("m-unchanged", "the m of before", _KEPT, _m(lambda **case: case["m"])),
    Known("m-is-u", "u in the place of m", _KEPT, _m(lambda **case: _right(**case)[1] / _correction(case["betas"][0], case["t"]) / (
        np.sqrt(_right(**case)[2] / _correction(case["betas"][1], case["t"])) + case["eps"]) + case["weight_decay"] * case["w"])),
    Known("m-and-v-swapped", "v and m, in this order", "Return w, m and v, in this order.", lambda **case: (None, *_right(**case)[:0:-1])),
    Known("v-corrected-kept", "a corrected v that is kept", _KEPT, _v(lambda **case: _right(**case)[2] / _correction(case["betas"][1], case["t"]))),
    Known("v-unchanged", "the v of before", _KEPT, _v(lambda **case: case["v"])),
    Known("v-rooted", "the root of v", _KEPT, _v(lambda **case: np.sqrt(_right(**case)[2]))),
    Known("v-not-squared", "a v of gradients that are not squared", "v averages squares.", _v(lambda **case: _average(case["v"], case["g"], case["betas"][1]))),
)  # fmt: skip
_RNG = np.random.default_rng(43)


def _case(
    sizes: list[float],
    width: int,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    w, m, v, g = rng.normal(size=(4, len(sizes), width))
    w = w / np.linalg.norm(w, axis=1, keepdims=True) * np.array(sizes)[:, None]
    return {
        "w": w,
        "m": 0.3 * m,
        "v": 0.3 * v**2,
        "g": g,
        "t": t,
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": decay,
    }


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    sizes = list(rng.uniform(0.5, 20, int(rng.integers(2, 4))))
    betas = float(rng.uniform(0.7, 0.95)), float(rng.uniform(0.9, 0.99))
    return [
        _case(
            sizes,
            int(rng.integers(2, 5)),
            int(rng.integers(1, 9)),
            float(rng.uniform(0.01, 0.1)),
            betas,
            0.01,
            float(rng.uniform(0.01, 0.2)),
            rng,
        )
    ]


def _zero(part: str, code: str, what: str) -> dict[str, Any]:
    """A case in which one layer's weights, or its update, are zero; and what is said where the ratio is not 1."""
    case = _case([2.0, 1.0], 3, 1, 0.1, (0.9, 0.99), 1e-6, 0.0, np.random.default_rng(5))
    for name in part.split():
        case[name] = case[name].copy()
        case[name][1] = 0.0

    def told(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
        if got[0].shape == want[0].shape and np.allclose(got[0][1], want[0][1], rtol=1e-6, atol=1e-12):
            return None
        shown = np.array2string(got[0][1], precision=4) if got[0].shape == want[0].shape else f"shape {got[0].shape}"
        return Finding(
            code,
            f"{what} Its weights come out as {shown}.",
            "Where either length is zero, the ratio is 1: an ordinary step of Adam.",
        )

    return {"case": case, "told": told}


LAMB_STEP = Numeric(
    _right,
    [
        _case([1.0, 30.0, 12.0], 4, 3, 0.05, (0.9, 0.98), 0.02, 0.1, _RNG),
        _case([5.0, 0.2], 3, 1, 0.1, (0.8, 0.9), 0.1, 0.3, _RNG),
        _case([50.0], 2, 12, 0.01, (0.95, 0.99), 0.05, 0.02, _RNG),
    ],
    _MISTAKES,
    "the new w, m and v",
    ("w", "m", "v"),
    edges=[
        Edge(**_zero("w", "zero-weights", "A layer whose weights are zero, as a bias is at first, must be able to move.")),
        Edge(**_zero("w m v g", "zero-update", "A layer that is zero, and has had zero gradients only: 0 / 0.")),
        Edge(**_zero("m v g", "zero-update", "A layer that has had zero gradients only, without weight decay: its update has length zero.")),
        Edge(_case([3.0, 0.01], 2, 100_000, 0.001, (0.9, 0.999), 1e-6, 0.01, _RNG)),
        Edge(_case([3.0], 1, 2, 0.001, (0.9, 0.999), 1e-6, 0.01, _RNG)),
    ],
    drawn=_drawn,
)  # fmt: skip
