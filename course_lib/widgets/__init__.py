"""Controls that redraw a picture while a learner moves them; where they cannot run, the picture alone."""

from course_lib.widgets.first_steps import explore_first_steps
from course_lib.widgets.loss_scaling import explore_loss_scaling
from course_lib.widgets.memory import explore_memory
from course_lib.widgets.valley import explore_valley

__all__ = ["explore_first_steps", "explore_loss_scaling", "explore_memory", "explore_valley"]
