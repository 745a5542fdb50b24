"""Dynamic loss scaling, as a control loop on one number."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer


class ScaleBottomedOut(RuntimeError):
    """The scale would fall below ``min_scale``: its size is not what makes the gradients overflow."""


class GradScaler:
    """Scale the loss so that small gradients survive float16, and adapt the scale to what the gradients bear.

    float16 turns a gradient below 2^-25 to zero. Multiplied by a scale S the loss has gradients S times as large, which
    are divided by S again in float32 (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2). The largest S
    without overflow is not known and moves, so it is searched for at every :meth:`update`::

        some gradient was inf or NaN:   S <- S * backoff_factor,  clean steps <- 0   (and the step was skipped)
        else:                           clean steps <- clean steps + 1
            clean steps = interval:     S <- S * growth_factor,   clean steps <- 0   (unless S would become inf)

    Used as torch's, in this order::

        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)               only if gradients are read or clipped before the step
        clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()

    Scale, clean steps, skipped steps and results equal those of ``torch.amp.GradScaler``, and so do the keys of
    the state dict, in both directions. Different on purpose: a scale that falls without end is an error instead
    of a run that skips every step for ever; factors are checked; where torch raises AssertionError, for calls in the
    wrong order, this raises RuntimeError; gradients are unscaled here also for the optimizers to which torch leaves it
    (fused ones), and whether any was inf or NaN is read from the device once per optimizer.

    Args:
        init_scale: the scale at the start, >= ``min_scale``. It is kept in float32.
        growth_factor: > 1.
        backoff_factor: between 0 and 1, both excluded.
        growth_interval: clean steps in a row before the scale grows, >= 1.
        min_scale: > 0. A gradient that overflows float16 at the default, 2^-24, is larger than 65504 * 2^24 = 1.1e12.

    Raises:
        TypeError: an argument is no plain number; ``growth_interval`` is no int.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        min_scale: float = 2.0**-24,
    ) -> None:
        _require("min_scale", min_scale, 0.0, math.inf)
        self._min_scale = min_scale
        self._set(init_scale, growth_factor, backoff_factor, growth_interval, clean_steps=0)
        if self._scale < min_scale:
            raise ValueError(f"Invalid init_scale: {init_scale!r}. Allowed: at least min_scale, {min_scale!r}.")
        self._overflows = 0  # in a row
        self._used = False  # scale() has been called
        self._found_inf: dict[Optimizer, bool] = {}  # of the optimizers unscaled since the last update
        self._stepped: set[Optimizer] = set()  # since the last update

    def scale(self, loss: Tensor) -> Tensor:
        """``loss`` times the scale, on the loss's device. A float16 loss of no dimension becomes float32, as in torch.

        Raises:
            TypeError: ``loss`` is no tensor.
        """
        if not isinstance(loss, Tensor):
            raise TypeError(f"Invalid loss: {loss!r} is a {type(loss).__name__}. Allowed: a tensor.")
        self._used = True
        # A float32 tensor and not a float: times 65536.0 a float16 loss would stay float16, and most would be inf.
        return loss * torch.full((), self._scale, dtype=torch.float32, device=loss.device)

    @torch.no_grad()
    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the optimizer's gradients by the scale, in place, and note whether any was inf or NaN before.

        Parameters without a gradient are passed over; of a sparse gradient the stored values count.

        Raises:
            RuntimeError: called twice for this optimizer since the last :meth:`update`, after its :meth:`step`,
                before :meth:`scale` was ever called, or when the optimizer has no gradient at all.
            ValueError: a gradient is float16, where dividing would bring the underflow back.
        """
        self._require_used("unscale_()")
        if optimizer in self._stepped:
            raise RuntimeError("unscale_() is being called after step(). Call it between backward() and step().")
        if optimizer in self._found_inf:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update(). Unscale once per step, "
                "after the backward pass of the last micro-batch."
            )
        gradients = [_values(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            raise RuntimeError(
                "No inf checks were recorded for this optimizer: none of its parameters has a gradient. Call "
                "scale(loss).backward() first, and zero_grad() only after step()."
            )
        # Rounded to float32 only after the division, so that it is the same number on every device.
        inverse = float(np.float32(1.0 / self._scale))
        finite = torch.stack([torch.isfinite(gradient).all().to(gradients[0].device) for gradient in gradients]).all()
        for gradient in gradients:
            gradient.mul_(inverse)
        self._found_inf[optimizer] = not finite.item()

    def step(self, optimizer: Optimizer) -> Any:
        """Unscale unless that is done, then step the optimizer; skip the step if a gradient was inf or NaN.

        Returns:
            What ``optimizer.step()`` returned; None if it was skipped.

        Raises:
            RuntimeError: called twice for this optimizer since the last :meth:`update`, or as in :meth:`unscale_`.
            ValueError: as in :meth:`unscale_`.
        """
        self._require_used("step()")
        if optimizer in self._stepped:
            raise RuntimeError("step() has already been called since the last update(). Call update() after each step.")
        if optimizer not in self._found_inf:
            self.unscale_(optimizer)
        result = None if self._found_inf[optimizer] else optimizer.step()
        self._stepped.add(optimizer)
        return result

    def update(self) -> None:
        """Adapt the scale to what was found since the last call; once per iteration, after all optimizers' steps.

        Raises:
            RuntimeError: no gradients were looked at since the last call.
            ScaleBottomedOut: the scale would fall below ``min_scale``. It stays where it is.
        """
        self._require_used("update()")
        if not self._found_inf:
            raise RuntimeError("No inf checks were recorded prior to update. Call step(optimizer) first.")
        overflow = any(self._found_inf.values())
        self._found_inf.clear()
        self._stepped.clear()
        if overflow:
            self._back_off()
            return
        self._overflows = 0
        self._clean_steps += 1
        if self._clean_steps == self._growth_interval:
            self._clean_steps = 0
            larger = _float32(self._scale * self._growth_factor)
            self._scale = larger if math.isfinite(larger) else self._scale

    def get_scale(self) -> float:
        """The scale by which the next loss is multiplied."""
        return self._scale

    def state_dict(self) -> dict[str, Any]:
        """The five plain numbers of ``torch.amp.GradScaler``'s; call it after :meth:`update`."""
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._clean_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict`, here or of ``torch.amp.GradScaler``, returned.

        Raises:
            RuntimeError: it is empty, as that of a disabled ``torch.amp.GradScaler``.
            ValueError: a key is missing or a value out of its range, such as a scale of 0.
            TypeError: a value is no plain number.
        """
        if not state_dict:
            raise RuntimeError("The source state dict is empty, as that of a scaler made with enabled=False.")
        missing = self.state_dict().keys() - state_dict.keys()
        if missing:
            raise ValueError(f"The state dict lacks {', '.join(sorted(missing))}. Allowed: what state_dict() returned.")
        self._set(*(state_dict[key] for key in self.state_dict()))
        self._overflows = 0

    def _set(self, scale: float, growth: float, backoff: float, interval: int, clean_steps: int) -> None:
        """Check all five and take them over."""
        _require("scale", scale, 0.0, float(np.finfo(np.float32).max), high_closed=True)
        _require("growth_factor", growth, 1.0, math.inf)
        _require("backoff_factor", backoff, 0.0, 1.0)
        _require_count("growth_interval", interval, 1)
        _require_count("_growth_tracker", clean_steps, 0)
        if not _float32(scale):
            raise ValueError(f"Invalid scale: {scale!r} is zero in float32. Allowed: a number above 2^-149.")
        self._scale, self._growth_factor, self._backoff_factor = _float32(scale), float(growth), float(backoff)
        self._growth_interval, self._clean_steps = interval, clean_steps

    def _back_off(self) -> None:
        self._overflows += 1
        self._clean_steps = 0
        smaller = _float32(self._scale * self._backoff_factor)
        if smaller < self._min_scale:
            times = f"{self._overflows} steps in a row" if self._overflows > 1 else "this step"
            raise ScaleBottomedOut(
                f"The loss scale bottomed out: {times} overflowed, and from {self._scale:g} it would fall to "
                f"{smaller:g}, below min_scale = {self._min_scale:g}. No scale can help: gradients are inf or NaN "
                "whatever it is. Look for the first layer whose output is not finite, then at the loss before scaling."
            )
        self._scale = smaller

    def _require_used(self, call: str) -> None:
        if not self._used:
            raise RuntimeError(f"{call} was called before scale(). Call scale(loss).backward() first.")


def _values(gradient: Tensor) -> Tensor:
    """The numbers that a gradient stores, dense or sparse."""
    if gradient.dtype is torch.float16:
        raise ValueError(
            "Attempting to unscale FP16 gradients. Keep the weights in float32 under torch.autocast, or unscale "
            "float32 copies, as course_lib.precision.MasterWeights makes them."
        )
    return gradient._values() if gradient.is_sparse else gradient


def _float32(number: float) -> float:
    """``number`` rounded to float32, in which the scale is kept; inf when it is too large."""
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _require(name: str, value: Any, low: float, high: float, *, high_closed: bool = False) -> None:
    """Raise unless low < value < high (<= with ``high_closed``); NaN is in no range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"Invalid {name}: {value!r} is a {type(value).__name__}. Allowed: a plain number.")
    if not (low < value < high or (high_closed and value == high)):
        upper = f" and {'<=' if high_closed else '<'} {high:g}" if math.isfinite(high) else ", finite"
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: > {low:g}{upper}.")


def _require_count(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Invalid {name}: {value!r} is a {type(value).__name__}. Allowed: an int.")
    if value < low:
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: at least {low}.")
