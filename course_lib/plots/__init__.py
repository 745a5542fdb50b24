"""Pictures of plain numbers and arrays, in one style, and their display in a notebook."""

from course_lib.plots.charts import bars, lines, lines_grid
from course_lib.plots.collectives import draw_collectives, draw_ring
from course_lib.plots.columns import columns
from course_lib.plots.display import show
from course_lib.plots.roofline import Limits, Point, Roof, regimes, roofline
from course_lib.plots.sharding import draw_states, draw_timeline
from course_lib.plots.stacks import areas, stacked_bars
from course_lib.plots.style import PALETTE, Style, color, styles
from course_lib.plots.traces import trace
from course_lib.plots.trajectories import paths

__all__ = [
    "PALETTE", "Limits", "Point", "Roof", "Style", "areas", "bars", "color", "columns", "draw_collectives",
    "draw_ring", "draw_states", "draw_timeline", "lines", "lines_grid", "paths", "regimes", "roofline", "show",
    "stacked_bars", "styles", "trace",
]
