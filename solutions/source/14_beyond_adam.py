# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: beyond Adam
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("newton_schulz")` gives one hint at a
# time. From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: beyond Adam
#
# The answers to `exercises/14_beyond_adam.ipynb`, each with its reasons. Try the exercise first: what you have worked
# out yourself is there in the interview.

# %%
import math

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Newton-Schulz
#
# *Level 2, 20 minutes, id `newton_schulz`.* `g` is a matrix $G$ of float64, of any shape;
# `coefficients` are $(a, b, c)$. Start from $X = G / \max(\lVert G \rVert_F, 10^{-7})$, and `steps` times make
#
# $$ A = X X^\top, \qquad X \leftarrow a\, X + (b\, A + c\, A^2)\, X . $$
#
# Return the last $X$, of the shape of `g`. (So that $A$ is the smaller product, a matrix with more rows than columns is
# transposed first, and back at the end. Is the result another one?)


# %% tags=["exercise:newton_schulz"]
def newton_schulz(g, steps, coefficients):
    ### BEGIN SOLUTION
    a, b, c = coefficients
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
    ### END SOLUTION


# %% tags=["check:newton_schulz"]
check("newton_schulz", newton_schulz)

# %% [markdown] tags=["solution-only"]
# With $X = U S V^\top$ every term is $U$ (a power of $S$) $V^\top$: the singular vectors stay, and each singular value
# $s$ becomes $a s + b s^3 + c s^5$. Transposing changes the cost, not the result. So the matrix can be left aside, and
# the polynomial be followed on numbers:

# %% tags=["solution-only"]
def polynomial(s, steps, coefficients):
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


jordan, cubic = (3.4445, -4.7750, 2.0315), (1.5, -0.5, 0.0)
u, _, vt = np.linalg.svd(np.random.default_rng(0).normal(size=(4, 6)), full_matrices=False)
start = np.array([0.9, 0.4, 0.1, 0.02])
start = start / np.linalg.norm(start)
for name, coefficients in (("Jordan's", jordan), ("cubic", cubic)):
    result = newton_schulz(u * start @ vt, 5, coefficients)
    assert np.allclose(result, u * polynomial(start, 5, coefficients) @ vt)
    print(f"{name:8} {start.round(3)} -> {polynomial(start, 5, coefficients).round(3)}")

# %% [markdown] tags=["solution-only"]
# Jordan's coefficients do not converge to 1. They are chosen to lift small singular values as steeply as possible ($a^5
# = 485$) and to keep the rest within about 0.7 and 1.2. The cubic, which does converge, has hardly moved the smallest
# after five steps ($1.5^5 = 7.6$).

# %% [markdown]
# ## 2. Muon's factor for a shape
#
# *Level 1, 10 minutes, id `muon_scale`.* Muon steps along $O$, about $U V^\top$, times a factor that
# depends on the shape. Return it:
#
# - `mode="original"`: $\sqrt{\max(1, \text{rows}/\text{columns})}$, as in Jordan's code and torch.
# - `mode="match_rms_adamw"`: what brings the root mean square of the elements of $O$ to 0.2, which is about that of
#   AdamW's updates. Take all min(rows, columns) singular values of $O$ to be 1, and derive it.


# %% tags=["exercise:muon_scale"]
def muon_scale(rows, columns, mode):
    ### BEGIN SOLUTION
    if mode == "original":
        return math.sqrt(max(1, rows / columns))
    return 0.2 * math.sqrt(max(rows, columns))
    ### END SOLUTION


# %% tags=["check:muon_scale"]
check("muon_scale", muon_scale)

# %% [markdown] tags=["solution-only"]
# The squares of all elements add up to the squares of the singular values: min(rows, columns). Over rows x columns
# elements, and rooted, that is $1/\sqrt{\max(\text{rows}, \text{columns})}$ (Liu et al. 2025, arXiv 2502.16982, lemma
# 1). So a Muon step without it shrinks as models grow:

# %% tags=["solution-only"]
for rows, columns in ((256, 256), (4096, 1024), (1024, 4096), (16384, 16384)):
    root_mean_square = math.sqrt(min(rows, columns) / (rows * columns))
    scaled = [muon_scale(rows, columns, mode) * root_mean_square for mode in ("original", "match_rms_adamw")]
    print(f"{rows:5} x {columns:5}: O {root_mean_square:.4f}, original {scaled[0]:.4f}, matched {scaled[1]:.4f}")
    assert math.isclose(scaled[1], 0.2)

# %% [markdown] tags=["solution-only"]
# With `match_rms_adamw` learning rate and weight decay can be taken over from AdamW. With `original` the learning rate
# is one of its own, about 0.02, and the same lr means a different relative step in each width.

# %% [markdown]
# ## 3. A bug to find
#
# *Level 3, 25 minutes, id `muon_bug`.* This Muon matched its author's reference in float32, with and
# without Nesterov, and in bfloat16 with Nesterov. In a run with bfloat16 weights and `nesterov=False` it trains, but
# badly, and nothing is NaN. Find the fault and mend it: copy class and function into the answer cell, call the class
# `RepairedMuon`, and change as little as you can. The momentum buffer is to stay one tensor of the weight's dtype.

# %% tags=["exercise-only"]
class SuspiciousMuon(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                buffer = state["buffer"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
                update = orthogonal(update.bfloat16())
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(x, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x.div_(x.norm().clamp(min=1e-7))
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x

# %% tags=["exercise:muon_bug"]
RepairedMuon = None  # your mended class, and the function that it calls
### BEGIN SOLUTION
class RepairedMuon(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                buffer = state["buffer"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
                update = orthogonal(update.bfloat16())
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(x, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
### END SOLUTION


# %% tags=["check:muon_bug"]
check("muon_bug", RepairedMuon)

# %% [markdown] tags=["solution-only"]
# `.bfloat16()` makes a copy of a float32 tensor and returns a bfloat16 tensor itself; `x.T` is a view; so `div_` writes
# through both into the momentum buffer. With Nesterov `lerp` has made a new tensor before. The buffer then has norm 1
# after every step, whatever the gradients' size: large gradients drown the past, and small ones hardly count beside it.
# torch.optim.Muon of torch 2.13 has this fault. One weight, gradients of norm 2 at every step:

# %% tags=["solution-only"]
class Dividing(RepairedMuon):
    def step(self):
        super().step()
        for state in self.state.values():  # as if the buffer had been divided in place
            state["buffer"].div_(state["buffer"].norm())


for rule in (RepairedMuon, Dividing):
    w = torch.zeros(2, 2, dtype=torch.bfloat16, requires_grad=True)
    optimizer, norms = rule([w], momentum=0.5, nesterov=False), []
    for _ in range(4):
        w.grad = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.bfloat16)
        optimizer.step()
        norms.append(optimizer.state[w]["buffer"].norm().item())
    print(f"{rule.__name__:12} norm of the buffer {norms}")

# %% [markdown] tags=["solution-only"]
# The symptom in a log: the norm of the buffer does not follow the norm of the gradients. A test that would have found
# it compares the *state* after a step as well, in every dtype that is trained in.

# %% [markdown]
# ## 4. Schedule-free SGD
#
# *Level 2, 20 minutes, id `schedule_free_walk`.* `gradient(x)` maps an array (n,) to an array (n,).
# From $z_0 = x_0$ = `start`, for $t = 1, \ldots, $ `steps`:
#
# $$ y_t = (1-\beta)\, z_{t-1} + \beta\, x_{t-1}, \qquad z_t = z_{t-1} - \text{lr}\; \nabla f(y_t), \qquad
# x_t = \Bigl(1 - \frac1t\Bigr)\, x_{t-1} + \frac1t\, z_t . $$
#
# So $x_t$ is the plain mean of $z_1, \ldots, z_t$; the start does not count (Defazio et al. 2024, arXiv 2405.15682,
# Algorithm 1, without a second moment). Return `(y, z, x)`: $y_1, \ldots$ as an array (steps, n), and $z_0, \ldots$ and
# $x_0, \ldots$ as arrays (steps + 1, n). Leave `start` as it is.


# %% tags=["exercise:schedule_free_walk"]
def schedule_free_walk(gradient, start, lr, beta, steps):
    ### BEGIN SOLUTION
    z = x = np.array(start, dtype=np.float64)
    ys, zs, xs = np.empty((steps, len(z))), [z], [x]
    for t in range(1, steps + 1):
        y = (1 - beta) * z + beta * x
        z = z - lr * gradient(y)
        x = x + (z - x) / t
        ys[t - 1] = y
        zs.append(z)
        xs.append(x)
    return ys, np.stack(zs), np.stack(xs)
    ### END SOLUTION


# %% tags=["check:schedule_free_walk"]
check("schedule_free_walk", schedule_free_walk)

# %% [markdown] tags=["solution-only"]
# Three roles: z explores with the whole learning rate, x is what one keeps, y is where one asks. $\beta = 0$ is
# Polyak's average beside plain SGD, $\beta = 1$ takes gradients at the average itself. On a bowl with noisy gradients
# the average gets nearer than z does, with the same learning rate to the end:

# %% tags=["solution-only"]
def noisy(noise, curvatures=np.array([1.0, 0.1])):
    return lambda point: curvatures * point + next(noise)


noise = iter(np.random.default_rng(0).normal(size=(4000, 2)))
y, z, x = schedule_free_walk(noisy(noise), np.array([3.0, 3.0]), lr=0.3, beta=0.9, steps=4000)
distance = {name: np.linalg.norm(points[-1000:], axis=1).mean() for name, points in (("z", z), ("y", y), ("x", x))}
print("the average is nearer than z:", 3 * distance["x"] < distance["z"])
assert 3 * distance["x"] < distance["z"]
assert np.allclose(x[-1], z[1:].mean(axis=0))

# %% [markdown] tags=["solution-only"]
# That is what a falling learning rate does, without its having to know when the run ends. So x is what
# is evaluated and saved; y, which the parameters hold while training, only is where gradients are taken.

# %% [markdown]
# ## 5. The speedup that is left
#
# *Level 2, 10 minutes, id `fair_speedup`.* A paper claims that its optimizer N is **2.0 times** as
# fast as AdamW: "N has after 6,000 steps the loss that AdamW has after 12,000". Every number is the final held-out loss
# of a run of its own, with its own cosine schedule to the end. N's learning rate was tuned; AdamW's, 3e-4, was copied
# from a paper on a larger model.
#
# | steps | 4,000 | 5,000 | 6,000 | 7,500 | 9,000 | 12,000 |
# |---|---:|---:|---:|---:|---:|---:|
# | AdamW, 3e-4 | 3.62 | 3.54 | 3.48 | 3.41 | 3.36 | 3.30 |
# | N, tuned | 3.38 | 3.34 | 3.30 | 3.27 | 3.25 | 3.20 |
#
# You repeat AdamW with other learning rates:
#
# | AdamW's rate | 4,000 | 5,000 | 6,000 | 7,500 | 9,000 | 12,000 |
# |---|---:|---:|---:|---:|---:|---:|
# | 3e-4 | 3.62 | 3.54 | 3.48 | 3.41 | 3.36 | 3.30 |
# | 6e-4 | 3.50 | 3.43 | 3.38 | 3.33 | 3.30 | 3.25 |
# | 1.2e-3 | 3.43 | 3.38 | 3.34 | 3.30 | 3.27 | 3.23 |
# | 2.4e-3 | 3.45 | 3.40 | 3.36 | 3.32 | 3.30 | 3.26 |
# | 4.8e-3 | 3.71 | 3.66 | 3.60 | 3.55 | 3.50 | 3.44 |
#
# By which factor is N faster, in steps to the loss of the claim, than AdamW at its best learning rate?

# %% tags=["exercise:fair_speedup"]
speedup = ...
### BEGIN SOLUTION
speedup = 7_500 / 6_000
### END SOLUTION

# %% tags=["check:fair_speedup"]
check("fair_speedup", speedup)

# %% [markdown] tags=["solution-only"]
# The loss of the claim is 3.30. N has it after 6,000 steps, AdamW at 1.2e-3 after 7,500. Of the claimed factor of 2 the
# baseline's learning rate made the larger part:

# %% tags=["solution-only"]
print(f"claimed {12_000 / 6_000:.2f} = {12_000 / 7_500:.2f} by tuning AdamW x {speedup:.2f} by N")

# %% [markdown] tags=["solution-only"]
# The numbers are made up; the effect is not. Wen et al. (2025, arXiv 2509.02046) tuned ten optimizers with equal
# care: of the speedups of 1.4 to 2 times that are claimed over AdamW, the best were left with 1.4 times at 0.1B
# parameters, and 1.1 times at 1.2B. What else to ask of such a table: is the best rate inside the grid (here it is)?
# Are losses compared at the end of schedules, not on the way? Does the factor shrink with more steps or a larger
# model? How long does a step of N take?
