"""Answers to the exercises that ask for a function, right and wrong, with the code that the wrong ones must earn.

They are written as learners write them, and share nothing with the catalogue of the checks.
"""

from __future__ import annotations

from candidates.functions import adam, adamw, adaptive_rates, gradient_descent, memory, mixed_precision, momentum, sharpness

FUNCTIONS = {
    **gradient_descent.FUNCTIONS,
    **sharpness.FUNCTIONS,
    **momentum.FUNCTIONS,
    **adaptive_rates.FUNCTIONS,
    **adam.FUNCTIONS,
    **adamw.FUNCTIONS,
    **memory.FUNCTIONS,
    **mixed_precision.FUNCTIONS,
}
