"""The judges of notebook 10's exercises: model states, ZeRO's stages, activations of a block."""

from __future__ import annotations

from course_lib.checks.functions.block_activations import ACTIVATIONS
from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.model_states import MODEL_STATES
from course_lib.checks.functions.zero_stages import ZERO

JUDGES: dict[str, Judge] = {
    "model_state_gb": MODEL_STATES,
    "zero_bytes": ZERO,
    "activation_bytes": ACTIVATIONS,
}
