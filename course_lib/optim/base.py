"""The walk over groups and parameters that every optimizer of the course shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


class ScratchOptimizer(torch.optim.Optimizer):
    """A ``torch.optim.Optimizer`` of which a subclass writes only what is its own.

    The base owns the walk: the closure, parameters without a gradient, the step count, the creation
    of state, ``maximize``. A subclass writes its hyper-parameters (the constructor) and their ranges
    (:meth:`validate`), what it remembers of a parameter (:meth:`init_state`) and its rule, in the order
    and the symbols of the paper (:meth:`update`).

    Parameters of any shape are updated in place, in their own dtype and on their own device. State
    has the parameter's shape, dtype and device and torch.optim's names (``exp_avg``,
    ``momentum_buffer``), so that a state dict can be compared with torch's key by key, and a run
    begun with one can be continued with the other. Gradients are never written to.
    """

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        self.validate(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch.optim; its own hyper-parameters must be in range too."""
        if isinstance(param_group, dict):
            self.validate(self.defaults | param_group)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)

    def validate(self, group: dict[str, Any]) -> None:
        """Raise ValueError or TypeError unless every hyper-parameter in ``group`` is in its range."""
        require_flag("maximize", group["maximize"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """Return what is remembered about ``param``, tensors or plain numbers, as it stands before its first step."""
        return {}

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Apply one step to ``param`` in place.

        Args:
            param: the parameter, any shape and floating dtype.
            grad: what to descend along, same shape and dtype; not to be written to.
            state: ``{"step": t}`` with t = 1 at the first call, and what :meth:`init_state` returned.
            group: the hyper-parameters, read afresh at every step so that schedules work.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define its update rule")

    def update_all(self, entries: list[tuple[Tensor, Tensor, dict[str, Any]]], group: dict[str, Any]) -> None:
        """Apply one step to all parameters of a group; one after another, unless a subclass has a kernel for many.

        Args:
            entries: parameter, gradient as it is (``maximize`` not applied) and state of each that has a gradient.
            group: the hyper-parameters.
        """
        for param, grad, state in entries:
            self.update(param, -grad if group["maximize"] else grad, state, group)

    def require_ready(self) -> None:
        """Raise RuntimeError if no step may be taken now; always ready, unless a subclass says otherwise."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what ``closure`` returned, else None.

        Raises:
            RuntimeError: a gradient is sparse or complex, which no rule of the course supports, or
                :meth:`require_ready` objects.
        """
        self.require_ready()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update_groups()
        return loss

    def update_groups(self) -> None:
        """Apply one step to all groups; gradients are there, and autograd is off."""
        for group in self.param_groups:
            with_grad = [param for param in group["params"] if param.grad is not None]
            for param in with_grad:
                self._require_dense_real(param)
            entries = []
            for param in with_grad:
                state = self.state[param]
                if not state:
                    state.update(self.init_state(param, group))
                # A state dict of torch.optim brings the count as a float32 tensor, in which
                # 1 - beta**t would lose digits; SGD's brings none.
                state["step"] = int(state.get("step", 0)) + 1
                entries.append((param, param.grad, state))
            self.update_all(entries, group)

    def _require_dense_real(self, param: Tensor) -> None:
        sparse = param.grad.layout is not torch.strided
        if sparse or param.grad.is_complex():
            kind = "sparse" if sparse else "complex"
            raise RuntimeError(
                f"{type(self).__name__} does not support {kind} gradients "
                f"(parameter of shape {tuple(param.shape)}); use a dense real gradient."
            )


def require(
    name: str, value: Any, low: float, high: float = math.inf, *, low_open: bool = False, high_open: bool = False
) -> None:
    """Raise an error naming the value and the allowed range, unless low <= value <= high and value is finite.

    ``low_open`` excludes ``low`` itself, ``high_open`` excludes ``high``. NaN is in no range.

    Raises:
        TypeError: ``value`` is no plain real number (a string, None, a tensor).
        ValueError: it is out of range, infinite or NaN.
    """
    if not math.isinf(high):
        allowed = f"{low:g} {'<' if low_open else '<='} {name} {'<' if high_open else '<='} {high:g}"
    elif math.isinf(low):
        allowed = "any finite number"
    else:
        allowed = f"a finite number, {name} {'>' if low_open else '>='} {low:g}"
    if not isinstance(value, Real):
        raise TypeError(f"Invalid {name}: {value!r} is a {type(value).__name__}. Allowed: {allowed}.")
    above = value > low if low_open else value >= low
    below = value < high if high_open else value <= high
    if not (math.isfinite(value) and above and below):
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: {allowed}.")


def require_flag(name: str, value: Any) -> None:
    """Raise TypeError unless ``value`` is True or False: the string "false" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"Invalid {name}: {value!r} is a {type(value).__name__}. Allowed: True or False.")


def require_count(name: str, value: Any, low: int = 1) -> None:
    """Raise ValueError or TypeError unless ``value`` is a whole number, at least ``low``; True and False are none."""
    allowed = f"a whole number, {name} >= {low}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"Invalid {name}: {value!r} is a {type(value).__name__}. Allowed: {allowed}.")
    if value < low:
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: {allowed}.")


def require_betas(betas: Any, count: int = 2) -> None:
    """Raise ValueError or TypeError unless ``betas`` is a tuple or list of ``count`` numbers in [0, 1)."""
    if not isinstance(betas, tuple | list) or len(betas) != count:
        raise ValueError(f"Invalid betas: {betas!r}. Allowed: a tuple of {count} numbers, each 0 <= beta < 1.")
    for index, beta in enumerate(betas):
        require(f"betas[{index}]", beta, 0.0, 1.0, high_open=True)
