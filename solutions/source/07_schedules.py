# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: schedules
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("warmup_cosine")` gives one hint at a
# time. From a terminal, `course check` runs all your answers. Updates are counted from 0 throughout: step 0 is the
# first, step `total - 1` the last.

# %% [markdown] tags=["solution-only"]
# # Solutions: schedules
#
# The answers to `exercises/07_schedules.ipynb`, each with its reasons. Try the exercise first: what you have worked out
# yourself is there in the interview.

# %%
import math

import numpy as np
import torch
from torch import nn

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress
from course_lib.problems import lm

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Warmup and cosine
#
# *Level 1, 10 minutes, id `warmup_cosine`.* Return the multiplier of the base rate at update `step`, a number:
#
# - in the first `warmup` updates (step + 1) / warmup;
# - then half a cosine, which is at 1 at step `warmup` and would come down to `floor` at step `total`, one after the
#   last update;
# - from step `total` on, `floor`.
#
# `step`, `warmup` and `total` are whole numbers with 0 <= warmup < total; `floor` is a share of the base rate, from 0
# to 1. Some of the runs that the check asks about are drawn anew each time.


# %% tags=["exercise:warmup_cosine"]
def warmup_cosine(step, warmup, total, floor):
    ### BEGIN SOLUTION
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / (total - warmup), 1)
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
    ### END SOLUTION


# %% tags=["check:warmup_cosine"]
check("warmup_cosine", warmup_cosine)

# %% [markdown] tags=["solution-only"]
# The test comes first, so that `warmup = 0` divides by nothing. Two conventions differ between libraries and cost one
# update each, at the two ends of the run. Hugging Face's warmup is `step / warmup`, whose first update has the rate 0.
# A descent over `total - 1 - warmup` steps has its floor at the last update, and with a floor of 0 loses that one too:

# %% tags=["solution-only"]
warmup, total = 4, 12
here = [warmup_cosine(t, warmup, total, 0.0) for t in range(total)]
theirs = [t / warmup if t < warmup else warmup_cosine(t, warmup, total - 1, 0.0) for t in range(total)]
for name, rates in (("here", here), ("theirs", theirs)):
    print(f"{name:7}", " ".join(f"{rate:.2f}" for rate in rates))
print("updates that change nothing:", sum(rate == 0 for rate in here), "and", sum(rate == 0 for rate in theirs))

# %% [markdown] tags=["solution-only"]
# In a run of 100,000 updates nobody sees the difference. In a test of ten, or after a change of library in the middle
# of a run, one does.

# %% [markdown]
# ## 2. Warmup, stable, decay
#
# *Level 2, 20 minutes, id `warmup_stable_decay`.* The same warmup, then 1, then a fall in the last `share` of the run:
#
# - The fall has `round(share * total)` updates, with Python's `round`, and begins that many before step `total`. If
#   warmup and fall do not fit into the run, the warmup stays whole and the fall is shortened: it begins at step `warmup`.
# - With $p$ the share of the fall that is over, 0 at its first step and 1 at step `total`, the multiplier is
#   $\text{floor}+(1-\text{floor})\,(1-\sqrt p)$.
# - From step `total` on it is `floor`.
#
# `share` is above 0 and at most 1, and makes a fall of at least one update; the rest is as in exercise 1.


# %% tags=["exercise:warmup_stable_decay"]
def warmup_stable_decay(step, warmup, total, share, floor):
    ### BEGIN SOLUTION
    start = max(total - round(share * total), warmup)
    if step < warmup:
        return (step + 1) / warmup
    if step < start:
        return 1.0
    p = min((step - start) / (total - start), 1)
    return floor + (1 - floor) * (1 - math.sqrt(p))
    ### END SOLUTION


# %% tags=["check:warmup_stable_decay"]
check("warmup_stable_decay", warmup_stable_decay)

# %% [markdown] tags=["solution-only"]
# The root makes the fall steep at first: a quarter of the way in, half of the rate is gone. Hägele et al. (2024, arXiv
# 2405.18392) found this shape better than a straight line. What it is all for: up to the fall nothing depends on
# `total`. Results at three budgets need one trunk and three falls; with cosines they need three whole runs:

# %% tags=["solution-only"]
budgets, share = (5000, 10_000, 20_000), 0.1
trunk = max(budgets) - round(share * max(budgets))
falls = sum(round(share * total) for total in budgets)
print(f"{trunk:,} + {falls:,} = {trunk + falls:,} updates; three cosines: {sum(budgets):,}")
shapes = {"this one": lambda t, n: warmup_stable_decay(t, 100, n, share, 0.0),
          "cosine": lambda t, n: warmup_cosine(t, 100, n, 0.0)}
for name, shape in shapes.items():
    same = len({tuple(shape(t, n) for t in range(4500)) for n in budgets}) == 1
    print(f"{name:8} the same for all budgets up to update 4500: {same}")

# %% [markdown]
# ## 3. What decays, and what does not
#
# *Level 3, 25 minutes, id `parameter_groups`.* Return a list of two groups for `torch.optim`, each a dict with
# `"params"`, a list of tensors, and `"weight_decay"`. The first holds what decays, with `weight_decay`, the second what
# does not, with 0.0. Either may be empty, both are always there.
#
# - Not decayed: every tensor with fewer than two dimensions; every tensor of an `nn.Embedding` or `nn.EmbeddingBag`;
#   every tensor of an `nn.LayerNorm` or `nn.RMSNorm`, however many dimensions it has. Subclasses of these count.
# - Decayed: everything else with two dimensions or more, whatever it is called and whatever holds it.
# - A tensor that an embedding shares, with a head for instance, is the embedding's, whichever of its names comes first.
# - Every tensor with `requires_grad` is in the groups exactly once, and no other tensor is.
# - In each group the tensors are in the order of `model.named_parameters()`. The model stays as it is.


# %% tags=["exercise:parameter_groups"]
def parameter_groups(model, weight_decay):
    ### BEGIN SOLUTION
    special = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
    spared = {id(p) for module in model.modules() if isinstance(module, special) for p in module.parameters()}
    decayed, rest = [], []
    for p in model.parameters():  # in the order of named_parameters, each tensor once
        if p.requires_grad:
            (rest if p.ndim < 2 or id(p) in spared else decayed).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    ### END SOLUTION


# %% tags=["check:parameter_groups"]
check("parameter_groups", parameter_groups)

# %% [markdown] tags=["solution-only"]
# Two passes, and that is the point. The modules say what a tensor *is*, the parameters say what there is to train. One
# pass over modules loses what no known layer holds (`in_proj_weight` of `nn.MultiheadAttention`, a bare parameter) and
# meets shared tensors twice; one pass over names takes a shared tensor for whatever its first name says. A tensor is
# told from others by `id`: `p in list_of_tensors` compares values, and fails for different shapes.
#
# A test that costs nothing, on any model: give every tensor a gradient of zero, make one step, and see what moves.

# %% tags=["solution-only"]
model = lm.ByteLM(lm.LMConfig(layers=1, width=32, context=32))
with torch.no_grad():
    for p in model.parameters():
        p.fill_(1.0)
        p.grad = torch.zeros_like(p)
torch.optim.AdamW(parameter_groups(model, 0.1), lr=0.1).step()
for name, p in model.named_parameters():
    print(f"{name:30} {str(tuple(p.shape)):11} {'decays' if (p < 1).all() else 'stays'}")

# %% [markdown] tags=["solution-only"]
# Whether embeddings should decay is disputed: minGPT spares them, nanoGPT decays every matrix. What must not happen is
# that it depends on the order in which somebody wrote two lines in `__init__`.

# %% [markdown]
# ## 4. A rate for each layer
#
# *Level 1, 10 minutes, id `layer_rates`.* For fine-tuning: return `layers + 2` learning rates, those of the embedding,
# of the blocks 0, 1, ..., layers - 1, and of the head, in this order. The head has `lr`. Each step down, to the last
# block, from block to block, and to the embedding, multiplies the rate by `decay`, which is above 0 and at most 1.
# `layers` may be 0.


# %% tags=["exercise:layer_rates"]
def layer_rates(lr, decay, layers):
    ### BEGIN SOLUTION
    return [lr * decay**steps for steps in range(layers + 1, -1, -1)]
    ### END SOLUTION


# %% tags=["check:layer_rates"]
check("layer_rates", layer_rates)

# %% [markdown] tags=["solution-only"]
# The head is new and has everything to learn, the embedding knows most of what it needs. What makes this hard to
# transfer from model to model is the power: the same `decay` on twice the layers freezes the lower half. Which decay
# gives the embedding a hundredth of the head's rate?

# %% tags=["solution-only"]
for layers in (6, 12, 24, 48):
    lowest, needed = layer_rates(1.0, 0.75, layers)[0], 0.01 ** (1 / (layers + 1))
    print(f"{layers:2} blocks: decay 0.75 leaves the embedding {lowest:.1e}; for 1.0e-02 it takes {needed:.3f}")
    assert math.isclose(layer_rates(1.0, needed, layers)[0], 0.01)

# %% [markdown]
# ## 5. What a schedule leaves of a weight
#
# *Level 2, 10 minutes, id `decay_left`.* torch's AdamW has a peak rate of 6e-4, `weight_decay=0.1` and a schedule for
# 20,000 updates. In the first 2000 the rate is the peak times (step + 1) / 2000; then it falls linearly, from the peak
# at step 2000, and would be 0 at step 20,000. The run is stopped after 12,000 updates. The gradient of a weight was
# zero throughout. Which share of the weight is left?

# %% tags=["exercise:decay_left"]
left = ...
### BEGIN SOLUTION
steps = np.arange(20_000)
rates = 6e-4 * np.minimum((steps + 1) / 2000, (20_000 - steps) / 18_000)
left = np.prod(1 - 0.1 * rates[:12_000])
### END SOLUTION

# %% tags=["check:decay_left"]
check("decay_left", left)

# %% [markdown] tags=["solution-only"]
# Every factor is $1-\lambda\eta_t\approx e^{-\lambda\eta_t}$, so only the *sum* of the rates counts, the area under the
# schedule up to there: here a triangle of 2000 updates and a trapezium of 10,000. Over the *whole* schedule it would be
# one triangle with the base of the run, wherever its peak stands, and the length of the warmup falls out:

# %% tags=["solution-only"]
area = 6e-4 * (2000 / 2 + 10_000 * (1 + 8 / 18) / 2)
print(f"left {left:.4f}, by the area {math.exp(-0.1 * area):.4f}")
for warmup in (1, 2000, 10_000):
    whole = 6e-4 * np.minimum((steps + 1) / warmup, (20_000 - steps) / (20_000 - warmup))
    print(f"warmup {warmup:6,}: the whole schedule leaves {np.prod(1 - 0.1 * whole):.4f}")
print(f"20,000 updates at the peak rate leave {math.exp(-0.1 * 6e-4 * 20_000):.4f}")
assert abs(left - math.exp(-0.1 * area)) < 1e-4

# %% [markdown] tags=["solution-only"]
# The whole schedule has half the area of a constant rate, so half the decay. Whoever changes the schedule or the number of updates changes
# what `weight_decay=0.1` does, without touching it.
