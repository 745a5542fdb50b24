# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: mixed precision
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("next_scale")` gives one hint at a
# time. From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: mixed precision
#
# The answers to `exercises/11_mixed_precision.ipynb`, each with its reasons. Try the exercise first: what you have
# worked out yourself is there in the interview.

# %%
import copy

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. The scaler's rule
#
# *Level 1, 10 minutes, id `next_scale`.* What `torch.amp.GradScaler` does in `update()`. `scale` multiplied the loss
# of the step just made, `clean_steps` counts the steps without overflow before it, `found_inf` (a bool) tells whether
# one of its gradients was inf or NaN. Return `(scale, clean_steps)` for the next step:
#
# - after an overflow the scale is multiplied by `backoff_factor` (below 1) and the count starts anew at 0;
# - a step without overflow is counted; when `growth_interval` of them in a row are complete, the scale is multiplied
#   by `growth_factor` (above 1) and the count starts anew;
# - a growth beyond float32's largest number is not made: the scale stays, and the count starts anew all the same.


# %% tags=["exercise:next_scale"]
def next_scale(scale, clean_steps, found_inf, growth_factor, backoff_factor, growth_interval):
    ### BEGIN SOLUTION
    if found_inf:
        return scale * backoff_factor, 0
    if clean_steps + 1 < growth_interval:
        return scale, clean_steps + 1
    grown = scale * growth_factor
    return (grown if grown <= float(np.finfo(np.float32).max) else scale), 0
    ### END SOLUTION


# %% tags=["check:next_scale"]
check("next_scale", next_scale)

# %% [markdown] tags=["solution-only"]
# It is a control loop that looks for the edge of overflow: slowly up, at once down. How often does it fall over that
# edge? Let every gradient overflow as soon as the scale exceeds $2^{17}$:

# %% tags=["solution-only"]
scale, clean, skipped = 2.0**16, 0, []
for t in range(1, 20_001):
    overflow = scale > 2**17
    skipped += [t] * overflow
    scale, clean = next_scale(scale, clean, overflow, 2.0, 0.5, 2000)
print("skipped steps:", skipped)
assert len(skipped) == 8

# %% [markdown] tags=["solution-only"]
# One step in 2001 is lost, the price of keeping the scale as high as it can be. There is no floor: if the loss itself
# is NaN, every step is skipped and the scale halves towards 0 without a word. A scaler of your own should stop there.

# %% [markdown]
# ## 2. One step, every call in its place
#
# *Level 2, 20 minutes, id `amp_step`.* Make one optimizer step over the micro-batches in the list `batches`: the
# gradient is the plain mean of the micro-batches' gradients, whatever their sizes, clipped to `max_norm` by its global
# norm, and the loss is scaled. `loss_fn(model, batch)` returns a micro-batch's mean loss, `scaler` is a
# `torch.amp.GradScaler`. No autocast here, and nothing to return. An overflow is the scaler's business: the weights
# stay as they are, the scale falls. When the function is called again, no gradient of this step may count.


# %% tags=["exercise:amp_step"]
def amp_step(model, loss_fn, batches, optimizer, scaler, max_norm):
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    for batch in batches:
        loss = loss_fn(model, batch) / len(batches)
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    ### END SOLUTION


# %% tags=["check:amp_step"]
check("amp_step", amp_step)

# %% [markdown] tags=["solution-only"]
# Each call undoes or completes the one before: `scale` and `unscale_`, backward and `zero_grad`, the check for
# overflow in `unscale_` and its use in `step`, then in `update`. Clipping stands where gradients have their own size.
# Clipped before `unscale_`, a gradient of norm 1 under a scale of 65536 is cut to `max_norm` first and divided by
# 65536 then:

# %% tags=["solution-only"]
for order in ("unscale_, clip", "clip, unscale_"):
    w = torch.nn.Parameter(torch.zeros(1))
    optimizer, scaler = torch.optim.SGD([w], lr=1.0), torch.amp.GradScaler("cpu")
    scaler.scale(w.sum()).backward()
    for call in order.split(", "):
        if call == "clip":
            torch.nn.utils.clip_grad_norm_([w], 0.5)
        else:
            scaler.unscale_(optimizer)
    scaler.step(optimizer)
    print(f"{order:14}: a step of {-w.item():.2g}")

# %% [markdown] tags=["solution-only"]
# Adam hides this: it divides by the gradients' own size, and moves on at its usual pace, until $\epsilon$ is no
# longer small beside them. A forgotten `zero_grad` hides as well, since what is left over is unscaled and counts for
# 1 / scale only. Then an overflow leaves inf and NaN in `.grad`, and every later step is skipped.

# %% [markdown]
# ## 3. What a resume needs
#
# *Level 2, 15 minutes, id `resume_state`.* A run is to be stopped and resumed so that its next step is the one it
# would have made. Return a dict with the keys `"model"`, `"optimizer"`, `"scheduler"`, `"scaler"` and `"generator"`:
# for the first four what their `load_state_dict` takes, for the last what the `set_state` of a `torch.Generator`
# takes (it draws the batches). The run goes on after your call while the dict waits to be written: nothing in it may
# change with the run, and the run must not notice.


# %% tags=["exercise:resume_state"]
def resume_state(model, optimizer, scheduler, scaler, generator):
    ### BEGIN SOLUTION
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "generator": generator.get_state(),
    }
    return copy.deepcopy(state)
    ### END SOLUTION


# %% tags=["check:resume_state"]
check("resume_state", resume_state)

# %% [markdown] tags=["solution-only"]
# `state_dict()` copies dicts and no tensors: what it hands out are the live ones. A `torch.save` at once hides that;
# a checkpoint that is written in the background, or a "best so far" that is kept in a variable, does not.

# %% tags=["solution-only"]
w = torch.nn.Linear(1, 1)
best, kept = w.state_dict(), copy.deepcopy(w.state_dict())
with torch.no_grad():
    w.weight += 1
print("changed with the model:", not torch.equal(best["weight"], kept["weight"]))

# %% [markdown] tags=["solution-only"]
# Each part left out has its own symptom: without the optimizer a bump in the loss, without the scheduler a second
# warmup, without the scaler some skipped steps at its initial scale, without the generator the first batches once
# more. Only the last is invisible in a loss curve. Real runs need the state of the data loader's workers and of each
# GPU's generator (dropout) as well.

# %% [markdown]
# ## 4. One sum in four ways
#
# *Level 1, 10 minutes, id `four_sums`.* Add `value` to a total `count` times, one addition after the other, starting
# from 0, in four ways. In each, the total has the type named first after **every** addition:
#
# | | total | term |
# |---|---|---|
# | 1 | float32 | `value` as float32 |
# | 2 | float16 | `value` as float16 |
# | 3 | float32 | `value` as float16 |
# | 4 | float32 | `value` as float16, converted to float32 before the loop |
#
# Return the four totals in this order. Before you run it with 0.01 and 1000: which of them are equal?


# %% tags=["exercise:four_sums"]
def four_sums(value, count):
    ### BEGIN SOLUTION
    half = np.float16(value)
    ways = [
        (np.float32(0), np.float32(value)),
        (np.float16(0), half),
        (np.float32(0), half),
        (np.float32(0), np.float32(half)),
    ]
    sums = []
    for total, term in ways:
        for _ in range(count):
            total = total + term  # a float32 total and a float16 term give a float32
        sums.append(float(total))
    return tuple(sums)
    ### END SOLUTION


# %% tags=["check:four_sums"]
check("four_sums", four_sums)

# %% tags=["solution-only"]
for value, count in ((0.01, 1000), (1.0, 3000)):
    print(f"{value:g} x {count}:", "  ".join(f"{s:.4f}" for s in four_sums(value, count)))
third, fourth = four_sums(0.01, 1000)[2:]
assert third == fourth

# %% [markdown] tags=["solution-only"]
# Third and fourth are equal: the term was rounded once, and converting it back restores nothing. That costs 0.02% and
# stays 0.02%. Rounding the *total* is what ruins the second: at 2048 the spacing of fp16 is 2, so 1 is rounded away,
# and the sum stands still. Hence 16-bit products with float32 totals in every matrix unit, and float32 for what adds
# up over a run: weights, moments, gradients.

# %% [markdown]
# ## 5. Stochastic rounding
#
# *Level 2, 15 minutes, id `stochastic_round`.* bf16 is the upper half of a float32. Round the float32 tensor `x` to a
# bfloat16 tensor of its shape with the random numbers `noise` (int32, of x's shape, 0 to 65535): add the noise to x's
# bits, then set the low 16 bits to zero. A carry into the upper half then is as likely as x is near the next number.
# A number that bf16 has stays as it is, and so do $\pm\infty$; every NaN stays NaN (mind those whose bits are all
# ones, or all in the lower half). Leave `x` unchanged.


# %% tags=["exercise:stochastic_round"]
def stochastic_round(x, noise):
    ### BEGIN SOLUTION
    bits = x.view(torch.int32) + noise
    rounded = (bits & -65536).view(torch.float32)  # -65536 is 0xFFFF0000
    return torch.where(x.isnan(), x, rounded).to(torch.bfloat16)
    ### END SOLUTION


# %% tags=["check:stochastic_round"]
check("stochastic_round", stochastic_round)

# %% [markdown] tags=["solution-only"]
# For a negative number the same bits hold: sign and size are kept apart, so the noise makes the size larger. What it
# is for: a weight of 1 that is to fall by 0.0001 a thousand times. To nearest, every one of these steps is lost; with
# noise most are lost too, but the few that happen are as much larger:

# %% tags=["solution-only"]
rng = np.random.default_rng(0)
nearest = torch.ones(4096, dtype=torch.bfloat16)
noisy = nearest.clone()
for _ in range(1000):
    nearest = (nearest.float() - 1e-4).to(torch.bfloat16)
    noise = torch.from_numpy(rng.integers(0, 65536, noisy.shape, dtype=np.int32))
    noisy = stochastic_round(noisy.float() - 1e-4, noise)
average, spread = noisy.float().mean(), noisy.float().std()
print(f"to nearest: {nearest.float().mean():.4f}; with noise: {average:.2f} on average, spread {spread:.2f}; exact: 0.9")
assert abs(average - 0.9) < 2e-3

# %% [markdown] tags=["solution-only"]
# The average is right, each single weight is off by about two hundredths: noise for bias. The other cures keep the low
# bits somewhere, in a float32 master copy or in a second bf16 number (Kahan).

# %% [markdown]
# ## 6. The smallest scale
#
# *Level 1, 5 minutes, id `smallest_scale`.* A gradient of 1e-8 becomes 0 in fp16, rounded to nearest. Which is the
# smallest power of two by which the loss must be multiplied so that it does not?

# %% tags=["exercise:smallest_scale"]
scale = ...
### BEGIN SOLUTION
scale = 4
### END SOLUTION

# %% tags=["check:smallest_scale"]
check("smallest_scale", scale)

# %% tags=["solution-only"]
for factor in (1, 2, 4, 8):
    print(f"{factor} * 1e-8 in fp16: {np.float16(factor * 1e-8):.3g}")
assert np.float16(4e-8) > 0 == np.float16(2e-8)

# %% [markdown] tags=["solution-only"]
# fp16's smallest number is $2^{-24} \approx 6.0\cdot 10^{-8}$, and everything above half of it, $2^{-25} \approx
# 3.0\cdot 10^{-8}$, rounds up to it. That the gradient is no longer 0 does not make it right: $4\cdot 10^{-8}$
# becomes $6\cdot 10^{-8}$. For all 11 bits it must reach $2^{-14}$: a scale of 8192.

# %% [markdown]
# ## 7. The step that bf16 does not see
#
# *Level 1, 5 minutes, id `frozen_step`.* A weight is 1.0 in bf16. Each step subtracts the same small number and
# rounds the result to bf16, to nearest, ties to even. Which is the largest such number with which the weight never
# moves?

# %% tags=["exercise:frozen_step"]
step = ...
### BEGIN SOLUTION
step = 2**-9
### END SOLUTION

# %% tags=["check:frozen_step"]
check("frozen_step", step)

# %% tags=["solution-only"]
one = torch.tensor(1.0)
for size, name in ((2**-9, "2^-9"), (2**-9 * 1.001, "2^-9 * 1.001")):
    print(f"1 - {name} in bf16: {(one - size).to(torch.bfloat16).item()}")
assert (one - 2**-9).to(torch.bfloat16) == 1 > (one - 2**-9 * 1.001).to(torch.bfloat16)

# %% [markdown] tags=["solution-only"]
# Just below 1 bf16's numbers are $2^{-8}$ apart, half the spacing above 1. The middle, $1 - 2^{-9}$, is a tie, and 1
# is the even one. With Adam a step is about lr long: a weight of size 1 does not move at any learning rate up to
# 0.00195, the usual 3e-4 included.

# %% [markdown]
# ## 8. Read the log
#
# *Level 1, 5 minutes, id `underflow_step`.* A language model trains in fp16 under `GradScaler(growth_interval=1000)`.
# Every thousandth step its log has a line: the loss, the scale, the norm of the unscaled gradient, how many of the
# gradient's elements are exactly zero, and how many steps were skipped so far. (The log is made up, of gradients
# whose sizes are spread as log-normal numbers; the solution shows how.) Rows of the embedding that no token of a
# batch uses have zero gradients in any precision. At which of these steps are gradients first lost to underflow?
#
# | step | loss | scale | gradient norm | zero gradients | skipped |
# |---|---|---|---|---|---|
# | 1000 | 6.21 | 131072 | 2.1 | 3% | 0 |
# | 2000 | 5.13 | 262144 | 1.4 | 3% | 0 |
# | 3000 | 4.62 | 131072 | 1.1 | 3% | 1 |
# | 4000 | 5.87 | 64 | 120 | 3% | 13 |
# | 5000 | 4.55 | 32 | 0.95 | 23% | 14 |
# | 6000 | 4.51 | 64 | 0.25 | 29% | 14 |
# | 7000 | 4.51 | 128 | 0.08 | 34% | 14 |
# | 8000 | 4.49 | 256 | 0.08 | 27% | 14 |

# %% tags=["exercise:underflow_step"]
step = ...
### BEGIN SOLUTION
step = 5000
### END SOLUTION

# %% tags=["check:underflow_step"]
check("underflow_step", step)

# %% [markdown] tags=["solution-only"]
# The spike before step 4000 made gradients overflow again and again, and the scaler did its work: it went down to
# what the large gradients could bear. At 4000 they are still large, and even a scale of 64 loses next to none. By
# 5000 they are small again, and the scale comes back by a factor of 2 per 1000 steps only. The column follows from
# the two beside it, with sizes of gradients spread over several powers of ten, as they are in language models:

# %% tags=["solution-only"]
log = [(1000, 2**17, 2.1), (2000, 2**18, 1.4), (3000, 2**17, 1.1), (4000, 64, 120.0),
       (5000, 32, 0.95), (6000, 64, 0.25), (7000, 128, 0.08), (8000, 256, 0.08)]
sizes = 10 ** (1.3 * np.random.default_rng(0).normal(size=200_000))
sizes *= 1 / np.exp((1.3 * np.log(10)) ** 2) / np.sqrt(124e6)      # 124 million of them have norm 1
zeros = [0.03 + 0.97 * np.mean((norm * sizes * scale).astype(np.float16) == 0) for _, scale, norm in log]
print({step: f"{share:.0%}" for (step, _, _), share in zip(log, zeros)})

# %% [markdown] tags=["solution-only"]
# The loss says nothing at 5000, and neither does the norm: what is lost has no size. So log the share of zeros beside
# the scale. What helps here: a shorter growth interval, a floor for the scale, bf16 instead of fp16.
