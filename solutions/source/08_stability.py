# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: stability
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("z_loss")` gives one hint at a time.
# From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: stability
#
# The answers to `exercises/08_stability.ipynb`, each with its reasons. Try the exercise first: what you have worked out
# yourself is there in the interview.

# %%
import math

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Clip, with its edges
#
# *Level 2, 15 minutes, id `clip_by_global_norm`.* Return the norm of all gradients as one vector, and, if it exceeds
# `max_norm`, multiply every gradient in place by `max_norm / norm` (torch's `norm + 1e-6` below is as good):
#
# - `parameters` is what `model.parameters()` returns: it can be gone over once;
# - a parameter without a gradient has `.grad` None, and keeps it; if none has one, the norm is 0;
# - a norm that is not finite is returned, and all gradients stay as they are: the caller skips the step;
# - gradients may be float16 or bfloat16. They keep their dtype; the norm is computed in float32 or float64.


# %% tags=["exercise:clip_by_global_norm"]
def clip_by_global_norm(parameters, max_norm):
    ### BEGIN SOLUTION
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(g.double().square().sum().item() for g in grads))
    if max_norm < norm < math.inf:
        for g in grads:
            g.mul_(max_norm / norm)
    return norm
    ### END SOLUTION


# %% tags=["check:clip_by_global_norm"]
check("clip_by_global_norm", clip_by_global_norm)

# %% [markdown] tags=["solution-only"]
# One comparison handles the edges: `max_norm < norm < inf` is false for 0, for infinity and for NaN, so nothing is ever
# divided by zero or multiplied by 0. torch goes on in two of these cases:

# %% tags=["solution-only"]
def clipped(clip, *values, dtype=torch.float64):
    p = torch.zeros(len(values), dtype=dtype, requires_grad=True)
    p.grad = torch.tensor(values, dtype=dtype)
    return f"norm {float(clip([p], 1.0)):.6g}, then {p.grad.tolist()}"

for name, clip in (("here ", clip_by_global_norm), ("torch", torch.nn.utils.clip_grad_norm_)):
    print(name, clipped(clip, 2.0, math.inf), "|", clipped(clip, 6e4, 6e4, dtype=torch.float16))

# %% [markdown] tags=["solution-only"]
# $\infty\cdot 0$ is NaN, and the sound gradients are lost with it: a step that is not skipped then ruins the weights.
# And the norm of two float16 numbers that are finite is not: rounded to 16 bits it becomes infinite, and the factor 0.
# Under a loss scaler it is `unscale_` that looks for infinities, before the clip. On a GPU `.item()` waits; a
# production clip keeps the norm on the device, and multiplies by a factor that may be 1.

# %% [markdown]
# ## 2. One step, every token one vote
#
# *Level 2, 20 minutes, id `token_mean_step`.* Make one optimizer step over all micro-batches, with the gradient of the
# mean loss over **all tokens that count**, and return that mean loss, a number. `micro_batches` is a list of pairs
# (inputs, targets); a target of -100 does not count, any other does. `loss_sum(model, inputs, targets)` returns the
# *sum* of the losses of the tokens that count.
#
# - A micro-batch may have no token that counts. If none in the whole list does, return 0.0 and change nothing: no step.
# - No gradient from before may count.
# - Memory holds the activations of one micro-batch only.


# %% tags=["exercise:token_mean_step"]
def token_mean_step(model, loss_sum, micro_batches, optimizer):
    ### BEGIN SOLUTION
    tokens = sum(int((targets != -100).sum()) for _, targets in micro_batches)
    if tokens == 0:
        return 0.0
    optimizer.zero_grad()
    total = 0.0
    for inputs, targets in micro_batches:
        loss = loss_sum(model, inputs, targets) / tokens
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total
    ### END SOLUTION


# %% tags=["check:token_mean_step"]
check("token_mean_step", token_mean_step)

# %% [markdown] tags=["solution-only"]
# The count must be known before the first backward, so it takes a pass over the targets. The test: how a batch is cut
# must not matter. Six sequences of one to six tokens, cut in four ways:

# %% tags=["solution-only"]
rng = np.random.default_rng(0)
inputs, targets = torch.tensor(rng.normal(size=(6, 6, 3))), torch.tensor(rng.integers(0, 4, (6, 6)))
targets[torch.arange(6) > torch.arange(6)[:, None]] = -100
start = torch.tensor(rng.normal(size=(4, 3)))

def loss_sum(model, x, y):
    return torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")

def of_means(model, loss_sum, micro_batches, optimizer):
    optimizer.zero_grad()
    for x, y in micro_batches:
        (loss_sum(model, x, y) / (y != -100).sum() / len(micro_batches)).backward()
    optimizer.step()

def moved(step, pieces):
    model = torch.nn.Linear(3, 4, bias=False, dtype=torch.float64)
    model.weight.data.copy_(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step(model, loss_sum, list(zip(inputs.chunk(pieces), targets.chunk(pieces))), optimizer)
    return (model.weight.detach() - start).norm().item()

for pieces in (1, 2, 3, 6):
    right, wrong = moved(token_mean_step, pieces), moved(of_means, pieces)
    print(f"{pieces} micro-batches: a step of {right:.4f}; by means {wrong:.4f}")

# %% [markdown] tags=["solution-only"]
# With several GPUs the count is that of all of them, and `DistributedDataParallel` averages gradients over the ranks:
# there one divides by tokens / ranks. A batch without tokens must not make a step either: its gradient is zero, but
# momentum and weight decay would move the weights.

# %% [markdown]
# ## 3. An average that survives a NaN
#
# *Level 2, 15 minutes, id `ema_corrected`.* A run logs a row of numbers at each step: losses, norms, or the weights
# themselves. `values` has a row for each, `decay` is from 0 to below 1. Return an array of the same shape with the
# bias-corrected average after each step:
#
# $$ m \leftarrow \beta\, m + (1-\beta)\, x, \quad m = 0 \text{ at first}, \qquad \text{row} = \frac{m}{1-\beta^t} . $$
#
# A row with a NaN or an infinity in it is a step that broke. It does not count, as if it had not been made: neither $m$
# nor $t$ changes, and the result repeats the row before. Before the first sound step the rows are NaN.


# %% tags=["exercise:ema_corrected"]
def ema_corrected(values, decay):
    ### BEGIN SOLUTION
    m, t = np.zeros(values.shape[1]), 0
    last = np.full(values.shape[1], np.nan)
    rows = []
    for x in values:
        if np.isfinite(x).all():
            t += 1
            m = decay * m + (1 - decay) * x
            last = m / (1 - decay**t)
        rows.append(last)
    return np.stack(rows)
    ### END SOLUTION


# %% tags=["check:ema_corrected"]
check("ema_corrected", ema_corrected)

# %% [markdown] tags=["solution-only"]
# An average is memory, and NaN never decays. So the question comes before the update, for the whole row: where one
# number of a step is broken, the others are not to be trusted. $t$ counts what is in $m$; if it counted broken steps
# as well, the weights would not sum to 1. A loss that falls from 4 to 2, and a step whose targets are all padding:

# %% tags=["solution-only"]
loss = np.array([4.0, 3.0, math.nan, 2.5, 2.0])[:, None]
plain = [loss[0]]
for x in loss[1:]:
    plain.append(0.9 * plain[-1] + 0.1 * x)
print("corrected:           ", ema_corrected(loss, 0.9).ravel().round(2))
print("from the first value:", np.ravel(plain).round(2))

# %% [markdown] tags=["solution-only"]
# Starting at the first value needs no correction and is what most trackers do; it gives that value the weight
# $\beta^{t-1}$, ten times that of its neighbour with $\beta=0.9$. A loss at step 1 is the largest of the run.

# %% [markdown]
# ## 4. The z-loss and its gradient
#
# *Level 2, 15 minutes, id `z_loss`.* `logits` has a row for each token. With $Z_i=\sum_k e^{x_{ik}}$ return the loss
# and its gradient, an array of the shape of `logits`:
#
# $$ \ell = c\,\frac1n\sum_{i=1}^n\,(\log Z_i)^2, \qquad \frac{\partial \ell}{\partial x_{ik}} . $$
#
# Logits may be as large as $\pm 10^4$, and a class that is masked has $-\infty$ (never a whole row).


# %% tags=["exercise:z_loss"]
def z_loss(logits, coefficient):
    ### BEGIN SOLUTION
    top = logits.max(axis=1, keepdims=True)
    log_z = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    softmax = np.exp(logits - log_z)
    return coefficient * np.mean(log_z**2), 2 * coefficient * log_z * softmax / len(logits)
    ### END SOLUTION


# %% tags=["check:z_loss"]
check("z_loss", z_loss)

# %% [markdown] tags=["solution-only"]
# $\partial\log Z/\partial x_k$ is softmax, so the chain rule gives $2c\log Z\cdot\operatorname{softmax}(x)/n$. Beside
# it the gradient of the cross-entropy, $\operatorname{softmax}(x)-e_y$: its elements sum to zero, so it never moves the
# level. The z-loss moves the level alone, and as much as $\log Z$ is off:

# %% tags=["solution-only"]
logits = np.array([[2.0, 1.0, 0.0]])
for level in (-10.0, 0.0, 10.0, 1e4):
    loss, gradient = z_loss(logits + level, 1e-4)
    print(f"level {level:6g}: loss {loss:.3g}, sum of the gradient {gradient.sum():.3g}")

# %% [markdown] tags=["solution-only"]
# Written as `np.log(np.exp(x).sum())`, the last line would be infinite. Adding the largest logit back is no detail
# here: in a softmax it cancels and may be left out, but the level is all that this penalty looks at.

# %% [markdown]
# ## 5. How small to start
#
# *Level 1, 5 minutes, id `residual_std`.* GPT-2 draws its weight matrices with a standard deviation of 0.02, except
# those that write into the residual stream (the last matrix of each attention and of each MLP), which are scaled by
# the depth. With which standard deviation are these drawn in the model of 48 layers?

# %% tags=["exercise:residual_std"]
std = ...
### BEGIN SOLUTION
std = 0.02 / math.sqrt(2 * 48)
### END SOLUTION

# %% tags=["check:residual_std"]
check("residual_std", std)

# %% tags=["solution-only"]
branches = np.random.default_rng(0).normal(size=(2 * 48, 20_000))
for name, scale in (("unscaled", 1.0), ("1 / sqrt(48)", 48**-0.5), ("1 / sqrt(96)", 96**-0.5), ("1 / 96", 1 / 96)):
    added = (scale * branches).sum(axis=0).var()
    print(f"{name:13} the branches add a variance of {added:.2f} to that of the embedding")

# %% [markdown] tags=["solution-only"]
# Variances add, and a block has two branches: $N=96$. With $1/\sqrt N$ all branches together weigh about as much as one
# unscaled branch, whatever the depth. With $1/N$ the deepest model would begin as hardly more than its embedding.

# %% [markdown]
# ## 6. Read the log
#
# *Level 1, 10 minutes, id `first_symptom`.* A language model trains with AdamW and a clip at norm 1. Every thousandth
# step its log has a line: loss and gradient norm (before the clip) of that step, the share of the last thousand steps
# that were clipped, the RMS of the step in units of the peak learning rate, and the largest attention logit. Warmup
# lasts 1000 steps. At step 12,000 the run is lost. (The log is made up; notebook 08 has a run of this kind.) In which
# of these rows does what ends the run first show? Give its step.
#
# | step | loss | gradient norm | clipped | RMS of the step | largest attention logit |
# |---|---|---|---|---|---|
# | 1000 | 4.62 | 6.3 | 84% | 0.41 | 7 |
# | 2000 | 3.71 | 1.1 | 31% | 0.33 | 9 |
# | 3000 | 3.44 | 0.82 | 12% | 0.31 | 11 |
# | 4000 | 3.98 | 9.7 | 10% | 0.31 | 13 |
# | 5000 | 3.27 | 0.74 | 9% | 0.30 | 14 |
# | 6000 | 3.20 | 0.71 | 9% | 0.30 | 28 |
# | 7000 | 3.15 | 0.69 | 8% | 0.30 | 55 |
# | 8000 | 3.13 | 0.33 | 2% | 0.30 | 97 |
# | 9000 | 3.12 | 0.27 | 1% | 0.29 | 210 |
# | 10,000 | 3.12 | 0.25 | 3% | 0.29 | 430 |
# | 11,000 | 3.61 | 1.9 | 47% | 0.62 | 900 |
# | 12,000 | NaN | NaN | | NaN | NaN |

# %% tags=["exercise:first_symptom"]
step = ...
### BEGIN SOLUTION
step = 6000
### END SOLUTION

# %% tags=["check:first_symptom"]
check("first_symptom", step)

# %% [markdown] tags=["solution-only"]
# Look at changes, not at sizes. Logits grow in every healthy run, by about as much each time; from 6000 on they double.
# Why the gradient falls afterwards: with the second largest logit at half the largest, softmax hands on
# $p\,(1-p)$ of a gradient, which soon is nothing.

# %% tags=["solution-only"]
largest = np.array([7, 9, 11, 13, 14, 28, 55, 97, 210, 430, 900.0])
p = 1 / (1 + np.exp(-largest / 2))
for row in range(1, 11):
    before, now = largest[row - 1], largest[row]
    print(f"{1000 * (row + 1):6}: + {now - before:3.0f}, times {now / before:.1f}, "
          f"p (1 - p) = {np.exp(-now / 2) * p[row] ** 2:.0e}")

# %% [markdown] tags=["solution-only"]
# The loss tells five thousand steps later. What looks worse before is not: at 4000 loss and gradient norm jump in the
# same step and are back in the next row, a bad batch that the clip has dealt with. The falling gradient norm at 8000
# looks like good news. Go back to the weights of 5000, with QK-norm if the model may change, else with a lower rate;
# and set the alarm on the growth of the logits from now on.
