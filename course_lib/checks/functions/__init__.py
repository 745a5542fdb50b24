"""The judges of exercises that ask for a function, by exercise; one module for each notebook."""

from __future__ import annotations

from course_lib.checks.functions import adam, adamw, adaptive_rates, gradient_descent, memory, mixed_precision, momentum
from course_lib.checks.functions.common import Judge

JUDGES: dict[str, Judge] = {
    **gradient_descent.JUDGES,
    **momentum.JUDGES,
    **adaptive_rates.JUDGES,
    **adam.JUDGES,
    **adamw.JUDGES,
    **memory.JUDGES,
    **mixed_precision.JUDGES,
}
