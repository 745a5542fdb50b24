"""A gradient shock, and what beta2, epsilon, clipping and StableAdamW's cap make of it, under one's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from course_lib.plots.style import INK, MUTED, PALETTE, REFERENCE, TEXT_PT, color, figure, legend
from course_lib.widgets import panel
from course_lib.widgets.canvas import Canvas, head

if TYPE_CHECKING:
    import ipywidgets

QUIET = 3000  # steps before the shock
SHOWN_BEFORE, SHOWN_AFTER = 20, 200
WEIGHTS = 100
BETA1 = 0.9
KINDS = (("one step", "one step"), ("for good", "for good"))
RATES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
CLIPS = (math.inf, 10.0, 3.0, 1.0)
CAPS = (("off", False), ("on", True))
SEEN = (
    "Two curves on a log axis from 20 steps before the shock to 200 after it: the root mean square of the step over "
    "100 weights, in units of lr, of Adam without guards and of Adam with the guards that are chosen. Gradients are "
    "standard normal for 3,000 steps before the shock."
)


def explore_gradient_shock(
    *, shock: float = 100.0, kind: str = "one step", beta2: float = 0.999, eps: float = 1e-8, clip: float = math.inf,
    cap: bool = False,
) -> None:
    """Show Adam's steps around a gradient shock, with controls that redraw them.

    Gradients of 100 weights are standard normal for 3,000 steps. Then they are ``shock`` times larger, for one step or
    for good.

    Args:
        shock: at first; 1 (none) to 1000.
        kind: "one step" or "for good", at first.
        beta2: at first; 0.8 to 0.9999. beta1 is 0.9.
        eps: at first; 1e-8 to 10, where 1 is the usual size of a gradient.
        clip: at first; the largest norm that is let through, in units of the usual norm: infinity (no clipping), 10, 3
            or 1.
        cap: whether the step is divided by max(1, RMS) as StableAdamW does, at first.

    Raises:
        ValueError: a value is out of range.
    """
    values = {"shock": shock, "kind": kind, "beta2": beta2, "eps": eps, "clip": clip, "cap": cap}
    for name, low, high in (("shock", 1, 1000), ("beta2", 0.8, 0.9999), ("eps", 1e-8, 10)):
        if not low <= values[name] <= high:
            raise ValueError(f"Invalid {name}: {values[name]!r}. Allowed: {low:g} <= {name} <= {high:g}.")
    if kind not in ("one step", "for good"):
        raise ValueError(f"Invalid kind: {kind!r}. Allowed: 'one step' or 'for good'.")
    if clip not in CLIPS:
        raise ValueError(f"Invalid clip: {clip!r}. Allowed: math.inf, 10, 3 or 1, in units of the usual norm.")
    if not isinstance(cap, bool):
        raise ValueError(f"Invalid cap: {cap!r}. Allowed: True or False.")
    picture = _Picture()
    panel.show(picture.canvas, picture.draw, values, lambda: _controls(values), SEEN)


def _controls(values: Mapping[str, Any]) -> dict[str, ipywidgets.ValueWidget]:
    from course_lib.widgets import controls as make

    return {
        "shock": make.log_slider("size of the shock", [values["shock"]], 0, 3),
        "kind": make.choice("it lasts", KINDS, values["kind"]),
        "beta2": make.slider("beta2", RATES, values["beta2"], str),
        "eps": make.log_slider("epsilon", [values["eps"]], -8, 1),
        "clip": make.choice("clip at", [(_clip_text(clip), clip) for clip in CLIPS], values["clip"]),
        "cap": make.choice("StableAdamW's cap", CAPS, values["cap"]),
    }


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """Standard normal gradients (steps, weights), the same for all pictures; read-only."""
    noise = np.random.default_rng(0).standard_normal((QUIET + SHOWN_AFTER, WEIGHTS))
    noise.flags.writeable = False
    return noise


def adam_steps(shock: float, kind: str, beta2: float, eps: float, clip: float, cap: bool) -> np.ndarray:
    """Root mean square of the steps, in units of lr, float64 (220,), from 20 steps before the shock on.

    Source: Kingma & Ba 2015 (1412.6980), Algorithm 1; the cap is Wortsman et al. 2023 (2304.13013), Algorithm 2.

    Args:
        shock, kind, beta2, eps, clip, cap: as for :func:`explore_gradient_shock`.
    """
    gradients = _noise()
    most = clip * math.sqrt(WEIGHTS)  # the usual norm is that of 100 standard normal numbers
    m, v, steps = np.zeros(WEIGHTS), np.zeros(WEIGHTS), np.empty(QUIET + SHOWN_AFTER)
    for t, g in enumerate(gradients, start=1):
        if t == QUIET + 1 or (t > QUIET and kind == "for good"):
            g = shock * g
        norm = math.sqrt(g @ g)
        if norm > most:
            g = g * (most / norm)
        m = BETA1 * m + (1 - BETA1) * g
        v = beta2 * v + (1 - beta2) * g * g
        v_hat = v / (1 - beta2**t)
        step = m / (1 - BETA1**t) / (np.sqrt(v_hat) + eps)
        length = math.sqrt(step @ step / WEIGHTS)
        if cap:
            length /= max(1.0, math.sqrt(np.mean(g * g / np.maximum(v_hat, eps**2))))
        steps[t - 1] = length
    return steps[QUIET - SHOWN_BEFORE :]


def finding(steps: np.ndarray) -> str:
    """What happened, in a sentence that fits above a picture."""
    before, after = steps[:SHOWN_BEFORE].mean(), steps[SHOWN_BEFORE:]
    return (f"Before the shock {panel.number(before)} lr; then at most {panel.number(after.max())}, "
            f"at least {panel.number(after.min())}, and {panel.number(after[-20:].mean())} at the end.")


def _clip_text(clip: float) -> str:
    return "no clipping" if math.isinf(clip) else f"{clip:g} times the usual norm"


class _Picture:
    """The figure, and how it follows the values."""

    def __init__(self) -> None:
        fig, (self.ax,) = figure((8.0, 3.9))
        self.title, self.settings = head(fig)
        t = np.arange(-SHOWN_BEFORE, SHOWN_AFTER)
        self.bare, = self.ax.plot(t, np.ones(len(t)), color=PALETTE["blue"], linewidth=1.9, linestyle=(0, (5, 1.5)),
                                  label="betas (0.9, 0.999), eps 1e-8, no guard")
        self.guarded, = self.ax.plot(t, np.ones(len(t)), color=color("adam"), linewidth=2.2, label="as chosen")
        self.ax.axhline(1, **REFERENCE)
        self.shock = self.ax.axvline(0, color=MUTED, linewidth=1.1, label="shock")
        self.ax.set(yscale="log", xlim=(-SHOWN_BEFORE, SHOWN_AFTER), ylim=(1e-3, 20))
        self.ax.set_xlabel("steps after the shock", fontsize=TEXT_PT, color=INK)
        self.ax.set_ylabel("RMS step (units of lr)", fontsize=TEXT_PT, color=INK)
        legend(self.ax, [self.guarded, self.bare, self.shock], 8.0)
        self.canvas = Canvas(fig, (self.title, self.settings, self.shock, self.bare, self.guarded))

    def draw(self, values: Mapping[str, Any]) -> tuple[bytes, str]:
        """The picture of the values, and its finding with the values that led there."""
        steps = adam_steps(**values)
        found = finding(steps)
        settings = (f"shock x{panel.number(values['shock'])}, {values['kind']}, beta2 {values['beta2']:g}, "
                    f"eps {panel.number(values['eps'])}, clip: {_clip_text(values['clip'])}, "
                    f"cap {'on' if values['cap'] else 'off'}")
        self.title.set_text(found)
        self.settings.set_text(settings)
        self.guarded.set_ydata(steps)
        self.bare.set_ydata(adam_steps(values["shock"], values["kind"], 0.999, 1e-8, math.inf, False))
        return self.canvas.picture(), f"{found} With {settings}."
