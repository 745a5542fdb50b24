# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: small state
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("lion")` gives one hint at a time. From
# a terminal, `course check` runs all your answers. 1 GB is 1e9 bytes throughout.

# %% [markdown] tags=["solution-only"]
# # Solutions: small state
#
# The answers to `exercises/13_small_state.ipynb`, each with its reasons. Try the exercise first: what you have worked
# out yourself is there in the interview.

# %%
import math

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress
from course_lib.precision.blockwise import dynamic_map

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Lion, guided
#
# *Level 2, 20 minutes, id `lion`.* The walk is written; the rule is yours (Chen et al. 2023, arXiv
# 2302.06675, Algorithm 2). First the decoupled decay, then the step, and last what is remembered:
#
# $$ p \leftarrow (1 - \text{lr}\,\lambda)\, p, \qquad c = \beta_1 m + (1-\beta_1)\, g, \qquad
# p \leftarrow p - \text{lr}\,\operatorname{sign}(c), \qquad m \leftarrow \beta_2 m + (1-\beta_2)\, g . $$
#
# $m$ starts at zero, and sign(0) is 0. Each parameter has its own $m$, and nothing else. Weights change in place: `p`
# stays the same tensor in the same memory.


# %% tags=["exercise:lion"]
class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2), wd = group["lr"], group["betas"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"]
                c = beta1 * m + (1 - beta1) * p.grad
                p.mul_(1 - lr * wd).sub_(lr * c.sign())
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)
                ### END SOLUTION
        return loss


# %% tags=["check:lion"]
check("lion", Lion)

# %% [markdown] tags=["solution-only"]
# `c` must be a new tensor: `m.mul_(beta1)` would spoil what the last line needs. A sign hides many mistakes: with both
# betas in the right places or exchanged, most elements move the same way, so that a training run hardly tells. What
# differs is what is remembered. The weight of one gradient in the step that it comes in, in the next, and ten steps
# later, among what decides:

# %% tags=["solution-only"]
def weights_of_one_gradient(beta1, beta2, steps):
    return [1 - beta1] + [beta1 * (1 - beta2) * beta2 ** (age - 1) for age in range(1, steps)]


for betas in ((0.9, 0.99), (0.99, 0.9)):
    share = weights_of_one_gradient(*betas, 1000)
    now, after_one, after_ten = share[0], share[1], share[10]
    print(f"betas {betas}: now {now:.3f}, one step later {after_one:.4f}, ten steps later {after_ten:.4f}")
    assert math.isclose(sum(share), 1, abs_tol=1e-4)

# %% [markdown] tags=["solution-only"]
# The right betas give the present gradient eleven times the weight of the last one, and remember for a hundred steps.
# Exchanged, the present hardly counts.

# %% [markdown]
# ## 2. Adafactor's factored moment
#
# *Level 2, 20 minutes, id `factored_moment`.* `gradients` has the shape (T, n, m), one gradient of
# an (n, m) weight per step. Instead of Adam's $v$ keep two vectors, from $R_0 = 0$ and $C_0 = 0$:
#
# $$ R_t = \beta_2 R_{t-1} + (1-\beta_2)\,\operatorname{mean}_\text{columns}(g_t^2), \qquad
# C_t = \beta_2 C_{t-1} + (1-\beta_2)\,\operatorname{mean}_\text{rows}(g_t^2) . $$
#
# $R$ has an entry for each row (the mean of that row), $C$ one for each column. At the end divide both by $1 -
# \beta_2^T$, as Adam does with $v$, and return the matrix of rank one that they stand for, $\hat V_{ij} = \hat R_i\,
# \hat C_j / \operatorname{mean}(\hat R)$, an array (n, m). Gradients that are all zero give zeros. Gradients of 1e-90
# must survive, too: $R_i C_j$ alone would be below the smallest float64.


# %% tags=["exercise:factored_moment"]
def factored_moment(gradients, beta2):
    ### BEGIN SOLUTION
    R, C = np.zeros(gradients.shape[1]), np.zeros(gradients.shape[2])
    for g in gradients:
        R = beta2 * R + (1 - beta2) * (g**2).mean(axis=1)
        C = beta2 * C + (1 - beta2) * (g**2).mean(axis=0)
    R, C = (x / (1 - beta2 ** len(gradients)) for x in (R, C))
    if R.mean() == 0:
        return np.zeros(gradients.shape[1:])
    return (R / R.mean())[:, None] * C
    ### END SOLUTION


# %% tags=["check:factored_moment"]
check("factored_moment", factored_moment)

# %% [markdown] tags=["solution-only"]
# $R_i C_j$ has the units of $v^2$, so one factor of scale must go; dividing by the mean gives back exactly the row
# means and the column means of Adam's $v$. Where $v$ has rank one, all of it comes back. Otherwise something is lost:
# here one large element in each of two rows.

# %% tags=["solution-only"]
rank_one = np.sqrt(np.outer([1.0, 4.0, 9.0], [2.0, 1.0]))
print("rank one comes back:", np.allclose(factored_moment(rank_one[None], 0.999), rank_one**2))

diagonal = np.array([[10.0, 0.1], [0.1, 10.0]])
v = factored_moment(diagonal[None], 0.999)
print(f"squares {(diagonal**2).round(2).tolist()}, factored {v.round(3).tolist()}")
for axis in (0, 1):
    assert np.allclose(v.mean(axis=axis), (diagonal**2).mean(axis=axis))

# %% [markdown] tags=["solution-only"]
# The small elements get a $v$ 5,000 times too large, and so a step 71 times too short; the large ones a step 1.4 times
# too long. Row and column means are kept, what is special about single elements is not. (Adafactor itself has $\beta_2
# = 1 - t^{-0.8}$, which makes the first average whole, so that there is nothing to correct: Shazeer & Stern 2018, arXiv
# 1804.04235, section 7.)

# %% [markdown]
# ## 3. Blocks of codes, and back
#
# *Level 3, 25 minutes, id `quantise_blocks`.* `x` is a vector of float64, `table` a sorted array of
# numbers between -1 and 1, `block` the number of elements that share a scale. Return `(codes, absmax, back)`:
#
# - `absmax`: for each block the largest $|x|$ in it. Block $k$ holds the elements from `k * block` on; the last may be
#   shorter.
# - `codes`: for each element the place, from 0, of that entry of `table` which is nearest to `x / absmax` of its block.
#   Half way between two entries the lower one is taken. In a block of zeros every element has the code of the entry
#   nearest to 0.
# - `back`: what comes back, the entry times `absmax` of the block.
#
# Nothing is added to a scale, not even where it is 1e-20: second moments are as small as that.


# %% tags=["exercise:quantise_blocks"]
def quantise_blocks(x, table, block):
    ### BEGIN SOLUTION
    of = np.arange(len(x)) // block
    absmax = np.array([np.abs(x[start : start + block]).max() for start in range(0, len(x), block)])
    share = x / np.where(absmax == 0, 1, absmax)[of]
    middles = (table[:-1] + table[1:]) / 2
    codes = np.searchsorted(middles, share)  # a number on a middle goes below it
    return codes, absmax, table[codes] * absmax[of]
    ### END SOLUTION


# %% tags=["check:quantise_blocks"]
check("quantise_blocks", quantise_blocks)

# %% [markdown] tags=["solution-only"]
# Nearest means: on which side of the middle between two neighbours? So a binary search among the middles finds the
# code, 8 comparisons for 256 entries. With the map of 8-bit optimizers, and one outlier among 1,024 second moments:

# %% tags=["solution-only"]
table = dynamic_map(signed=False).double().numpy()
v = 1e-8 * np.random.default_rng(0).uniform(0.5, 2.0, 1024)
v[100] = 1.0
for block in (1024, 256):
    codes, absmax, back = quantise_blocks(v, table, block)
    lost, size = np.sum(back == 0), len(codes) + 4 * len(absmax)
    print(f"blocks of {block:4}: {lost:4} of {len(v)} second moments come back as zero, {size} bytes")
    assert lost == block - 1

# %% [markdown] tags=["solution-only"]
# An outlier spoils its own block: its neighbours fall below the smallest entry and become zero, and Adam divides by
# $\sqrt v + \epsilon$. Smaller blocks keep the damage small for 4 bytes each (Dettmers et al. 2022, arXiv 2110.02861,
# section 2.1).

# %% [markdown]
# ## 4. The bytes of seven optimizers
#
# *Level 2, 20 minutes, id `small_state_gb`.* `shapes` is a tuple of shapes, of matrices (n, m) and
# vectors (n,). Return how many GB of state the optimizer keeps for all of them. Numbers are float32 unless said
# otherwise; weights, gradients and counts of steps are left out.
#
# - `"adamw"`: two numbers for each element. `"lion"`: one.
# - `"muon"`: one for each element of a matrix; vectors go to AdamW.
# - `"adafactor"`, without first moment: one for each row and one for each column of a matrix; one for each element of a
#   vector.
# - `"came"`: for a matrix a first moment of every element, and two pairs of row and column; for a vector two for each
#   element.
# - `"adam_mini"`: a first moment of every element; and one second moment for each row of a matrix, one for a whole
#   vector.
# - `"adamw8bit"`: tensors of 4,096 elements or more keep two states of one byte an element, and for each of the two a
#   float32 for each block of 256 elements, also for a last, shorter one. Smaller tensors keep AdamW's state.


# %% tags=["exercise:small_state_gb"]
def small_state_gb(shapes, optimizer):
    ### BEGIN SOLUTION
    total = 0
    for shape in shapes:
        size = math.prod(shape)
        if optimizer == "adamw8bit":
            total += 8 * size if size < 4096 else 2 * (size + 4 * math.ceil(size / 256))
        elif len(shape) == 1:
            total += 4 * {"lion": size, "adafactor": size, "adam_mini": size + 1}.get(optimizer, 2 * size)
        else:
            n, m = shape
            total += 4 * {
                "adamw": 2 * size,
                "lion": size,
                "muon": size,
                "adafactor": n + m,
                "came": size + 2 * (n + m),
                "adam_mini": size + n,
            }[optimizer]
    return total / 1e9
    ### END SOLUTION


# %% tags=["check:small_state_gb"]
check("small_state_gb", small_state_gb)

# %% [markdown] tags=["solution-only"]
# For the matrices and norms of Llama 3 8B, from their shapes:

# %% tags=["solution-only"]
attention = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096))
mlp = ((14336, 4096), (14336, 4096), (4096, 14336))
norm = (4096,)
shapes = ((128256, 4096), *32 * (norm, *attention, norm, *mlp), norm, (128256, 4096))
print(f"{sum(map(math.prod, shapes)):,} parameters")
for name in ("adamw", "muon", "came", "adam_mini", "lion", "adamw8bit", "adafactor"):
    print(f"{name:10} {small_state_gb(shapes, name):8.3f} GB")

# %% [markdown] tags=["solution-only"]
# There are three ways: keep fewer bits (8-bit), fewer moments (Lion, Muon), or a summary of the second moment
# (Adafactor, CAME, Adam-mini). A first moment of every element in float32 costs 32 GB here, so whoever keeps one cannot
# go below that. (Muon's embedding and head would go to AdamW in practice, which adds 4 GB.)
