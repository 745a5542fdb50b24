"""The path of an optimizer down a quadratic valley, under one's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.ticker import NullLocator

from course_lib.optim import REGISTRY
from course_lib.plots.style import INK, LEGEND, MUTED, PALETTE, REFERENCE, SMALL_PT, TEXT_PT, Style, figure, styles
from course_lib.plots.trajectories import draw_contours, visible
from course_lib.problems.valleys import quadratic
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

NEAR = 0.01  # of the distance at the start: there the minimum counts as reached
# What can be set in each optimizer beside lr, and how it is called there.
KNOBS: dict[str, tuple[str, ...]] = {
    "sgd": (), "momentum": ("momentum",), "nesterov": ("momentum",), "adagrad": (), "rmsprop": ("alpha",),
    "adadelta": ("rho",), **dict.fromkeys(("adam", "amsgrad", "adamw", "adamax", "nadam", "radam"), ("beta1", "beta2")),
}
LR = dict.fromkeys(("sgd", "momentum", "nesterov"), 0.01) | {"adagrad": 1.0, "adadelta": 100.0, "radam": 0.01}
LR_ELSE = 0.3
SQUARES = {"alpha": 0.99, "rho": 0.9}  # torch's defaults

GRID_POINTS = 125  # for contours that are drawn anew while a slider moves
FARTHEST = 1e3  # distance up to which the right-hand picture reaches
SEEN = (
    "Left, the path over the contours of the valley, from (-10, 1) towards the minimum at the origin; right, the "
    "distance to the minimum after each step, on a log axis."
)


def explore_valley(
    optimizers: Sequence[str],
    *,
    lr: float | Mapping[str, float] | None = None,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    condition: float = 100.0,
    steps: int = 60,
) -> None:
    """Show the path of an optimizer down f(x, y) = (x^2 + condition y^2) / 2, with controls that redraw it.

    Each optimizer keeps its own learning rate while one goes from one to another.

    Args:
        optimizers: keys of ``course_lib.optim.REGISTRY``; the first is shown at first.
        lr: the learning rate at first, of all or by key; by default one that suits each.
        momentum: at first, of optimizers that have it; in [0, 1).
        betas: at first, of the Adam family; each in [0, 1).
        condition: the condition number at first, 1 to 1000.
        steps: how many are taken, 2 to 200.

    Raises:
        ValueError: a key that is unknown or has no knobs here, or a value out of range.
    """
    rates = _rates(optimizers, lr)
    for name, value in (("momentum", momentum), ("betas", betas[0]), ("betas", betas[1])):
        if not 0 <= value < 1:
            raise ValueError(f"Invalid {name}: {value!r}. Allowed: 0 <= {name} < 1.")
    if not 1 <= condition <= 1000:
        raise ValueError(f"Invalid condition: {condition!r}. Allowed: 1 <= condition <= 1000.")
    if not 2 <= steps <= 200:
        raise ValueError(f"Invalid steps: {steps!r}. Allowed: 2 <= steps <= 200.")
    first = optimizers[0]
    values = {"optimizer": first, "lr": rates[first], "momentum": momentum, "beta1": betas[0], "beta2": betas[1],
              **SQUARES, "condition": condition}
    picture = _Picture(values, steps)
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values, rates), SEEN)


def _rates(optimizers: Sequence[str], lr: float | Mapping[str, float] | None) -> dict[str, float]:
    """The learning rate of each optimizer at first."""
    known = [key for key in REGISTRY if key in KNOBS]
    unknown = [key for key in optimizers if key not in known]
    if isinstance(optimizers, str) or not optimizers or unknown:
        raise ValueError(f"Invalid optimizers: {optimizers!r}. Allowed: a list with one or more of {', '.join(known)}.")
    if isinstance(lr, Mapping) and (idle := [key for key in lr if key not in optimizers]):
        raise ValueError(f"Invalid lr: no optimizer {idle[0]!r} to use it. Allowed: one of {', '.join(optimizers)}.")
    chosen = lr if isinstance(lr, Mapping) else {} if lr is None else dict.fromkeys(optimizers, lr)
    rates = {key: chosen.get(key, LR.get(key, LR_ELSE)) for key in optimizers}
    for key, rate in rates.items():
        if not 0 < rate < math.inf:
            raise ValueError(f"Invalid lr: {rate!r} for {key!r}. Allowed: a finite number greater than 0.")
    return rates


def _controls(values: Mapping[str, Any], rates: dict[str, float]) -> dict[str, ipywidgets.ValueWidget]:
    """The controls by the names in ``values``; which of them are shown follows the optimizer."""
    from course_lib.widgets import controls as make

    decades = [math.log10(rate) for rate in rates.values()]
    low, high = min(-4, math.floor(min(decades))), max(1, math.ceil(max(decades)))
    controls: dict[str, ipywidgets.ValueWidget] = {
        "optimizer": make.choice("optimizer", [(REGISTRY[key].name, key) for key in rates]),
        "lr": make.log_slider("learning rate", list(rates.values()), low, high),
    }
    knobs = list(dict.fromkeys(knob for key in rates for knob in KNOBS[key]))
    controls |= {knob: make.rate_slider(knob, values[knob]) for knob in knobs}
    controls["condition"] = make.log_slider("condition number", [values["condition"]], 0, 3)
    optimizer, lr = controls["optimizer"], controls["lr"]

    def choose(change: Mapping[str, Any]) -> None:
        for knob in knobs:
            make.show_or_hide(controls[knob], knob in KNOBS[optimizer.value])
        lr.value = rates[optimizer.value]

    def remember(change: Mapping[str, Any]) -> None:
        rates[optimizer.value] = lr.value

    optimizer.observe(choose, "value")
    lr.observe(remember, "value")
    choose({})
    return controls


def trajectory(values: Mapping[str, Any], steps: int) -> np.ndarray:
    """The points (steps + 1, 2) that the optimizer visits, through infinities and NaN if it must."""
    key, valley = values["optimizer"], quadratic(values["condition"])
    hyper = {knob: values[knob] for knob in KNOBS[key]}
    if "beta1" in hyper:
        hyper["betas"] = (hyper.pop("beta1"), hyper.pop("beta2"))
    if hyper.get("momentum") == 0:
        key, hyper = "sgd", {}  # the same steps, and Nesterov's momentum must be positive
    point, curvatures = torch.tensor([valley.start, (1.0, values["condition"])], dtype=torch.float64)
    optimizer = REGISTRY[key].make([point], lr=values["lr"], **hyper)
    path = np.empty((steps + 1, 2))
    path[0] = valley.start
    for step in range(1, steps + 1):
        point.grad = curvatures * point  # known here, at a fraction of autograd's time
        optimizer.step()
        path[step] = point
    return path


def distances(path: np.ndarray) -> np.ndarray:
    """How far each point (T, 2) is from the origin; infinite where a coordinate is no number any more."""
    return np.nan_to_num(np.hypot(*path.T), nan=np.inf, posinf=np.inf)


def finding(name: str, path: np.ndarray) -> str:
    """What became of a path (T, 2) towards the origin, in a sentence that fits above a picture."""
    distance = distances(path)
    steps = len(path) - 1
    away = np.flatnonzero(distance <= distance[0])[-1] + 1
    if away <= steps and distance[len(path) // 2 :].max() >= distance[: len(path) // 2].max():
        return f"{name} diverges: from step {away} on it is farther away than at the start."
    if away <= steps:
        return f"{name} overshoots: from step {away} on it is farther away than at the start."
    if distance[-1] <= NEAR * distance[0]:
        near = np.flatnonzero(distance > NEAR * distance[0])[-1] + 1
        return f"{name} reaches the minimum: within {NEAR:.0%} from step {near} on."
    left = 100 * distance[-1] / distance[0]
    return f"{name}: {left:.{0 if left >= 10 else 1}f}% of the distance is left after {steps} steps."


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self, values: Mapping[str, Any], steps: int) -> None:
        self.steps = steps
        fig, (self.left, right) = figure((8.0, 3.9), 1, 2)
        valley = quadratic(values["condition"])
        self.low, self.high = np.array(valley.bounds).T
        self._contours(values["condition"])
        self.title, self.settings = head(fig)
        self.path, = self.left.plot([], [], linewidth=1.7, markersize=4, zorder=4)
        start, = self.left.plot(*valley.start, "o", color="white", markeredgecolor="black", markeredgewidth=1.6,
                                markersize=9, zorder=5, label="start")
        minimum, = self.left.plot(*valley.minimum, "*", color=PALETTE["yellow"], markeredgecolor="black",
                                  markersize=15, zorder=5, label="minimum")
        mark = dict(linestyle="", marker="X", color="black", markersize=11, markeredgecolor="white", zorder=6,
                    clip_on=False, in_layout=False)
        self.leaves, = self.left.plot([], [], **mark, label="leaves the picture")
        self.left.legend(handles=[start, minimum, self.leaves], loc="lower left", bbox_to_anchor=(-0.04, 1), ncols=3,
                         **LEGEND | dict(handlelength=1.2, columnspacing=1.0, handletextpad=0.3, borderpad=0))
        near = NEAR * math.hypot(*valley.start)
        right.axhline(near, **REFERENCE)
        right.annotate(f"{NEAR:.0%} of the start", (0, near), (3, -3), textcoords="offset points", va="top",
                       color=MUTED, fontsize=SMALL_PT)
        right.set(yscale="log", xlim=(0, steps), ylim=(1e-4, FARTHEST))
        right.yaxis.set_minor_locator(NullLocator())
        right.set_xlabel("step", fontsize=TEXT_PT, color=INK)
        right.set_ylabel("distance to the minimum", fontsize=TEXT_PT, color=INK)
        self.distance, = right.plot([], [], linewidth=1.9)
        self.beyond, = right.plot([], [], **mark)
        for contours in list(self.left.collections):
            contours.remove()
        moving = (self.title, self.settings, self.path, self.distance, start, minimum, self.leaves, self.beyond)
        self.canvas = Canvas(fig, moving)

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        key, condition = values["optimizer"], values["condition"]
        path = trajectory(values, self.steps)
        found = finding(REGISTRY[key].name, path)
        shown = [("lr", values["lr"]), *((knob, values[knob]) for knob in KNOBS[key]), ("condition number", condition)]
        settings = ", ".join(f"{name} {panel.number(value)}" for name, value in shown)
        self.title.set_text(found)
        self.settings.set_text(settings)
        self._follow(path, styles([key])[key])
        return self.canvas.picture(condition, lambda: self._contours(condition)), f"{found} With {settings}."

    def _follow(self, path: np.ndarray, look: Style) -> None:
        """Bring path and distances into the figure, with a mark where they leave it for good."""
        inside, edge = visible(path, self.low, self.high)
        drawn = inside if edge is None else np.vstack([inside, edge])
        self.path.set(data=drawn.T, color=look.color, marker=look.marker, markevery=slice(len(inside)))
        self.leaves.set_data(drawn[-1:].T if len(inside) < len(path) else ([], []))
        distance = np.clip(distances(path), 1e-30, 1e30)
        self.distance.set(data=(np.arange(len(path)), distance), color=look.color)
        self.beyond.set_data([], [])
        if distance[-1] > FARTHEST:
            last = np.flatnonzero(distance <= FARTHEST)[-1]
            share = math.log(FARTHEST / distance[last]) / math.log(distance[last + 1] / distance[last])
            self.beyond.set_data([last + share], [FARTHEST])

    def _contours(self, condition: float) -> list[Artist]:
        """Draw the contours of another valley; return them and what is to lie above them."""
        for old in list(self.left.collections):
            old.remove()
        draw_contours(self.left, quadratic(condition), GRID_POINTS)
        return [*self.left.collections, self.left.spines["left"], self.left.spines["bottom"]]
