"""Averages of the weights along a run: evaluated in place of the last weights, never trained on.

Each class watches a list of parameters: ``update()`` after the optimizer's step takes their present values in,
``averaged()`` gives the average, and ``with average.applied():`` evaluates the model with it::

    average = EMA(model.parameters(), decay=0.999)
    for batch in batches:
        ...
        optimizer.step()
        average.update()
    with average.applied():
        loss = evaluate(model)          # afterwards the model has its own weights back

An average costs one more copy of the weights, in their dtype (4 bytes a float32 parameter). 16-bit weights are averaged
in float32: in bfloat16 an increment of (1 - decay) times the difference would mostly be rounded away. What a model
keeps outside its parameters, such as the statistics of batch norm, is not averaged: estimate it anew with
``torch.optim.swa_utils.update_bn``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class _Average:
    """The walk over the parameters that all averages share; a subclass says how a new value is weighed."""

    def __init__(self, params: Iterable[Tensor]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("Invalid params: a single tensor. Allowed: an iterable of tensors, as model.parameters().")
        self._params = list(params)
        if not self._params:
            raise ValueError(
                "Invalid params: there is none. Allowed: an iterable of tensors; a generator can be read only once."
            )
        for param in self._params:
            if not isinstance(param, Tensor) or not param.is_floating_point():
                what = str(param.dtype) if isinstance(param, Tensor) else type(param).__name__
                raise TypeError(f"Invalid params: one of them is {what}. Allowed: tensors of floating-point numbers.")
        self._sums = [torch.zeros_like(param, dtype=_dtype(param)) for param in self._params]
        self._updates = 0

    @property
    def updates(self) -> int:
        """How often :meth:`update` was called."""
        return self._updates

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' present values."""
        self._updates += 1
        weight = self._weight()
        if weight:
            for average, param in zip(self._sums, self._params, strict=True):
                # As mul and add, not lerp: lerp changes its formula at a weight of 1/2 and differs between processors.
                average.mul_(1.0 - weight).add_(param, alpha=weight)

    @torch.no_grad()
    def averaged(self) -> list[Tensor]:
        """The averages, new tensors in the parameters' dtypes and order.

        Raises:
            RuntimeError: nothing was averaged yet.
        """
        self._require_some()
        scale = self._scale()
        return [(average * scale).to(param.dtype) for average, param in zip(self._sums, self._params, strict=True)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the parameters, and the parameters' own values back at the end, after an error too.

        Changes made to the parameters inside are lost.

        Raises:
            RuntimeError: nothing was averaged yet.
        """
        averages = self.averaged()
        own = [param.detach().clone() for param in self._params]
        _copy(averages, self._params)
        try:
            yield
        finally:
            _copy(own, self._params)

    def state_dict(self) -> dict[str, Any]:
        """``{"updates": int, "averages": list of tensors}``: all that a resumed run needs."""
        return {"updates": self._updates, "averages": [average.clone() for average in self._sums]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            ValueError: its tensors have not the number and shapes of the parameters'.
        """
        shapes, wanted = ([tuple(tensor.shape) for tensor in tensors] for tensors in (state["averages"], self._sums))
        if shapes != wanted:
            raise ValueError(f"Invalid state: it holds averages of shapes {shapes}; the parameters have {wanted}.")
        for average, saved in zip(self._sums, state["averages"], strict=True):
            average.copy_(saved)
        self._updates = state["updates"]

    def _weight(self) -> float:
        """Weight of the value that :meth:`update` takes in now, against all before it."""
        raise NotImplementedError

    def _scale(self) -> float:
        return 1.0

    def _require_some(self) -> None:
        if not self._updates:
            raise RuntimeError("There is no average yet. Call update() after each step of the optimizer first.")


class EMA(_Average):
    """Exponential moving average: a <- decay * a + (1 - decay) * w, from a = 0.

    With ``bias_correction`` the average is a / (1 - decay^t) after t updates, the weighted mean of the values seen, as
    Adam's moments are corrected (Kingma & Ba 2015, arXiv 1412.6980, section 3). Without it the average starts from the
    first value seen, as ``torch.optim.swa_utils.get_ema_multi_avg_fn`` does: that value then keeps the weight
    decay^(t - 1), which after t = 1 / (1 - decay) updates is still 37%.

    It looks back over about 1 / (1 - decay) updates.

    Args:
        params: tensors of floating-point numbers, watched and not changed.
        decay: 0 <= decay < 1.
        bias_correction: see above.
    """

    def __init__(self, params: Iterable[Tensor], decay: float, bias_correction: bool = True) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float):
            raise TypeError(f"Invalid decay: {decay!r}. Allowed: a number, 0 <= decay < 1.")
        if not 0 <= decay < 1:
            raise ValueError(f"Invalid decay: {decay!r}. Allowed: 0 <= decay < 1; 0.999 looks back over 1000 updates.")
        if not isinstance(bias_correction, bool):
            raise TypeError(f"Invalid bias_correction: {bias_correction!r}. Allowed: True or False.")
        super().__init__(params)
        self.decay = float(decay)
        self.bias_correction = bias_correction

    def _weight(self) -> float:
        return 1.0 if self.updates == 1 and not self.bias_correction else 1.0 - self.decay

    def _scale(self) -> float:
        return 1.0 / (1.0 - self.decay**self.updates) if self.bias_correction else 1.0


class SWA(_Average):
    """Equal weights for all values seen: a <- a + (w - a) / t (stochastic weight averaging, Izmailov et al. 2018, arXiv
    1803.05407, Algorithm 1; the running mean is Polyak and Ruppert's).

    Call :meth:`update` once an epoch or once a cycle of the schedule, late in the run, for what the paper describes.
    It is what ``torch.optim.swa_utils.AveragedModel`` does by default.

    Args:
        params: tensors of floating-point numbers, watched and not changed.
    """

    def _weight(self) -> float:
        return 1.0 / self.updates


class TailAverage(_Average):
    """Equal weights for the values seen after the first ``start``, which are left out: a mean over the end of a run.

    Args:
        params: tensors of floating-point numbers, watched and not changed.
        start: how many updates are left out, >= 0.
    """

    def __init__(self, params: Iterable[Tensor], start: int) -> None:
        if isinstance(start, bool) or not isinstance(start, int):
            raise TypeError(f"Invalid start: {start!r}. Allowed: a whole number of updates >= 0.")
        if start < 0:
            raise ValueError(f"Invalid start: {start!r}. Allowed: a whole number of updates >= 0.")
        super().__init__(params)
        self.start = start

    def _weight(self) -> float:
        return 0.0 if self.updates <= self.start else 1.0 / (self.updates - self.start)

    def _require_some(self) -> None:
        if self.updates <= self.start:
            raise RuntimeError(
                f"There is no average yet: {self.updates} updates, of which the first {self.start} are left out. "
                "Update on, or choose an earlier start."
            )


def _dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
