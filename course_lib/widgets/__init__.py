"""Controls that redraw a picture while a learner moves them; where they cannot run, the picture alone."""

from course_lib.widgets.batch import explore_batch_size
from course_lib.widgets.first_steps import explore_first_steps
from course_lib.widgets.gradient_shock import explore_gradient_shock
from course_lib.widgets.interview import interview
from course_lib.widgets.loss_scaling import explore_loss_scaling
from course_lib.widgets.memory import explore_memory
from course_lib.widgets.newton_schulz import explore_newton_schulz
from course_lib.widgets.quiz import quiz
from course_lib.widgets.rare_tokens import explore_rare_tokens
from course_lib.widgets.schedule import explore_schedule
from course_lib.widgets.sharding import explore_sharding
from course_lib.widgets.small_state import explore_small_state
from course_lib.widgets.step_time import explore_step_time
from course_lib.widgets.trial import guess, scorecard, trial
from course_lib.widgets.valley import explore_valley

__all__ = [
    "explore_batch_size",
    "explore_first_steps",
    "explore_gradient_shock",
    "explore_loss_scaling",
    "explore_memory",
    "explore_newton_schulz",
    "explore_rare_tokens",
    "explore_schedule",
    "explore_sharding",
    "explore_small_state",
    "explore_step_time",
    "explore_valley",
    "guess",
    "interview",
    "quiz",
    "scorecard",
    "trial",
]
