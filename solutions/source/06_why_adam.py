# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: why it is Adam
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("block_rates")` gives one hint at a
# time. From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: why it is Adam
#
# The answers to `exercises/06_why_adam.ipynb`, each with its reasons. Try the exercise first: what you have worked out
# yourself is there in the interview.

# %%
import math

import numpy as np

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from functools import partial

import torch

from course_lib import progress
from course_lib.problems import blocks as layouts
from course_lib.problems import zipf

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. One rate, or one for each block
#
# *Level 2, 20 minutes, id `block_rates`.* A loss is a sum of quadratics, one for each block $b$ of
# the parameters: $f(w)=\sum_b\tfrac12\,w_b^\top H_b\,w_b$. `blocks` is the list of the $H_b$: float64 NumPy arrays,
# symmetric and positive definite, of any sizes. At each step gradient descent with a constant rate multiplies the error
# along each eigenvector by some factor. Call the largest size of all these factors, over all directions of all blocks,
# the *worst factor*. Return `(one, per_block)`, two numbers:
#
# - `one`: the worst factor when all blocks share one rate, the best there is;
# - `per_block`: the worst factor when each block has the best rate of its own.
#
# Leave the arrays as they are. Some of those that the check passes are drawn anew each time.


# %% tags=["exercise:block_rates"]
def block_rates(blocks):
    ### BEGIN SOLUTION
    def worst(curvatures):  # with the rate 2 / (largest + smallest)
        top, low = curvatures.max(), curvatures.min()
        return (top - low) / (top + low)

    curvatures = [np.linalg.eigvalsh(block) for block in blocks]
    return worst(np.concatenate(curvatures)), max(worst(each) for each in curvatures)
    ### END SOLUTION


# %% tags=["check:block_rates"]
check("block_rates", block_rates)

# %% [markdown] tags=["solution-only"]
# Along an eigenvector of curvature $c$ the factor is $|1-\eta c|$. Only the largest and the smallest curvature that a
# rate has to serve can be the worst, and the best rate makes them equally bad: $\eta=2/(L+\mu)$, which leaves
# $(L-\mu)/(L+\mu)$. With one rate $L$ and $\mu$ are those of the whole; with a rate per block, those of the block, and
# the slowest block decides. The blocks of notebook 06, whose nine curvatures are the same in both layouts:

# %% tags=["solution-only"]
for name, spectra in (("sorted", layouts.HETEROGENEOUS), ("mixed", layouts.HOMOGENEOUS)):
    problem = layouts.block_quadratic(spectra, runs=1)
    factors = block_rates([hessian[0].numpy() for hessian in problem.hessians])
    steps = [math.ceil(math.log(0.1) / math.log(factor)) for factor in factors]
    print(f"{name:6} worst factor {factors[0]:.4f} and {factors[1]:.4f}; steps to a tenth: {steps[0]} and {steps[1]}")

# %% [markdown] tags=["solution-only"]
# Rates per block pay where curvature differs *between* blocks, and not at all where it differs *within* them. So before
# you explain a gap by blocks, compare the two numbers. A search agrees that no single rate does better:

# %% tags=["solution-only"]
curvatures = np.concatenate(layouts.HETEROGENEOUS)
best = 2 / (curvatures.max() + curvatures.min())
share = np.linspace(0.9, 1.1, 2001)      # of that rate
worst = np.abs(1 - np.outer(best * share, curvatures)).max(axis=1)
print(f"best of {len(share)} rates: {share[worst.argmin()]:.4f} times 2 / (L + mu)")
assert math.isclose(worst.min(), factors[0], rel_tol=1e-9)

# %% [markdown]
# ## 2. How long a rare token waits
#
# *Level 1, 10 minutes, id `zipf_half`.* The linear bigram model of notebook 06, with 50,000 tokens.
# Their frequencies follow Zipf's law: token $k=1,2,\ldots$ has a frequency proportional to $1/k$. Gradient descent with
# the rate 1 / (largest curvature) starts with an error of 1 in every row. After how many steps is the error of token
# 1000 at most one half for the first time?

# %% tags=["exercise:zipf_half"]
steps = ...
### BEGIN SOLUTION
steps = math.ceil(math.log(0.5) / math.log(1 - 1 / 1000))
### END SOLUTION

# %% tags=["check:zipf_half"]
check("zipf_half", steps)

# %% [markdown] tags=["solution-only"]
# Row $k$ has curvature $\pi_k$, and the largest is $\pi_1$. So the error is multiplied by $1-\pi_k/\pi_1=1-1/k$ at each
# step: the sum that makes the frequencies add up to 1 falls out, and with it the size of the vocabulary. Walk it:

# %% tags=["solution-only"]
frequencies = zipf.power_law(50_000)
error, walked = 1.0, 0
while error > 0.5:
    error, walked = error * (1 - frequencies[999] / frequencies[0]), walked + 1
print(f"walked: {walked}; by tokens:", {k: math.ceil(math.log(0.5) / math.log(1 - 1 / k)) for k in (2, 10, 100, 1000)})
assert walked == steps

# %% [markdown] tags=["solution-only"]
# About $k\ln2$ steps: the wait is proportional to the rank. The loss, which is the error squared, needs half of that.
# Sign descent has no $\pi_k$ in its step, and all rows wait equally long.

# %% [markdown]
# ## 3. A comparison that is not fair yet
#
# *Level 2, 10 minutes, id `edge_of_the_grid`.* Sixteen runs on the Zipf language of notebook 06 (128
# tokens, 100 steps, rates that fall linearly to zero), in the order in which they were made. SGD has momentum 0.9. The
# loss is the excess over the best possible, in nats.
#
# | batch | optimizer | rate | loss | | batch | optimizer | rate | loss |
# |---|---|---|---|---|---|---|---|---|
# | 16384 | Adam | 0.1 | 0.0062 | | 16384 | SGD | 160 | 0.0539 |
# | 16384 | SGD | 40 | 0.0411 | | 1024 | Adam | 0.05 | 0.1343 |
# | 1024 | Adam | 0.2 | 0.1297 | | 16384 | Adam | 0.05 | 0.0337 |
# | 1024 | SGD | 10 | 0.1751 | | 1024 | SGD | 5 | 0.2735 |
# | 16384 | SGD | 80 | 0.0178 | | 16384 | SGD | 20 | 0.0888 |
# | 1024 | Adam | 0.1 | 0.0817 | | 1024 | Adam | 0.4 | 0.1729 |
# | 16384 | Adam | 0.4 | 0.0144 | | 16384 | Adam | 0.2 | 0.0099 |
# | 1024 | SGD | 20 | 0.1032 | | 1024 | SGD | 2.5 | 0.3859 |
#
# The report says: "Adam wins at both batch sizes, by 21% at 1024 and by 65% at 16,384." For one of the two that does
# not follow. Which learning rate in the table shows it?

# %% tags=["exercise:edge_of_the_grid"]
unfair = ...
### BEGIN SOLUTION
unfair = 20
### END SOLUTION

# %% tags=["check:edge_of_the_grid"]
check("edge_of_the_grid", unfair)

# %% [markdown] tags=["solution-only"]
# Sort each of the four rows by rate, and look where its best stands. At 16,384 SGD's best is 80, with worse runs at 40
# and at 160. At 1024 SGD is best at 20, and nobody tried 40: whoever ran it stopped on the way down. Go on:

# %% tags=["solution-only"]
language = zipf.bigram(128, 1.0)

def loss(optimizer, batch, lr):
    run = partial(optimizer, lr=lr)
    return language.loss(zipf.descend(language, run, 100, batch=batch, schedule=lambda t: 1 - t / 100))

sgd = {lr: loss(partial(torch.optim.SGD, momentum=0.9), 1024, lr) for lr in (10, 20, 40, 80, 160)}
adam = {lr: loss(torch.optim.Adam, 1024, lr) for lr in (0.05, 0.1, 0.2)}
for name, row in (("SGD", sgd), ("Adam", adam)):
    print(f"{name:4} at batch 1024:", {lr: f"{value:.3f}" for lr, value in row.items()})
assert min(sgd, key=sgd.get) == 80 and min(adam, key=adam.get) == 0.1 and min(sgd.values()) < 0.9 * min(adam.values())

# %% [markdown] tags=["solution-only"]
# Two doublings later the order is the other way round: at this batch SGD wins. That is what notebook 06 predicts, since
# at small batch noise limits both. The habit to keep: no result counts before its best rate has a worse neighbour on
# each side, and a reader should be able to see that in the table. A "tuned baseline" without its grid shows nothing.
