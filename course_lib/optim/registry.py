"""What the rest of the course asks about an optimizer, by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from course_lib.optim.adadelta import Adadelta
from course_lib.optim.adagrad import Adagrad
from course_lib.optim.adam import Adam
from course_lib.optim.adamax import Adamax
from course_lib.optim.adamw import AdamW
from course_lib.optim.base import ScratchOptimizer
from course_lib.optim.nadam import NAdam
from course_lib.optim.nesterov import Nesterov
from course_lib.optim.radam import RAdam
from course_lib.optim.rmsprop import RMSprop
from course_lib.optim.sgd import SGD


@dataclass(frozen=True)
class Paper:
    """Where an optimizer was published. ``arxiv`` is an arXiv id, or None where there is none."""

    title: str
    year: int
    arxiv: str | None = None


@dataclass(frozen=True)
class Entry:
    """One optimizer of the course.

    Attributes:
        key: the registry's key and the id of the exercise that asks for it.
        name: as one writes it in prose.
        make: ``make(params, **hyper)``, the course's own implementation.
        production: ``production(params, **hyper)``, the same algorithm with the same arguments as people
            use it in production; further arguments (``fused=True``) are passed on.
        state_tensors: how many tensors of a parameter's own shape and dtype it keeps.
        paper: where it comes from.
        production_scalars: how many float32 scalars torch.optim keeps besides for each parameter tensor: a step
            count, and NAdam's product of momenta. They are float32 whatever the parameter's dtype.
    """

    key: str
    name: str
    make: Callable[..., ScratchOptimizer]
    production: Callable[..., torch.optim.Optimizer]
    state_tensors: int
    paper: Paper
    production_scalars: int = 0

    def state_bytes(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of optimizer state for one parameter of this shape and dtype, the step count left out."""
        return self.state_tensors * prod(shape) * dtype.itemsize

    @property
    def state_bytes_per_param(self) -> float:
        """Bytes of state per float32 parameter."""
        return float(self.state_bytes((1,)))


_SGD = Paper("A Stochastic Approximation Method (Robbins & Monro)", 1951)
_MOMENTUM = Paper("Some methods of speeding up the convergence of iteration methods (Polyak)", 1964)
_NESTEROV = Paper("On the importance of initialization and momentum in deep learning (Sutskever et al.)", 2013)
_ADAGRAD = Paper("Adaptive Subgradient Methods for Online Learning and Stochastic Optimization (Duchi et al.)", 2011)
_RMSPROP = Paper("Neural Networks for Machine Learning, lecture 6e (Tieleman & Hinton)", 2012)
_ADADELTA = Paper("ADADELTA: An Adaptive Learning Rate Method (Zeiler)", 2012, "1212.5701")
_ADAM = Paper("Adam: A Method for Stochastic Optimization (Kingma & Ba)", 2015, "1412.6980")
_AMSGRAD = Paper("On the Convergence of Adam and Beyond (Reddi et al.)", 2018, "1904.09237")
_ADAMW = Paper("Decoupled Weight Decay Regularization (Loshchilov & Hutter)", 2019, "1711.05101")
_NADAM = Paper("Incorporating Nesterov Momentum into Adam (Dozat)", 2016)
_RADAM = Paper("On the Variance of the Adaptive Learning Rate and Beyond (Liu et al.)", 2020, "1908.03265")

REGISTRY: dict[str, Entry] = {
    entry.key: entry
    for entry in (
        Entry("sgd", "SGD", SGD, torch.optim.SGD, 0, _SGD),
        Entry("momentum", "SGD with momentum", partial(SGD, momentum=0.9),
              partial(torch.optim.SGD, momentum=0.9), 1, _MOMENTUM),
        Entry("nesterov", "Nesterov momentum", Nesterov,
              partial(torch.optim.SGD, momentum=0.9, nesterov=True), 1, _NESTEROV),
        Entry("adagrad", "AdaGrad", Adagrad, torch.optim.Adagrad, 1, _ADAGRAD, 1),
        Entry("rmsprop", "RMSProp", RMSprop, torch.optim.RMSprop, 1, _RMSPROP, 1),
        Entry("adadelta", "Adadelta", Adadelta, torch.optim.Adadelta, 2, _ADADELTA, 1),
        Entry("adam", "Adam", Adam, torch.optim.Adam, 2, _ADAM, 1),
        Entry("amsgrad", "AMSGrad", partial(Adam, amsgrad=True),
              partial(torch.optim.Adam, amsgrad=True), 3, _AMSGRAD, 1),
        Entry("adamw", "AdamW", AdamW, torch.optim.AdamW, 2, _ADAMW, 1),
        Entry("adamax", "Adamax", Adamax, torch.optim.Adamax, 2, _ADAM, 1),
        Entry("nadam", "NAdam", NAdam, torch.optim.NAdam, 2, _NADAM, 2),
        Entry("radam", "RAdam", RAdam, torch.optim.RAdam, 2, _RADAM, 1),
    )
}
