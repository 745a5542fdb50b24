"""The judges of exercises that ask for a function, by exercise; one module for each notebook."""

from __future__ import annotations

from course_lib.checks.functions import (
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
    sharding,
    small_state,
    stability,
    why_adam,
)
from course_lib.checks.functions.common import Judge

JUDGES: dict[str, Judge] = {
    **gradient_descent.JUDGES,
    **momentum.JUDGES,
    **adaptive_rates.JUDGES,
    **adam.JUDGES,
    **adamw.JUDGES,
    **why_adam.JUDGES,
    **schedules.JUDGES,
    **stability.JUDGES,
    **large_batch.JUDGES,
    **memory.JUDGES,
    **mixed_precision.JUDGES,
    **kernels.JUDGES,
    **small_state.JUDGES,
    **beyond_adam.JUDGES,
    **sharding.JUDGES,
}
