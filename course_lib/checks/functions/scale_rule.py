"""The exercise `scale_rule`: rate, betas and epsilon for a batch that is k times as large."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Edge, Known, Numeric, Parts
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

Betas = tuple[float, float]
Result = tuple[Any, Any, Any]


def _shorter_memory(beta: float, k: float) -> float:
    return 1 - k * (1 - beta)


def _both(change: Callable[[float, float], float]) -> Callable[[Betas, float], Betas]:
    return lambda betas, k: (change(betas[0], k), change(betas[1], k))


_shorter_memories = _both(_shorter_memory)


def _rule(
    sgd: Callable[[float, float], float] = lambda lr, k: k * lr,
    adam: Callable[[float, float], float] = lambda lr, k: np.sqrt(k) * lr,
    betas: Callable[[Betas, float], Betas] = _shorter_memories,
    eps: Callable[[float, float], float] = lambda eps, k: eps / np.sqrt(k),
    sgd_betas: Callable[[Betas, float], Betas] = lambda betas, k: betas,
    sgd_eps: Callable[[float, float], float] = lambda eps, k: eps,
) -> Callable[..., Result]:
    """Each argument is one number of the answer for one optimizer."""

    def run(optimizer: str, lr: float, old: Betas, old_eps: float, k: float) -> Result:
        if optimizer == "sgd":
            return sgd(lr, k), sgd_betas(old, k), sgd_eps(old_eps, k)
        return adam(lr, k), betas(old, k), eps(old_eps, k)

    return lambda optimizer, lr, betas, eps, k: run(optimizer, lr, betas, eps, k)


def _only(part: int, **lines: Callable[..., Any]) -> Callable[..., Result]:
    """One part is wrong; the others are not spoken of."""

    def run(**case: Any) -> Result:
        result = _rule(**lines)(**case)
        return tuple(value if i == part else None for i, value in enumerate(result))  # type: ignore[return-value]

    return run


_right = _rule()
_SGD = "n / k steps of lr' must drift as far as n steps of lr, and a k-fold batch has a k-th of the variance."
_ADAM = "Where noise dominates, sqrt(v) falls by sqrt(k) with the batch: how much longer is each step already, at the same rate?"
_MEMORY = "An average remembers about 1 / (1 - beta) steps. It is to remember as many examples as before, in steps that hold k times as many."
_EPS = "eps stands beside sqrt(v). What happens to sqrt(v) where noise dominates?"
_PLAIN = "SGD has neither: they come back as they are."
_MISTAKES = (
    Known("linear-for-adam", "the linear rule for Adam", _ADAM, _only(0, adam=lambda lr, k: k * lr)),
    Known("root-for-sgd", "the square-root rule for SGD", _SGD, _only(0, sgd=lambda lr, k: np.sqrt(k) * lr)),
    Known("rules-swapped", "the two rules exchanged: root for SGD, linear for Adam", "For which of the two does noise divide the step?",
          _only(0, sgd=lambda lr, k: np.sqrt(k) * lr, adam=lambda lr, k: k * lr)),
    Known("adam-kept", "Adam's rate as it was", _ADAM, _only(0, adam=lambda lr, k: lr)),
    Known("sgd-kept", "SGD's rate as it was", _SGD, _only(0, sgd=lambda lr, k: lr)),
    Known("rates-kept", "the rates as they were", "Fewer steps must go as far.", _only(0, sgd=lambda lr, k: lr, adam=lambda lr, k: lr)),
    Known("rates-divided", "rates that fall with the batch", "Fewer steps must go as far: longer or shorter ones?", _only(0, sgd=lambda lr, k: lr / k, adam=lambda lr, k: lr / np.sqrt(k))),
    Known("adam-divided", "a rate of Adam's that falls with the batch", _ADAM, _only(0, adam=lambda lr, k: lr / np.sqrt(k))),
    Known("sgd-divided", "a rate of SGD's that falls with the batch", _SGD, _only(0, sgd=lambda lr, k: lr / k)),
    Known("fourth-root", "a fourth root for Adam", _ADAM, _only(0, adam=lambda lr, k: k**0.25 * lr)),
    Known("squared", "k^2 for SGD", _SGD, _only(0, sgd=lambda lr, k: k * k * lr)),
    Known("logarithm", "1 + log2(k) in the place of k: the number of doublings", "A k-fold batch, not k doublings.",
          _only(0, sgd=lambda lr, k: lr * (1 + np.log2(k)), adam=lambda lr, k: lr * np.sqrt(1 + np.log2(k)))),
    Known("betas-kept", "betas as they were: an average of as many steps, and so of k times as many examples", _MEMORY, _only(1, betas=lambda betas, k: betas)),
    Known("beta1-only", "a new beta1 beside the old beta2", _MEMORY, _only(1, betas=lambda betas, k: (_shorter_memory(betas[0], k), betas[1]))),
    Known("beta2-only", "a new beta2 beside the old beta1", _MEMORY, _only(1, betas=lambda betas, k: (betas[0], _shorter_memory(betas[1], k)))),
    Known("half-life", "betas to the power k: half-lives of as many examples", "That is the exact form for averages; the rule here is its first order, 1 - k (1 - beta).",
          _only(1, betas=_both(lambda beta, k: beta**k)), OTHER_SPECIFICATION),
    Known("half-life-turned", "betas to the power 1 / k: longer memories", _MEMORY, _only(1, betas=_both(lambda beta, k: beta ** (1 / k)))),
    Known("longer-memory", "1 - (1 - beta) / k: longer memories", _MEMORY, _only(1, betas=_both(lambda beta, k: 1 - (1 - beta) / k))),
    Known("root-in-betas", "1 - sqrt(k) (1 - beta)", "The root is for the rate. Memory is counted in examples.", _only(1, betas=_both(lambda beta, k: 1 - np.sqrt(k) * (1 - beta)))),
    Known("betas-multiplied", "k * beta", _MEMORY, _only(1, betas=_both(lambda beta, k: k * beta))),
    Known("betas-divided", "beta / k", _MEMORY, _only(1, betas=_both(lambda beta, k: beta / k))),
    Known("complement", "k (1 - beta) itself", "That is what is left of 1 beside the new beta.", _only(1, betas=_both(lambda beta, k: k * (1 - beta)))),
    Known("betas-swapped", "the new betas in reverse order", "(beta1, beta2), as they were given.", _only(1, betas=lambda betas, k: _both(_shorter_memory)(betas, k)[::-1])),
    Known("betas-of-sgd", "new betas for SGD as well", _PLAIN, _only(1, sgd_betas=_both(_shorter_memory))),
    Known("eps-kept", "Adam's eps as it was", _EPS, _only(2, eps=lambda eps, k: eps)),
    Known("eps-multiplied", "an eps that grows with sqrt(k)", _EPS, _only(2, eps=lambda eps, k: eps * np.sqrt(k))),
    Known("eps-over-k", "an eps over k, which is right for one inside the root", "It stands outside the root here, beside sqrt(v).", _only(2, eps=lambda eps, k: eps / k), OTHER_SPECIFICATION),
    Known("eps-times-k", "an eps times k", _EPS, _only(2, eps=lambda eps, k: eps * k)),
    Known("eps-of-sgd", "a new eps for SGD as well", _PLAIN, _only(2, sgd_eps=lambda eps, k: eps / np.sqrt(k))),
    Known("sgd-like-adam", "Adam's rule for both", "SGD's step has no root of v below it.", _rule(
        sgd=lambda lr, k: np.sqrt(k) * lr, sgd_betas=_both(_shorter_memory), sgd_eps=lambda eps, k: eps / np.sqrt(k))),
    Known("adam-like-sgd", "SGD's rule for both", "Adam's step is divided by sqrt(v), which changes with the batch.", _rule(
        adam=lambda lr, k: k * lr, betas=lambda betas, k: betas, eps=lambda eps, k: eps)),
)  # fmt: skip


def _case(optimizer: str, lr: float, betas: Betas, eps: float, k: float) -> dict[str, Any]:
    return {"optimizer": optimizer, "lr": lr, "betas": betas, "eps": eps, "k": k}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    betas = float(rng.uniform(0.9, 0.95)), float(rng.uniform(0.95, 0.999))
    lr, eps, k = float(rng.uniform(0.001, 0.1)), float(rng.uniform(1e-8, 1e-6)), float(rng.uniform(1.5, 9))
    return [_case(name, lr, betas, eps, k) for name in ("sgd", "adam")]


class _Refusing(Numeric):
    """Judges also that a batch for which there is no rule is refused, and one that leaves a beta of 0 is not."""

    def _judged(self, candidate: Callable[..., Any]) -> list[Finding]:
        return super()._judged(candidate) or _no_rule(candidate, (0.9, 0.999), 16) or _no_rule(candidate, (0.9, 0.5), 4)

    def _called(self, candidate: Callable[..., Any], case: dict[str, Any], written: list[Finding]) -> Parts:
        if case is not _BETA_OF_ZERO:
            return super()._called(candidate, case, written)

        def accepting(**arguments: Any) -> Any:
            try:
                return candidate(**arguments)
            except ValueError:
                raise Stopped(_ZERO_REFUSED) from None

        return super()._called(accepting, case, written)


_BETA_OF_ZERO = _case("adam", 1e-3, (0.75, 0.875), 1e-8, 4)
_ZERO_REFUSED = Finding(
    "refuses-zero",
    "With betas (0.75, 0.875) and k = 4, the new beta1 is exactly 0, and the function raises a ValueError.",
    "Only a beta below 0 is refused: one of 0 averages over a single step, and is allowed.",
)


def _no_rule(candidate: Callable[..., Any], betas: Betas, k: int) -> list[Finding]:
    code, hint = "no-rule", "Raise a ValueError where either of the new betas would be below 0: the rule ends there."
    with watched(f"betas of {betas} are to be scaled to k = {k}"):
        try:
            result = candidate(**_case("adam", 1e-3, betas, 1e-8, k))
            does = f"returns {result!r}"
            if isinstance(result, BaseException):
                code, hint = "error-returned", "`raise` a ValueError: one that is returned stops nobody."
        except ValueError:
            return []
        except Exception as error:  # whatever it is, a ValueError is asked for
            code, does, hint = "another-error", f"raises {type(error).__name__}", "Raise a ValueError there."
    which = 0 if k * (1 - betas[0]) > 1 else 1
    beyond = f"k (1 - beta{which + 1}) = {k * (1 - betas[which]):g}"
    what = f"With betas {betas} and k = {k}, {beyond}: there is no such average, and the function {does}."
    return [Finding(code, what, hint)]


SCALE_RULE = _Refusing(
    _right,
    [
        _case("sgd", 0.1, (0.9, 0.999), 1e-8, 8),
        _case("adam", 3e-4, (0.9, 0.95), 1e-8, 4),
        _case("adam", 1e-3, (0.95, 0.999), 1e-6, 9),
        _case("sgd", 0.03, (0.8, 0.99), 1e-7, 3),
    ],
    _MISTAKES,
    "lr, betas and eps",
    ("lr", "betas", "eps"),
    edges=[
        Edge(_case("adam", 1e-3, (0.9, 0.999), 1e-8, 1)),
        Edge(_case("adam", 1e-3, (0.5, 0.9), 1e-8, 0.25)),  # a smaller batch
        Edge(_BETA_OF_ZERO),
        Edge(_case("sgd", 0.1, (0.9, 0.999), 1e-8, 64)),  # betas that SGD does not use
        Edge(_case("sgd", 0.1, (0.9, 0.999), 1e-8, 1 / 16)),
    ],
    drawn=_drawn,
)
