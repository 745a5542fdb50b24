"""The reference optimizers, one file each, and their registry."""

from course_lib.optim.adadelta import Adadelta
from course_lib.optim.adagrad import Adagrad
from course_lib.optim.adam import Adam
from course_lib.optim.adamax import Adamax
from course_lib.optim.adamw import AdamW
from course_lib.optim.base import ScratchOptimizer
from course_lib.optim.nadam import NAdam
from course_lib.optim.nesterov import Nesterov
from course_lib.optim.radam import RAdam
from course_lib.optim.registry import REGISTRY, Entry, Paper
from course_lib.optim.rmsprop import RMSprop
from course_lib.optim.sgd import SGD

__all__ = [
    "REGISTRY", "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Entry", "NAdam", "Nesterov", "Paper", "RAdam",
    "RMSprop", "ScratchOptimizer",
]
