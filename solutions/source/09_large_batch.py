# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: large batches
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("noise_scale")` gives one hint at a
# time. From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: large batches
#
# The answers to `exercises/09_large_batch.ipynb`, each with its reasons. Try the exercise first: what you have worked
# out yourself is there in the interview.

# %%
import math

import numpy as np

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. The noise scale, from a run's own gradients
#
# *Level 2, 15 minutes, id `noise_scale`.* A data-parallel run logs squared lengths of gradients for nothing:
# `norm_small_squared`, an array (steps, workers), of each worker's own gradient, which comes from `small` examples; and
# `norm_big_squared`, an array (steps,), of their mean, the gradient of `big = small * workers` examples. Return three
# numbers: the estimates of $|G|^2$ and of $\operatorname{tr}S$, unbiased, over all steps; and the simple noise scale
# $\operatorname{tr}S/|G|^2$ from the two. Where the estimate of $|G|^2$ is not above 0, the signal is lost in the
# noise: return `math.inf` for the third. ($\operatorname{tr}S$ stays as it comes out.)


# %% tags=["exercise:noise_scale"]
def noise_scale(small, big, norm_small_squared, norm_big_squared):
    ### BEGIN SOLUTION
    a, b = norm_small_squared.mean(), norm_big_squared.mean()
    signal = (big * b - small * a) / (big - small)
    noise = (a - b) / (1 / small - 1 / big)
    return signal, noise, noise / signal if signal > 0 else math.inf
    ### END SOLUTION


# %% tags=["check:noise_scale"]
check("noise_scale", noise_scale)

# %% [markdown] tags=["solution-only"]
# $\mathbb E|g_B|^2=|G|^2+\operatorname{tr}S/B$ at two sizes: take the difference, and $|G|^2$ is gone; weigh with the
# sizes first, and $\operatorname{tr}S$ is gone. Both estimates are linear in the squared lengths, so averaging the
# lengths first is the same as averaging the estimates. The ratio is not linear, and comes last. How many steps does it
# take? Gradients in 25 dimensions with a true noise scale of 400, eight workers of 4 examples:

# %% tags=["solution-only"]
rng = np.random.default_rng(0)
g = np.full(25, 0.2) + rng.normal(size=(20, 1000, 8, 25)) * 4 / math.sqrt(4)      # |G|^2 = 1, tr S = 400
lengths = (g**2).sum(axis=3), (g.mean(axis=2) ** 2).sum(axis=2)
for steps in (1, 10, 100, 1000):
    estimates = [noise_scale(4, 32, s[:steps], b[:steps])[2] for s, b in zip(*lengths)]
    print(f"{steps:4} steps: twenty estimates from {min(estimates):.0f} to {max(estimates):.0f}")

# %% [markdown] tags=["solution-only"]
# With both sizes far below the noise scale, $|G|^2$ is a small difference of large numbers: a single step says next to
# nothing. McCandlish et al. (2018, appendix A.1) average both over a run, with an exponential average for each, since
# both change as the loss falls.

# %% [markdown]
# ## 2. One step of LAMB
#
# *Level 2, 20 minutes, id `lamb_step`.* Four arrays have a row for each layer: weights `w`, Adam's averages `m` and `v`
# before the step, gradients `g`. `t` is the number of this step, from 1. Return the new `w`, `m` and `v`:
#
# $$ m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
# u = \frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)}+\epsilon} + \lambda w, \quad
# w_l \leftarrow w_l - \text{lr}\,\frac{|w_l|}{|u_l|}\,u_l $$
#
# with $\lambda$ = `weight_decay` and the length $|\cdot|$ of a layer's row. Where $|w_l|$ or $|u_l|$ is zero, the ratio
# is 1. Leave the arguments as they are.


# %% tags=["exercise:lamb_step"]
def lamb_step(w, m, v, g, t, lr, betas, eps, weight_decay):
    ### BEGIN SOLUTION
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    u = m_hat / (np.sqrt(v_hat) + eps) + weight_decay * w
    size, length = (np.linalg.norm(x, axis=1, keepdims=True) for x in (w, u))
    ratio = np.ones_like(size)
    np.divide(size, length, out=ratio, where=(size > 0) & (length > 0))
    return w - lr * ratio * u, m, v
    ### END SOLUTION


# %% tags=["check:lamb_step"]
check("lamb_step", lamb_step)

# %% [markdown] tags=["solution-only"]
# lr is the share of its own length by which every layer moves, however long its gradient is. Three layers of lengths
# 0.1, 1 and 100, and one of zeros, which would never move with a ratio of 0:

# %% tags=["solution-only"]
w = np.zeros((4, 5))
w[1:, 0] = 0.1, 1.0, 100.0
g = np.random.default_rng(0).normal(size=w.shape) * [[1.0], [1e-3], [1.0], [1e3]]
new, _, _ = lamb_step(w, 0 * w, 0 * w, g, 1, 0.01, (0.9, 0.999), 1e-12, 0.0)
print("way:  ", np.linalg.norm(new - w, axis=1).round(4))
print("share:", (np.linalg.norm(new - w, axis=1)[1:] / np.linalg.norm(w, axis=1)[1:]).round(4))

# %% [markdown] tags=["solution-only"]
# The first row moves by lr times $\sqrt 5$, an ordinary step of Adam. The decay is part of $u$, so the ratio measures
# it too: it turns the step, and does not lengthen it. That is unlike AdamW, where the decay stands beside the step.

# %% [markdown]
# ## 3. The rules
#
# *Level 2, 15 minutes, id `scale_rule`.* The batch becomes `k` times as large, at equal numbers of examples. Return the
# new `(lr, betas, eps)`; `betas` is a pair:
#
# - for `optimizer` "sgd" so that both the drift and the noise of the whole run stay the same, where lr is small;
#   `betas` and `eps` come back as they are;
# - for "adam" by the square-root rule, for gradients that are mostly noise: all four numbers change. Its betas are to
#   remember as many *examples* as before, to first order in $1-\beta$.
#
# `k` is any number above 0. Where a beta of Adam's would fall below 0, raise a `ValueError`: the rule ends there.


# %% tags=["exercise:scale_rule"]
def scale_rule(optimizer, lr, betas, eps, k):
    ### BEGIN SOLUTION
    if optimizer == "sgd":
        return k * lr, betas, eps
    new = tuple(1 - k * (1 - beta) for beta in betas)
    if min(new) < 0:
        raise ValueError(f"k = {k} is too large for betas {betas}: a new beta would be {min(new):.3g}")
    return math.sqrt(k) * lr, new, eps / math.sqrt(k)
    ### END SOLUTION


# %% tags=["check:scale_rule"]
check("scale_rule", scale_rule)

# %% [markdown] tags=["solution-only"]
# SGD: $n/k$ steps drift by $n\,\text{lr}'G/k$ and collect noise of $n\,\text{lr}'^2S/k^2$; with $k\,\text{lr}$ both are
# what they were. Adam divides by $\sqrt v\approx\sqrt{\operatorname{noise}/B}$, which falls by $\sqrt k$: half of the
# work is done by the division, the other half by $\sqrt k\,\text{lr}$. $\epsilon$ stands beside $\sqrt v$ and falls
# with it (Malladi et al. 2022). A step of Adam on pure noise, before and after, must cover $\sqrt k$ as much:

# %% tags=["solution-only"]
noise = np.random.default_rng(0).normal(size=100_000)
for k in (1, 4, 9):
    lr, betas, eps = scale_rule("adam", 1e-3, (0.9, 0.999), 0.5, k)      # an epsilon that matters
    g = noise / math.sqrt(k)
    step = lr * np.sqrt(np.mean((g / (np.sqrt(np.mean(g**2)) + eps)) ** 2))
    print(f"k = {k}: lr {lr:.1e}, betas {betas[0]:.2f} and {betas[1]:.3f}, "
          f"RMS step {step / math.sqrt(k):.2e} x sqrt(k)")

# %% [markdown] tags=["solution-only"]
# The rules hold while the batch is below the noise scale, and no longer. For $\beta_1=0.9$ the Adam rule ends at $k=10$
# in any case. $\beta^k$, the exact form of "as many examples", has no such end; for $k\,(1-\beta)\ll 1$ the two agree.

# %% [markdown]
# ## 4. What a batch costs
#
# *Level 1, 5 minutes, id `steps_needed`.* To reach its target loss a language model needs at least 20,000 steps,
# however large the batch, and at least 50 billion tokens, however small. How many steps does it need at a batch of 1
# million tokens, by McCandlish et al.'s law?

# %% tags=["exercise:steps_needed"]
steps = ...
### BEGIN SOLUTION
steps = 20_000 * (1 + (50e9 / 20_000) / 1e6)
### END SOLUTION

# %% tags=["check:steps_needed"]
check("steps_needed", steps)

# %% tags=["solution-only"]
critical = 50e9 / 20_000
for batch in (0.1e6, 1e6, critical, 10e6):
    needed = 20_000 * (1 + critical / batch)
    print(f"batch {batch / 1e6:4.1f}M: {needed:7,.0f} steps, {needed * batch / 1e9:5.1f}G tokens, "
          f"product {(needed / 20_000 - 1) * (needed * batch / 50e9 - 1):.2f}")

# %% [markdown] tags=["solution-only"]
# The critical batch is $E_{\min}/S_{\min}$ = 2.5 million tokens. At 1 million, below it, 40% more tokens than the least
# are used, and 3.5 times the least steps: here a larger batch still buys many steps for few tokens. At the critical
# size both cost twice their least; ten times the batch of this run would be 2.8 times as fast and waste four fifths.
