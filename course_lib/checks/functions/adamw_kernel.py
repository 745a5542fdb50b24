"""The exercise `adamw_kernel`: the body of a fused AdamW kernel, run on the stub of Triton.

Where p, m and v go is judged by `Walked`, beside AdamW in NumPy; the stub's record tells which elements each program
reads and writes, and how often. Runs are exact, so that no rounding hides a mistake; one is in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped
from course_lib.checks.functions.common import Edge, Known, Parts, Progress, guarded
from course_lib.checks.functions.on_ranks import judged
from course_lib.checks.functions.on_stub import Walked, about_blocks, elements, outside, race, sorted_out
from course_lib.checks.report import OTHER_SPECIFICATION, Finding
from course_lib.kernels import stub

Array = np.ndarray
Path = tuple[Array, Array, Array]  # p, m and v after each step, of shape (steps, n)

READ, WRITTEN = ("p", "g", "m", "v"), ("p", "m", "v")
_IN_FLOAT32 = 1e-4  # of the largest number: half precision is further off


@dataclass(frozen=True, eq=False)
class Setting:
    """A walk of ``steps`` steps over ``n`` elements, from random numbers of ``seed``."""

    n: int
    block: int
    seed: int
    steps: int = 4
    lr: float = 0.1
    beta1: float = 0.8
    beta2: float = 0.95
    eps: float = 0.05
    weight_decay: float = 0.3
    exact: bool = True

    def __str__(self) -> str:
        return f"{self.n} element{'s' * (self.n > 1)} in blocks of {self.block}"

    def draw(self) -> tuple[Array, Array]:
        """The parameters before the first step, and the gradients of all steps."""
        rng = np.random.default_rng(self.seed)
        return rng.normal(size=self.n), rng.normal(size=(self.steps, self.n))

    def scalars(self, t: int) -> tuple[float, ...]:
        """What the kernel is given in step ``t`` between n and BLOCK."""
        hyper = (self.lr, self.beta1, self.beta2, self.eps, self.weight_decay)
        return (*hyper, 1 - self.beta1**t, 1 - self.beta2**t)


Part = Callable[[SimpleNamespace], Any]


def _first(u: SimpleNamespace) -> Array:
    return u.beta1 * u.m + (1 - u.beta1) * u.g


def _second(u: SimpleNamespace) -> Array:
    return u.beta2 * u.v + (1 - u.beta2) * u.g**2


def _move(u: SimpleNamespace) -> Array:
    """What AdamW takes off the decayed parameter, over lr."""
    return (u.new_m / u.c1) / (np.sqrt(u.new_v / u.c2) + u.eps)


def _step(u: SimpleNamespace) -> Array:
    return u.p - u.lr * u.weight_decay * u.p - u.lr * u.move


def _walk(
    gradient: Part = lambda u: u.g,
    first: Part = _first,
    second: Part = _second,
    move: Part = _move,
    step: Part = _step,
    stored: Part = lambda u: (u.new, u.new_m, u.new_v),
) -> Callable[[Setting], Path]:
    def run(setting: Setting) -> Path:
        p, gradients = setting.draw()
        m, v, path = np.zeros_like(p), np.zeros_like(p), []
        names = ("lr", "beta1", "beta2", "eps", "weight_decay", "c1", "c2")
        for t, g in enumerate(gradients, 1):
            u = SimpleNamespace(p=p, g=g, m=m, v=v, **dict(zip(names, setting.scalars(t), strict=True)))
            u.g = gradient(u)
            u.new_m = first(u)
            u.new_v = second(u)
            u.move = move(u)
            u.new = step(u)
            p, m, v = stored(u)
            path.append((p, m, v))
        return tuple(np.stack(part) for part in zip(*path, strict=True))  # type: ignore[return-value]

    return run


def _claims(wrong: Callable[[Setting], Path]) -> Callable[[Setting], tuple[Array | None, ...]]:
    """What a mistake leaves right is not claimed."""
    return lambda setting: tuple(
        None if np.array_equal(a, b) else a for a, b in zip(wrong(setting), _right(setting), strict=True)
    )


def _known(code: str, what: str, hint: str, kind: str = "", **changed: Part) -> Known:
    return Known(code, what, hint, _claims(_walk(**changed)), *([kind] if kind else []))


_right = _walk()
_EPS = "The exercise's formula: the root of v / correction2, and then eps."
_CORRECTED = "Each moment is divided by its own correction, which the kernel is given ready: 1 - beta**t."
_DECAY = "lr * weight_decay of the old p is taken off p itself: AdamW's decay stays out of m and v."
_MOMENT = "beta of the old moment, and 1 - beta of the new gradient, or of its square."
_ORDER = "First the new m and v, then the step with them. All four are in registers: nothing is read again."
_STORED = "What is stored is what the next step reads: the new m and v without correction."
_SIGN = "p goes down the gradient."
MISTAKES = (
    _known("eps-inside-root", "an eps inside the root", _EPS,
           move=lambda u: (u.new_m / u.c1) / np.sqrt(u.new_v / u.c2 + u.eps)),
    _known("eps-before-correction", "an eps that is added before v is corrected, as in TensorFlow", _EPS,
           OTHER_SPECIFICATION, move=lambda u: (u.new_m / u.c1) * np.sqrt(u.c2) / (np.sqrt(u.new_v) + u.eps)),
    _known("eps-missing", "no eps", _EPS, move=lambda u: (u.new_m / u.c1) / np.sqrt(u.new_v / u.c2)),
    _known("eps-outside", "an eps that is added to the fraction, not to the root", _EPS,
           move=lambda u: (u.new_m / u.c1) / np.sqrt(u.new_v / u.c2) + u.eps),
    _known("root-missing", "no root of v", _EPS, move=lambda u: (u.new_m / u.c1) / (u.new_v / u.c2 + u.eps)),
    _known("m-not-corrected", "an m that is not corrected", _CORRECTED,
           move=lambda u: u.new_m / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("v-not-corrected", "a v that is not corrected", _CORRECTED,
           move=lambda u: (u.new_m / u.c1) / (np.sqrt(u.new_v) + u.eps)),
    _known("not-corrected", "m and v that are not corrected", _CORRECTED,
           move=lambda u: u.new_m / (np.sqrt(u.new_v) + u.eps)),
    _known("corrections-multiplied", "corrections that are multiplied with", _CORRECTED,
           move=lambda u: u.new_m * u.c1 / (np.sqrt(u.new_v * u.c2) + u.eps)),
    _known("corrections-exchanged", "the two corrections exchanged", _CORRECTED,
           move=lambda u: (u.new_m / u.c2) / (np.sqrt(u.new_v / u.c1) + u.eps)),
    _known("correction-outside-root", "a root of v that is divided by the correction itself, not by its root",
           _CORRECTED, move=lambda u: (u.new_m / u.c1) / (np.sqrt(u.new_v) / u.c2 + u.eps)),
    _known("corrected-again", "corrections that are taken for beta**t: one minus them is divided by", _CORRECTED,
           move=lambda u: (u.new_m / (1 - u.c1)) / (np.sqrt(u.new_v / (1 - u.c2)) + u.eps)),
    _known("m-corrected-again", "an m that is divided by one minus its correction, which is beta1**t", _CORRECTED,
           move=lambda u: (u.new_m / (1 - u.c1)) / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("v-corrected-again", "a v that is divided by one minus its correction, which is beta2**t", _CORRECTED,
           move=lambda u: (u.new_m / u.c1) / (np.sqrt(u.new_v / (1 - u.c2)) + u.eps)),
    _known("corrected-by-beta", "corrections of 1 - beta, the same at every step", _CORRECTED,
           move=lambda u: (u.new_m / (1 - u.beta1)) / (np.sqrt(u.new_v / (1 - u.beta2)) + u.eps)),
    _known("m-corrected-by-beta", "an m that is divided by 1 - beta1, the same at every step", _CORRECTED,
           move=lambda u: (u.new_m / (1 - u.beta1)) / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("v-corrected-by-beta", "a v that is divided by 1 - beta2, the same at every step", _CORRECTED,
           move=lambda u: (u.new_m / u.c1) / (np.sqrt(u.new_v / (1 - u.beta2)) + u.eps)),
    _known("corrected-in-root", "an m that is divided by the root of its correction", _CORRECTED,
           move=lambda u: (u.new_m / np.sqrt(u.c1)) / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("decay-in-gradient", "a decay that is added to the gradient, as in Adam", _DECAY,
           gradient=lambda u: u.g + u.weight_decay * u.p, step=lambda u: u.p - u.lr * u.move),
    _known("decay-in-gradient-too", "a decay that is added to the gradient and taken off p besides", _DECAY,
           gradient=lambda u: u.g + u.weight_decay * u.p),
    _known("decay-missing", "no weight decay", _DECAY, step=lambda u: u.p - u.lr * u.move),
    _known("decay-of-gradient", "a decay that takes the gradient in the place of p", _DECAY,
           step=lambda u: u.p - u.lr * u.weight_decay * u.g - u.lr * u.move),
    _known("decay-after", "a decay of the new p, after the step", "The old p decays, then comes the step.",
           step=lambda u: (1 - u.lr * u.weight_decay) * (u.p - u.lr * u.move)),
    _known("decay-without-lr", "a decay without the learning rate", _DECAY,
           step=lambda u: u.p - u.weight_decay * u.p - u.lr * u.move),
    _known("decay-sign", "a decay that makes p larger", _DECAY,
           step=lambda u: u.p + u.lr * u.weight_decay * u.p - u.lr * u.move),
    _known("decay-lr-squared", "a decay inside what is multiplied by lr, with a second lr", _DECAY,
           step=lambda u: u.p - u.lr * (u.move + u.lr * u.weight_decay * u.p)),
    _known("decay-divided", "a decay that is divided by the root of v as well", _DECAY,
           step=lambda u: u.p - u.lr * (u.new_m / u.c1 + u.weight_decay * u.p) / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("old-m", "the m of before", _ORDER, move=lambda u: (u.m / u.c1) / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("old-v", "the v of before", _ORDER, move=lambda u: (u.new_m / u.c1) / (np.sqrt(u.v / u.c2) + u.eps)),
    _known("old-moments", "the m and v of before", _ORDER,
           move=lambda u: (u.m / u.c1) / (np.sqrt(u.v / u.c2) + u.eps)),
    _known("gradient-for-m", "the gradient in the place of m", _ORDER,
           move=lambda u: u.g / (np.sqrt(u.new_v / u.c2) + u.eps)),
    _known("gradient-for-v", "the gradient's size in the place of the root of v", _ORDER,
           move=lambda u: (u.new_m / u.c1) / (np.abs(u.g) + u.eps)),
    _known("m-never-loaded", "an m that starts at zero in every step", _MOMENT, first=lambda u: (1 - u.beta1) * u.g),
    _known("v-never-loaded", "a v that starts at zero in every step", _MOMENT,
           second=lambda u: (1 - u.beta2) * u.g**2),
    _known("v-not-squared", "a v of gradients that are not squared", _MOMENT,
           second=lambda u: u.beta2 * u.v + (1 - u.beta2) * u.g),
    _known("v-of-m", "a v of squares of the new m", _MOMENT,
           second=lambda u: u.beta2 * u.v + (1 - u.beta2) * u.new_m**2),
    _known("beta2-squared", "a v in which 1 - beta2 is squared along with the gradient", _MOMENT,
           second=lambda u: u.beta2 * u.v + ((1 - u.beta2) * u.g) ** 2),
    _known("betas-exchanged", "beta1 and beta2 exchanged", _MOMENT,
           first=lambda u: u.beta2 * u.m + (1 - u.beta2) * u.g,
           second=lambda u: u.beta1 * u.v + (1 - u.beta1) * u.g**2),
    _known("beta1-twice", "beta1 in v as well", _MOMENT,
           second=lambda u: u.beta1 * u.v + (1 - u.beta1) * u.g**2),
    _known("beta2-twice", "beta2 in m as well", _MOMENT, first=lambda u: u.beta2 * u.m + (1 - u.beta2) * u.g),
    _known("weights-exchanged", "beta of the new and 1 - beta of the old", _MOMENT,
           first=lambda u: (1 - u.beta1) * u.m + u.beta1 * u.g,
           second=lambda u: (1 - u.beta2) * u.v + u.beta2 * u.g**2),
    _known("m-not-averaged", "a whole gradient that is added to m", _MOMENT, first=lambda u: u.beta1 * u.m + u.g),
    _known("v-not-averaged", "a whole square that is added to v", _MOMENT,
           second=lambda u: u.beta2 * u.v + u.g**2),
    _known("m-hat-stored", "an m that is stored corrected", _STORED,
           stored=lambda u: (u.new, u.new_m / u.c1, u.new_v)),
    _known("v-hat-stored", "a v that is stored corrected", _STORED,
           stored=lambda u: (u.new, u.new_m, u.new_v / u.c2)),
    _known("hats-stored", "m and v that are stored corrected", _STORED,
           stored=lambda u: (u.new, u.new_m / u.c1, u.new_v / u.c2)),
    _known("moments-crossed", "m and v that are stored in each other's place", _STORED,
           stored=lambda u: (u.new, u.new_v, u.new_m)),
    _known("gradient-stored", "gradients that are stored as m", _STORED, stored=lambda u: (u.new, u.g, u.new_v)),
    _known("move-stored", "a step that is stored in the place of the new p", "p less the step is the new p.",
           step=lambda u: -u.lr * u.move),
    _known("ascent", "steps up the gradient", _SIGN,
           step=lambda u: u.p - u.lr * u.weight_decay * u.p + u.lr * u.move),
    _known("lr-missing", "steps without the learning rate", "Both the decay and the step are multiplied by lr.",
           step=lambda u: u.p - u.lr * u.weight_decay * u.p - u.move),
    _known("lr-twice", "steps that are multiplied by lr twice", "Both the decay and the step are multiplied by lr.",
           step=lambda u: u.p - u.lr * u.weight_decay * u.p - u.lr * u.lr * u.move),
)  # fmt: skip


def _case(n: int, block: int, seed: int, **others: Any) -> dict[str, Any]:
    return {"setting": Setting(n, block, seed, **others)}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Blocks of which the last one has several elements, as the first one has."""
    block = int(2 ** rng.integers(2, 6))
    return [_case(int(rng.integers(4) * block + rng.integers(3, block + 1)), block, int(rng.integers(10**6)))]


def _rounded(case: dict[str, Any], got: Parts, want: Parts) -> Finding | None:
    """With float32 arrays and arguments: only what is further off than float32 rounds is told."""
    for name, mine, right in zip(WRITTEN, got, want, strict=True):
        apart = np.abs(mine - right).max() / np.abs(right).max()
        if not apart < _IN_FLOAT32:
            what = (
                f"With float32 arrays `{name}` is off by {apart:.1g} of its size, with float64 ones it is right: "
                "something on the way has fewer bits than a float32."
            )
            return Finding("half-precision", what, "Compute in float32. Where does your kernel call `.to`?")
        mine[:] = right
    return None


KERNEL = Walked(
    _right,
    [
        _case(3 * 16 - 5, 16, 1),
        _case(37, 16, 2, eps=0.3, beta1=0.6),
        _case(16, 16, 3, lr=0.03, weight_decay=0.9),
        _case(1, 16, 4),
        _case(64, 8, 5, beta2=0.7),
    ],
    MISTAKES,
    "nothing",
    WRITTEN,
    edges=[
        Edge(_case(40, 16, 6, eps=0.0, weight_decay=0.0, beta1=0.0)),
        Edge(_case(5, 1, 7)),
        Edge(_case(1000, 1024, 8, exact=False), _rounded),
    ],
    drawn=_drawn,
)

_TWICE = "Load each once, at the top, and keep it in a variable until it is stored."


def _conduct(record: stub.Record, setting: Setting) -> list[Finding]:
    """What one step did beside the numbers, with what explains the rest first."""
    where, n = f"With {setting}", setting.n
    if missing := [name for name in WRITTEN if not record.of("store", name)]:
        what = f"{where}: {_listed(missing)} {'is' if len(missing) == 1 else 'are'} never stored."
        return [Finding("not-stored", what, "The next step reads p, m and v from memory: `tl.store` all three.")]
    found = []
    if record.of("store", "g"):
        what = f"{where}: the kernel writes into the gradient."
        found.append(Finding("gradient-written", what, "Others may still need it, and it costs 4 bytes an element."))
    loads = len(record.of("load", "g"))
    if setting.block > 1 and n > 1 and loads > record.programs and loads >= n:
        what = f"{where}: the kernel loads one element at a time, {loads} times in {record.programs} programs."
        return [Finding("one-at-a-time", what, "`p_ptr + offsets` with a block of offsets loads a whole block.")]
    if blocks := about_blocks(record, where, n, setting.block, WRITTEN):
        return [blocks, *found]
    again = [name for name in READ if elements(record, "load", name, n).max(initial=0) > 1]
    twice = [name for name in WRITTEN if elements(record, "store", name, n).max(initial=0) > 1]
    if not again and not twice and record.races:
        found.append(race(record.races[0], where))
    if again and any(_passes(record, name, n) for name in again):
        what = f"{where}: {_listed(again)} {'is' if len(again) == 1 else 'are'} loaded more than once: a second pass."
        found.append(Finding("loaded-twice", what, _TWICE))
    elif again:
        what = f"{where}: elements of {_listed(again)} are loaded by more than one program."
        found.append(Finding("loaded-by-two", what, "Each element belongs to one program, which alone needs it."))
    if twice:
        what = f"{where}: {_listed(twice)} {'is' if len(twice) == 1 else 'are'} stored more than once."
        found.append(Finding("stored-twice", what, "Store each once, at the end, when its new value is there."))
    return found


def _passes(record: stub.Record, name: str, n: int) -> bool:
    """Whether a program loads an element of an array more than once."""
    for k in range(record.programs):
        own = replace(record, accesses=tuple(access for access in record.accesses if access.program == k))
        if elements(own, "load", name, n).max(initial=0) > 1:
            return True
    return False


def _listed(names: list[str]) -> str:
    return " and ".join(", ".join(f"`{name}`" for name in names).rsplit(", ", 1))


def _through(candidate: Callable[..., Any], notes: list[Finding]) -> Callable[[Setting], Path]:
    """``candidate`` as a function that walks; ``notes`` gets what the kernel did beside the numbers."""

    def adamw_kernel(setting: Setting) -> Path:
        dtype = np.float64 if setting.exact else np.float32
        p, gradients = (x.astype(dtype) for x in setting.draw())
        m, v, path = np.zeros_like(p), np.zeros_like(p), []
        known = bool(notes)  # by an earlier case: a shorter one may look like another slip
        for t, g in enumerate(gradients, 1):
            arguments = (p, g.copy(), m, v, setting.n, *setting.scalars(t))
            _bound(candidate, arguments, setting.block)
            grid, order = stub.cdiv(setting.n, setting.block), stub.ORDERS[t % len(stub.ORDERS)]
            try:
                record = stub.run(candidate, grid, *arguments, order=order, exact=setting.exact, BLOCK=setting.block)
            except stub.OutOfBounds as error:
                raise Stopped(outside(error, f"With {setting}", setting.block)) from None
            if not known:
                notes.extend(_conduct(_by_place(record, candidate), setting))
            path.append((p.copy(), m.copy(), v.copy()))
        return tuple(np.stack(part) for part in zip(*path, strict=True))  # type: ignore[return-value]

    return adamw_kernel


def _bound(kernel: Callable[..., Any], arguments: tuple[Any, ...], block: int) -> None:
    try:
        inspect.signature(kernel).bind(*arguments, BLOCK=block)
    except TypeError as error:
        what = f"The kernel does not take the exercise's arguments: {error}."
        raise Stopped(Finding("signature", what, "See the exercise for their names and their order.")) from None


def _by_place(record: stub.Record, kernel: Callable[..., Any]) -> stub.Record:
    """The record with "p", "g", "m" and "v" for the first four arguments, whatever the kernel calls them."""
    names = dict(zip(inspect.signature(kernel).parameters, READ, strict=False))
    return replace(record, accesses=tuple(
        replace(access, argument=names.get(access.argument, access.argument)) for access in record.accesses
    ))  # fmt: skip


def judge_adamw_kernel(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: the numbers, the masks, and how often each array is read and written."""

    def found() -> list[Finding]:
        findings, notes = judged(KERNEL, candidate, _through, progress)
        if any(note.code == "not-stored" for note in notes):  # it explains all numbers
            findings = []
        findings = sorted_out(findings, notes)
        return [replace(finding, what=finding.what.replace("ith setting=", "ith ")) for finding in findings]

    return guarded(candidate, found)
