"""The reference optimizers, one file each, and their registry."""

from course_lib.optim.adadelta import Adadelta
from course_lib.optim.adafactor import Adafactor, factored_moment
from course_lib.optim.adagrad import Adagrad
from course_lib.optim.adam import Adam
from course_lib.optim.adam_mini import AdamMini
from course_lib.optim.adamax import Adamax
from course_lib.optim.adamw import AdamW
from course_lib.optim.adamw8bit import AdamW8bit
from course_lib.optim.ademamix import AdEMAMix
from course_lib.optim.base import ScratchOptimizer
from course_lib.optim.came import CAME
from course_lib.optim.curvature import gauss_newton_bartlett, hutchinson, sample_labels
from course_lib.optim.lamb import LAMB
from course_lib.optim.lars import LARS
from course_lib.optim.lion import Lion
from course_lib.optim.muon import Muon, adjusted_lr, newton_schulz
from course_lib.optim.nadam import NAdam
from course_lib.optim.nesterov import Nesterov
from course_lib.optim.qk_clip import max_attention_logits, qk_clip_
from course_lib.optim.radam import RAdam
from course_lib.optim.registry import REGISTRY, TORCH_KEYS, Entry, Paper
from course_lib.optim.rmsprop import RMSprop
from course_lib.optim.schedule_free import ScheduleFreeAdamW
from course_lib.optim.sgd import SGD
from course_lib.optim.shampoo import Shampoo
from course_lib.optim.soap import SOAP
from course_lib.optim.sophia import Sophia
from course_lib.optim.stable_adamw import StableAdamW

__all__ = [
    "CAME", "LAMB", "LARS", "REGISTRY", "SGD", "SOAP", "TORCH_KEYS", "AdEMAMix", "Adadelta", "Adafactor", "Adagrad",
    "Adam", "AdamMini", "AdamW", "AdamW8bit", "Adamax", "Entry", "Lion", "Muon", "NAdam", "Nesterov", "Paper", "RAdam",
    "RMSprop", "ScheduleFreeAdamW", "ScratchOptimizer", "Shampoo", "Sophia", "StableAdamW", "adjusted_lr",
    "factored_moment", "gauss_newton_bartlett", "hutchinson", "max_attention_logits", "newton_schulz", "qk_clip_",
    "sample_labels",
]
