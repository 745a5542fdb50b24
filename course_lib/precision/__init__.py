"""Numbers in fewer bits: formats, loss scaling, rounding, master weights, 8-bit blocks."""

from course_lib.precision.blockwise import dequantise, dynamic_map, linear_map, quantise, relative_error
from course_lib.precision.formats import FORMATS, Format, Parts, neighbours, round_to, take_apart
from course_lib.precision.master import MasterWeights
from course_lib.precision.rounding import kahan_add_, stochastic_round
from course_lib.precision.scaler import GradScaler, ScaleBottomedOut

__all__ = [
    "FORMATS", "Format", "GradScaler", "MasterWeights", "Parts", "ScaleBottomedOut", "dequantise", "dynamic_map",
    "kahan_add_", "linear_map", "neighbours", "quantise", "relative_error", "round_to", "stochastic_round", "take_apart",
]
