"""Muon: the momentum of a matrix with its singular values pushed towards one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from course_lib.optim.adam import Adam
from course_lib.optim.base import ScratchOptimizer, require, require_betas, require_flag

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's a, b, c: as steep at zero as keeps what has come near one within about 0.7 and 1.2."""

ADJUSTMENTS = ("original", "match_rms_adamw")


class Muon(ScratchOptimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv 2502.16982, Algorithm 1).

    For matrices, g being the gradient::

        B <- momentum * B + (1 - momentum) * g
        u = momentum * B + (1 - momentum) * g  if nesterov else  B
        O = NewtonSchulz(u)                                    about U V^T, where u = U S V^T
        param <- param * (1 - lr * weight_decay)
        param <- param - lr * s * O

    s is ``sqrt(max(1, rows / columns))`` for ``adjust_lr_fn`` None or "original", and
    ``0.2 * sqrt(max(rows, columns))`` for "match_rms_adamw". U V^T has the root mean square 1 / sqrt(max(rows,
    columns)), so that the second brings every matrix to 0.2, about what AdamW's updates have, and AdamW's lr
    and weight_decay can be kept (2502.16982, section 2.2). The decay is not multiplied by s.

    Jordan's rule, and the documentation of torch.optim, write B <- momentum * B + g. Their code, and this class with
    it, averages instead. O does not know the difference: Newton-Schulz divides its argument by its norm.

    O is computed in bfloat16 whatever the parameter's dtype, as torch.optim does (:func:`newton_schulz` itself works in
    the dtype that it is given). It is about 1 part in 100 off what float32 gives; U V^T is further off than that in
    either.

    torch.optim.Muon of torch 2.13 normalises in place what Newton-Schulz is given. For a bfloat16 weight
    without Nesterov that is the momentum buffer itself, which is then wrong from the first step on. Here Newton-Schulz
    never writes to its argument.

    **AdamW for the rest.** Embeddings, the output head, norms and biases are not for this rule. A group with
    ``"adamw": True`` gets :class:`course_lib.optim.AdamW`'s, with the group's ``betas`` and ``eps`` (by default
    AdamW's, (0.9, 0.999) and 1e-8), and its ``lr`` and ``weight_decay`` (by default those of the constructor).
    torch.optim.Muon has no such groups: there one makes two optimizers.

    State: ``momentum_buffer`` (B), 4 bytes per float32 parameter; in an AdamW group ``exp_avg`` and ``exp_avg_sq``, 8.

    Args:
        params: matrices, or groups of them, and groups with ``"adamw": True`` of anything.
        lr: step size, >= 0; about 0.02 for "original", AdamW's for "match_rms_adamw".
        weight_decay: decoupled decay, >= 0.
        momentum: decay of the average of g, 0 <= momentum < 1.
        nesterov: orthogonalise the look-ahead u instead of B.
        ns_coefficients: a, b, c of :func:`newton_schulz`.
        eps: least norm that u is divided by, > 0.
        ns_steps: steps of Newton-Schulz, 0 to 99.
        adjust_lr_fn: None, "original" or "match_rms_adamw".
        maximize: ascend instead.

    Raises:
        ValueError: a hyper-parameter is out of its range, or a parameter of a Muon group is no matrix.
        TypeError: a hyper-parameter is no plain number, or a flag no bool.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
            ns_coefficients=ns_coefficients, eps=eps, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn, adamw=False,
            maximize=maximize,
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; one of Muon's holds matrices only, one with ``"adamw": True`` tensors of any shape."""
        if isinstance(param_group, dict) and param_group.get("adamw"):
            param_group = {"betas": (0.9, 0.999), "eps": 1e-8} | param_group
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        shapes = [tuple(param.shape) for param in group["params"] if param.ndim != 2]
        if shapes and not group["adamw"]:
            self.param_groups.pop()
            raise ValueError(
                f"Invalid params: Muon is for matrices, and a parameter has the shape {shapes[0]}. Allowed: tensors "
                'with two dimensions. Put the others into a group of their own, {"params": [...], "adamw": True}, as '
                "course_lib.groups.muon_groups does for a model."
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("adamw", False)

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        require("lr", group["lr"], 0.0)
        require("weight_decay", group["weight_decay"], 0.0)
        require("momentum", group["momentum"], 0.0, 1.0, high_open=True)
        require_flag("nesterov", group["nesterov"])
        require_flag("adamw", group["adamw"])
        require("eps", group["eps"], 0.0, low_open=not group["adamw"])
        require_betas(group.get("betas", (0.0, 0.0)))
        _require_newton_schulz(group["ns_steps"], group["ns_coefficients"])
        adjusted_lr(1.0, (1, 1), group["adjust_lr_fn"])

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_avg_sq"] if group["adamw"] else ["momentum_buffer"]
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in names}

    @staticmethod
    def state_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Bytes kept for a parameter: one tensor for a matrix, two for what goes to AdamW because it is none."""
        return (1 if len(shape) == 2 else 2) * math.prod(shape) * dtype.itemsize

    def update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        param.mul_(1 - lr * group["weight_decay"])
        if group["adamw"]:
            Adam.adapt(param, grad, state, group | {"amsgrad": False})
            return
        buffer = state["momentum_buffer"]
        buffer.lerp_(grad, 1 - momentum)
        direction = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        orthogonal = newton_schulz(direction.bfloat16(), group["ns_steps"], group["ns_coefficients"], group["eps"])
        param.add_(orthogonal, alpha=-adjusted_lr(lr, param.shape, group["adjust_lr_fn"]))


def newton_schulz(
    matrix: Tensor, steps: int = 5, coefficients: Sequence[float] = COEFFICIENTS, eps: float = 1e-7
) -> Tensor:
    """Push the singular values of a matrix towards one, by matrix products alone.

    X starts as the matrix divided by its Frobenius norm, which is at least its largest singular value. Then, ``steps``
    times::

        A = X X^T,   X <- a X + (b A + c A^2) X

    Every singular value s becomes a s + b s^3 + c s^5, the singular vectors stay. With Jordan's coefficients that does
    not converge to one: five steps bring all of [0.01, 1] into [0.68, 1.14], and multiply tiny ones by a^5 = 485.
    With (1.5, -0.5, 0) it converges, and slowly: five steps multiply small ones by 7.6.

    A matrix with more rows than columns is transposed, so that A is the smaller of the two products.

    Args:
        matrix: (rows, columns), any floating dtype; all is computed in that dtype. It is not written to.
        steps: 0 to 99; 0 only normalises.
        coefficients: a, b, c.
        eps: least norm that is divided by: a zero matrix stays zero.

    Returns:
        A new tensor of the matrix's shape and dtype. One NaN or infinity in the matrix makes it all NaN.

    Raises:
        ValueError: it is no matrix of floating dtype, or an argument is out of its range.
    """
    if matrix.ndim != 2 or not matrix.is_floating_point():
        raise ValueError(
            f"Invalid matrix: shape {tuple(matrix.shape)}, {matrix.dtype}. Allowed: two dimensions, a floating dtype."
        )
    _require_newton_schulz(steps, coefficients)
    require("eps", eps, 0.0, low_open=True)
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.T if tall else x


def adjusted_lr(lr: float, shape: Sequence[int], adjust_lr_fn: str | None = None) -> float:
    """``lr`` times Muon's factor for a matrix of this shape: see :class:`Muon`.

    Raises:
        ValueError: ``adjust_lr_fn`` is not None, "original" or "match_rms_adamw".
    """
    rows, columns = shape
    if adjust_lr_fn is None or adjust_lr_fn == "original":
        # An empty matrix has no columns to divide by, and no elements to update.
        return lr * math.sqrt(max(1.0, rows / max(columns, 1)))
    if adjust_lr_fn == "match_rms_adamw":
        return lr * (0.2 * math.sqrt(max(rows, columns)))
    raise ValueError(f"Invalid adjust_lr_fn: {adjust_lr_fn!r}. Allowed: None, {' or '.join(map(repr, ADJUSTMENTS))}.")


def _require_newton_schulz(steps: Any, coefficients: Any) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps < 100:
        raise ValueError(f"Invalid ns_steps: {steps!r}. Allowed: a whole number from 0 to 99.")
    if not isinstance(coefficients, tuple | list) or len(coefficients) != 3:
        raise ValueError(f"Invalid ns_coefficients: {coefficients!r}. Allowed: a tuple of three numbers a, b, c.")
    for index, value in enumerate(coefficients):
        require(f"ns_coefficients[{index}]", value, -math.inf)
