"""The judges of notebook 12's exercises: bytes, layouts and regimes, and kernels on the stub of Triton."""

from __future__ import annotations

from course_lib.checks.functions.adamw_kernel import judge_adamw_kernel
from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.momentum_kernel_bug import judge_momentum_kernel_bug
from course_lib.checks.functions.pack import PACK
from course_lib.checks.functions.regime import judge_regime
from course_lib.checks.functions.step_bytes import STEP_BYTES

JUDGES: dict[str, Judge] = {
    "step_bytes": STEP_BYTES,
    "pack": PACK,
    "adamw_kernel": judge_adamw_kernel,
    "momentum_kernel_bug": judge_momentum_kernel_bug,
    "regime": judge_regime,
}
