"""What the rest of the course asks about an optimizer, by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from course_lib.optim import counterparts
from course_lib.optim.adadelta import Adadelta
from course_lib.optim.adafactor import Adafactor
from course_lib.optim.adagrad import Adagrad
from course_lib.optim.adam import Adam
from course_lib.optim.adam_mini import AdamMini
from course_lib.optim.adamax import Adamax
from course_lib.optim.adamw import AdamW
from course_lib.optim.adamw8bit import AdamW8bit
from course_lib.optim.ademamix import AdEMAMix
from course_lib.optim.base import ScratchOptimizer
from course_lib.optim.came import CAME
from course_lib.optim.lamb import LAMB
from course_lib.optim.lars import LARS
from course_lib.optim.lion import Lion
from course_lib.optim.muon import Muon
from course_lib.optim.nadam import NAdam
from course_lib.optim.nesterov import Nesterov
from course_lib.optim.radam import RAdam
from course_lib.optim.rmsprop import RMSprop
from course_lib.optim.schedule_free import ScheduleFreeAdamW
from course_lib.optim.sgd import SGD
from course_lib.optim.shampoo import Shampoo
from course_lib.optim.soap import SOAP
from course_lib.optim.sophia import Sophia
from course_lib.optim.stable_adamw import StableAdamW


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
        scope: what the new value of one element depends on: ``"element"``, its own history alone, so that tensors may
            be cut anywhere; ``"block"``, some elements beside it; ``"tensor"``, all of its tensor.
        package: the pip package that ``production`` needs.
        agreement: how near the two come over 50 steps and more, and why no nearer, in a sentence.
        size: ``size(shape, dtype)``, bytes of state of one parameter, where that is no multiple of its own bytes.
    """

    key: str
    name: str
    make: Callable[..., ScratchOptimizer]
    production: Callable[..., torch.optim.Optimizer]
    state_tensors: int
    paper: Paper
    production_scalars: int = 0
    scope: str = "element"
    package: str = "torch"
    agreement: str = "up to rounding"
    size: Callable[[tuple[int, ...], torch.dtype], int] | None = None

    def state_bytes(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int:
        """Bytes of optimizer state for one parameter of this shape and dtype, the step count left out."""
        if self.size is not None:
            return self.size(shape, dtype)
        return self.state_tensors * prod(shape) * dtype.itemsize

    @property
    def state_bytes_per_param(self) -> float:
        """Bytes of state per float32 parameter, in a matrix of 1024 x 4096."""
        return self.state_bytes((1024, 4096)) / (1024 * 4096)


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
_LARS = Paper("Large Batch Training of Convolutional Networks (You et al.)", 2017, "1708.03888")
_LAMB = Paper(
    "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes (You et al.)", 2020, "1904.00962"
)
_ADAFACTOR = Paper(
    "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost (Shazeer & Stern)", 2018, "1804.04235"
)
_CAME = Paper("CAME: Confidence-guided Adaptive Memory Efficient Optimization (Luo et al.)", 2023, "2307.02047")
_LION = Paper("Symbolic Discovery of Optimization Algorithms (Chen et al.)", 2023, "2302.06675")
_SOPHIA = Paper("Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training (Liu et al.)",
                2023, "2305.14342")  # fmt: skip
_EIGHT_BIT = Paper("8-bit Optimizers via Block-wise Quantization (Dettmers et al.)", 2022, "2110.02861")
_STABLE_ADAMW = Paper(
    "Stable and low-precision training for large-scale vision-language models (Wortsman et al.)", 2023, "2304.13013"
)
_ADEMAMIX = Paper("The AdEMAMix Optimizer: Better, Faster, Older (Pagliardini et al.)", 2024, "2409.03137")
_ADAM_MINI = Paper("Adam-mini: Use Fewer Learning Rates To Gain More (Zhang et al.)", 2024, "2406.16793")
_MUON = Paper("Muon: An optimizer for hidden layers in neural networks (Jordan et al.)", 2024)
_SHAMPOO = Paper("Shampoo: Preconditioned Stochastic Tensor Optimization (Gupta et al.)", 2018, "1802.09568")
_SOAP = Paper("SOAP: Improving and Stabilizing Shampoo using Adam (Vyas et al.)", 2024, "2409.11321")
_SCHEDULE_FREE = Paper("The Road Less Scheduled (Defazio et al.)", 2024, "2405.15682")

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
        Entry("lars", "LARS", LARS, counterparts.lars, 1, _LARS, scope="tensor", package="pytorch_optimizer",
              agreement="Up to rounding for matrices, with eps=0; pytorch_optimizer has no eps, and vectors and "
                        "scalars go by plain momentum there."),
        Entry("lamb", "LAMB", LAMB, counterparts.lamb, 2, _LAMB, scope="tensor", package="pytorch_optimizer",
              agreement="Up to rounding without decay, with a tiny eps and weight norms below 10; else derived from "
                        "the paper, as pytorch_optimizer has no bias correction and cuts weight norms at 10."),
        Entry("adafactor", "Adafactor", Adafactor, torch.optim.Adafactor, 0, _ADAFACTOR, 1, scope="tensor",
              size=Adafactor.state_bytes,
              agreement="Up to rounding, in 16 bits too, where torch rounds norms and the course squares."),
        Entry("came", "CAME", CAME, counterparts.came, 1, _CAME, scope="tensor", package="pytorch_optimizer",
              size=CAME.state_bytes,
              agreement="Up to rounding; came_pytorch too, but for 16-bit weights, where it keeps state in float32."),
        Entry("lion", "Lion", Lion, counterparts.lion, 1, _LION, package="pytorch_optimizer",
              agreement="Up to rounding; an element may part by 2 lr where its c rounds to zero or another sign."),
        Entry("sophia", "Sophia", Sophia, counterparts.sophia, 2, _SOPHIA, package="pytorch_optimizer",
              agreement="Up to rounding, given the same estimates; each draws its own otherwise."),
        Entry("adamw8bit", "8-bit AdamW", AdamW8bit, counterparts.adamw8bit, 0, _EIGHT_BIT, scope="block",
              package="bitsandbytes", size=AdamW8bit.state_bytes,
              agreement="Each step from equal state up to rounding, and what is stored up to 1/32768 of a block's "
                        "largest, the grid of bitsandbytes' CPU kernel; running apart for 60 steps, within 1% of the "
                        "way made."),
        Entry("stable_adamw", "StableAdamW", StableAdamW, counterparts.stable_adamw, 2, _STABLE_ADAMW, scope="tensor",
              package="pytorch_optimizer", agreement="Up to rounding; pytorch_optimizer counts steps by group."),
        Entry("ademamix", "AdEMAMix", AdEMAMix, counterparts.ademamix, 3, _ADEMAMIX, package="pytorch_optimizer",
              agreement="Up to rounding; pytorch_optimizer counts steps by group and has one warmup for both."),
        Entry("adam_mini", "Adam-mini", AdamMini, counterparts.adam_mini, 1, _ADAM_MINI, scope="block",
              package="pytorch_optimizer", size=AdamMini.state_bytes,
              agreement="Up to rounding in float32 for matrices and vectors, given the same blocks; "
                        "pytorch_optimizer's own are coarser, and it counts steps by group."),
        Entry("muon", "Muon", Muon, torch.optim.Muon, 1, _MUON, scope="tensor", size=Muon.state_bytes,
              agreement="Bit for bit, but for bfloat16 weights without Nesterov: torch 2.13 spoils their momentum."),
        Entry("shampoo", "Shampoo", Shampoo, counterparts.shampoo, 2, _SHAMPOO, scope="tensor",
              package="pytorch_optimizer", size=Shampoo.state_bytes,
              agreement="Up to rounding for Algorithm 1 (betas=(0, 1), grafting=None, precondition_frequency=1), which "
                        "is all that pytorch_optimizer has."),
        Entry("soap", "SOAP", SOAP, counterparts.soap, 2, _SOAP, scope="tensor", package="pytorch_optimizer",
              size=SOAP.state_bytes,
              agreement="Bit for bit in float32 while every parameter has its gradients; about 1e-7 in float64, of "
                        "which pytorch_optimizer takes the QR in float32; apart where the gradients so far lack rank."),
        Entry("schedule_free", "Schedule-Free AdamW", ScheduleFreeAdamW, counterparts.schedule_free, 2, _SCHEDULE_FREE,
              package="pytorch_optimizer",
              agreement="Up to rounding while v_hat is well over 1e-15, which pytorch_optimizer adds to it; it counts "
                        "steps by group."),
    )
}

# Those of torch.optim that treat each element by itself: what stands in notebooks 01 to 05.
TORCH_KEYS = tuple(key for key, entry in REGISTRY.items() if entry.package == "torch" and entry.scope == "element")
