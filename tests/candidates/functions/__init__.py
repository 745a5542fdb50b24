"""Answers to the exercises that ask for a function or a repair, right and wrong, with the code that the wrong ones must earn.

They are written as learners write them, and share nothing with the catalogue of the checks.
"""

from __future__ import annotations

from candidates.functions import (
    adam,
    adamw,
    adaptive_rates,
    beyond_adam,
    gradient_descent,
    kernels,
    large_batch,
    memory,
    mixed_precision,
    momentum,
    schedules,
    sharding_plans,
    sharpness,
    small_state,
    stability,
    why_adam,
    zero_steps,
)

FUNCTIONS = {
    **gradient_descent.FUNCTIONS,
    **sharpness.FUNCTIONS,
    **momentum.FUNCTIONS,
    **adaptive_rates.FUNCTIONS,
    **adam.FUNCTIONS,
    **adamw.FUNCTIONS,
    **why_adam.FUNCTIONS,
    **schedules.FUNCTIONS,
    **stability.FUNCTIONS,
    **large_batch.FUNCTIONS,
    **memory.FUNCTIONS,
    **mixed_precision.FUNCTIONS,
    **kernels.FUNCTIONS,
    **small_state.FUNCTIONS,
    **beyond_adam.FUNCTIONS,
    **sharding_plans.FUNCTIONS,
    **zero_steps.FUNCTIONS,
}
