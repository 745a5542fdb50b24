"""The judges of notebook 08's exercises: a clip, a step by tokens, an average of a log, a penalty on the logits' level."""

from __future__ import annotations

from course_lib.checks.functions.clip_by_global_norm import judge_clip_by_global_norm
from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.ema_corrected import EMA_CORRECTED
from course_lib.checks.functions.token_mean_step import judge_token_mean_step
from course_lib.checks.functions.z_loss import Z_LOSS

JUDGES: dict[str, Judge] = {
    "clip_by_global_norm": judge_clip_by_global_norm,
    "token_mean_step": judge_token_mean_step,
    "ema_corrected": EMA_CORRECTED,
    "z_loss": Z_LOSS,
}
