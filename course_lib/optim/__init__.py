"""The reference optimizers, one file each, and their registry."""

from course_lib.optim.adam import Adam
from course_lib.optim.adamw import AdamW
from course_lib.optim.base import ScratchOptimizer
from course_lib.optim.registry import REGISTRY, Entry, Paper
from course_lib.optim.rmsprop import RMSprop
from course_lib.optim.sgd import SGD

__all__ = ["REGISTRY", "SGD", "Adam", "AdamW", "Entry", "Paper", "RMSprop", "ScratchOptimizer"]
