"""Mixed precision by hand: 16-bit weights that are rounded copies of float32 master weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

GRADIENTS = ("native", "fp32", "both")
"""What may be given as ``gradients`` to :class:`MasterWeights`."""


class MasterWeights:
    """An optimizer's step in float32 for a model in 16 bits (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1).

    The model computes with 16-bit weights. A float32 copy of each, its master, is what the optimizer updates::

        g      <- float32(gradient)          16-bit gradient to 32 bits
        master <- optimizer's update by g    in 32 bits, moments too
        weight <- round16(master)            copied back, to nearest even

    An update smaller than half the gap around a 16-bit weight is lost in the weight but not in the master,
    where such updates add up. Bytes per parameter with AdamW::

        gradients   weight  gradient  master  moments   total
        "native"       2        2        4      4 + 4      16
        "fp32"         2        4        4      4 + 4      18
        "both"         2      2 + 4      4      4 + 4      20
        "fp32", state_dtype bf16
                       2        4        4      2 + 2      14

    ``"native"`` keeps the 16-bit gradient that autograd makes (ZeRO's count: Rajbhandari et al. 2020, arXiv 1910.02054,
    section 3.1); several micro-batches are then added up in 16 bits. ``"fp32"`` adds each one to a float32 buffer
    as soon as autograd has it, and frees it (Megatron-LM's ``main_grad``). ``"both"`` does the same and keeps the
    16-bit buffer, zeroed, for the next one (as DeepSpeed's ``BF16_Optimizer`` does).

    With ``state_dtype=torch.bfloat16`` the moments rest in bf16 and are 32 bits wide only during the step
    (DeepSeek-V3: arXiv 2412.19437, section 3.3.3, with beta2 = 0.95). At beta2 = 0.999 a second moment
    that should shrink moves by 0.1% a step at most, less than half a gap of bf16: it cannot shrink at all.

    With loss scaling (float16) the gradients are unscaled and clipped in 32 bits, between the parts of :meth:`step`::

        weights.gradients_to_masters()
        scaler.unscale_(weights.optimizer)
        torch.nn.utils.clip_grad_norm_(weights.masters, 1.0)
        scaler.step(weights.optimizer)
        weights.masters_to_weights()
        scaler.update()

    Attributes:
        weights: the 16-bit parameters given, in order.
        masters: their float32 masters, in the same order, shapes and devices.
        main_grads: float32 buffers of gradients, in the same order; empty with ``"native"``.
        optimizer: the optimizer of the masters. Schedules act on it.

    Args:
        params: 16-bit leaf tensors, or parameter groups with such, as in torch.optim.
        make: gets the masters in place of ``params``, in the same groups with the same settings; returns their
            optimizer: ``lambda masters: torch.optim.AdamW(masters, lr=1e-3)``.
        gradients: ``"native"``, ``"fp32"`` or ``"both"``, see above.
        state_dtype: None leaves the optimizer's state alone; ``torch.bfloat16`` keeps its float32 tensors in bf16
            between steps. Tensors of no dimension, such as counts of steps, are left in 32 bits.

    Raises:
        TypeError: a parameter is no 16-bit floating tensor, or ``make`` returns no optimizer.
        ValueError: no parameters, one given twice, one that is no leaf or (with buffers) requires no gradient, an
            optimizer of other tensors than the masters, or an unknown choice.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        make: Callable[[Any], Optimizer],
        *,
        gradients: str = "native",
        state_dtype: torch.dtype | None = None,
    ) -> None:
        if gradients not in GRADIENTS:
            raise ValueError(f"Invalid gradients: {gradients!r}. Allowed: {', '.join(GRADIENTS)}.")
        if state_dtype not in (None, torch.bfloat16):
            raise ValueError(f"Invalid state_dtype: {state_dtype!r}. Allowed: None or torch.bfloat16.")
        self.gradients, self.state_dtype = gradients, state_dtype
        self.weights: list[Tensor] = []
        self.masters: list[Tensor] = []
        self.main_grads: list[Tensor] = []
        self._filled: list[bool] = []  # has this buffer been added to since zero_grad?
        self.optimizer = make(self._masters_of(list(params)))
        self._check_optimizer()
        if gradients != "native":
            self._buffer_gradients()

    def step(self) -> None:
        """Take the gradients to 32 bits, let the optimizer update the masters, copy them to the weights.

        As in torch.optim, a parameter without a gradient is left alone, weight decay included.
        """
        self.gradients_to_masters()
        self.optimizer.step()
        self.masters_to_weights()

    @torch.no_grad()
    def gradients_to_masters(self) -> None:
        """Give each master its gradient in float32: a cast of the 16-bit one, or the buffer itself, not copied.

        The moments become float32 here if they rest in 16 bits.
        """
        for index, (weight, master) in enumerate(zip(self.weights, self.masters, strict=True)):
            if self.gradients == "native":
                master.grad = None if weight.grad is None else weight.grad.float()
            else:
                master.grad = self.main_grads[index] if self._filled[index] else None
        self._cast_state(self.state_dtype, torch.float32)

    @torch.no_grad()
    def masters_to_weights(self) -> None:
        """Round each master into its weight, to nearest even, and let go of the masters' gradients."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            weight.copy_(master)
            master.grad = None
        self._cast_state(torch.float32, self.state_dtype)

    def zero_grad(self) -> None:
        """Forget the gradients: ``"native"`` frees them, ``"fp32"`` and ``"both"`` zero what they keep."""
        for weight in self.weights:
            if self.gradients == "both" and weight.grad is not None:
                weight.grad.zero_()
            else:
                weight.grad = None
        for buffer in self.main_grads:
            buffer.zero_()
        self._filled = [False] * len(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs: ``"masters"`` and ``"optimizer"``. As in torch, live tensors and not copies.

        Gradients are no part of it: save between :meth:`step` and the next backward pass.
        """
        return {"masters": list(self.masters), "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned; the weights become the masters' rounded copies.

        Raises:
            ValueError: a part is missing, or the masters differ in number, shape or dtype.
        """
        missing = {"masters", "optimizer"} - set(state_dict)
        if missing:
            raise ValueError(f"The state dict lacks {' and '.join(sorted(missing))}; it was not made by MasterWeights.")
        saved = [(tuple(tensor.shape), tensor.dtype) for tensor in state_dict["masters"]]
        wanted = [(tuple(tensor.shape), tensor.dtype) for tensor in self.masters]
        if saved != wanted:
            raise ValueError(f"The state dict holds masters of {saved}; the parameters here need {wanted}.")
        self.optimizer.load_state_dict(state_dict["optimizer"])
        for master, values in zip(self.masters, state_dict["masters"], strict=True):
            master.copy_(values)
        self.masters_to_weights()

    def _masters_of(self, params: list[Any]) -> list[Any]:
        if not params:
            raise ValueError("There are no parameters. Allowed: 16-bit tensors or groups of them.")
        if all(isinstance(entry, dict) and "params" in entry for entry in params):
            return [group | {"params": [self._master_of(p) for p in _listed(group["params"])]} for group in params]
        return [self._master_of(param) for param in params]

    def _master_of(self, param: Any) -> Tensor:
        where = f"parameter {len(self.weights)}"
        if not isinstance(param, Tensor):
            raise TypeError(f"{where} is a {type(param).__name__}. Allowed: tensors, or groups with a list of them.")
        if param.dtype not in (torch.float16, torch.bfloat16):
            raise TypeError(
                f"{where}, of shape {tuple(param.shape)}, is {param.dtype}. Allowed: torch.bfloat16 and torch.float16. "
                "A float32 parameter needs no master: give it to an optimizer of its own."
            )
        if not param.is_leaf:
            raise ValueError(f"{where}, of shape {tuple(param.shape)}, is no leaf: it would never have a gradient.")
        if any(param is weight for weight in self.weights):
            raise ValueError(f"{where}, of shape {tuple(param.shape)}, is given twice. A tied weight needs one master.")
        self.weights.append(param)
        self.masters.append(param.detach().float())
        return self.masters[-1]

    def _check_optimizer(self) -> None:
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"make returned a {type(self.optimizer).__name__}. Allowed: a torch.optim.Optimizer.")
        held = [id(param) for group in self.optimizer.param_groups for param in group["params"]]
        if sorted(held) != sorted(id(master) for master in self.masters):
            raise ValueError(
                f"make returned an optimizer of {len(held)} tensors that are not the {len(self.masters)} masters. "
                "Allowed: one of exactly what make was given."
            )

    def _buffer_gradients(self) -> None:
        """Have autograd add every gradient to its float32 buffer as soon as it is there."""
        self._filled = [False] * len(self.weights)
        for index, weight in enumerate(self.weights):
            if not weight.requires_grad:
                raise ValueError(
                    f"parameter {index}, of shape {tuple(weight.shape)}, does not require a gradient, so its buffer "
                    "would never be filled. Leave frozen parameters out."
                )
            self.main_grads.append(torch.zeros_like(self.masters[index]))
            weight.register_post_accumulate_grad_hook(lambda param, index=index: self._collect(param, index))

    @torch.no_grad()
    def _collect(self, param: Tensor, index: int) -> None:
        self.main_grads[index].add_(param.grad)
        self._filled[index] = True
        if self.gradients == "both":
            param.grad.zero_()
        else:
            param.grad = None

    def _cast_state(self, old: torch.dtype | None, new: torch.dtype | None) -> None:
        if self.state_dtype is None:
            return
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.dim() > 0 and value.dtype is old:
                    state[name] = value.to(new)


def _listed(params: Any) -> list[Any]:
    """``params`` of a group, which may be one tensor."""
    return [params] if isinstance(params, Tensor) else list(params)
