# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Schedules
#
# ## 1. The question
#
# > *You have 100,000 updates. Draw the learning rate over them, and defend every bend of the line.*
#
# Afterwards you can give three reasons for warmup and refute the popular fourth, say what each decay buys and when to
# stop, finish one run at several lengths, group parameters by rate and decay, and count what a schedule does to weight
# decay.
#
# Know first: notebook 01 (lr below 2 / curvature), 04 and 05. Time: 60 minutes.

# %%
import copy
import itertools
import math
import warnings
from types import SimpleNamespace

import numpy as np
import torch
from torch.optim import lr_scheduler

from course_lib import averaging, plots, schedules
from course_lib.compare import compare
from course_lib.groups import describe, parameter_groups
from course_lib.kernels import bench
from course_lib.optim.radam import rectifier
from course_lib.problems import lm, text
from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.full_batch import descend
from course_lib.problems.noisy_quadratic import NoisyQuadratic, expected_losses
from course_lib.problems.norm_order import increment_loss, last_gradient
from course_lib.problems.sharpness import sharpness
from course_lib.train import pick_device, train


def curve(schedule, total):
    """The multiplier of the base rate at each of ``total`` updates."""
    return np.array([schedule(t) for t in range(total)])

# %% [markdown]
# ## 2. The picture
#
# A drive begins in a garage, at walking pace, because of what may stand behind the door. Then the motorway, where the
# distance is covered. Nobody parks at that speed: one must slow down before the end, and therefore know where it is.

# %%
ends = {"cosine to 10%": schedules.cosine(1000, 50, 0.1), "linear to zero": schedules.linear_to_zero(1000, 50),
        "warmup, stable, decay": schedules.warmup_stable_decay(1000, 50, 200)}
open_ended = {"constant": schedules.linear_warmup(50), "inverse square root": schedules.inverse_sqrt(50),
              "cosine with restarts": schedules.cosine_restarts(238, warmup=50)}
axes = dict(xlabel="update", ylabel="rate / peak", ylim=(0, 1.05))
plots.show(plots.lines_grid([
    dict(series={name: curve(s, 1000) for name, s in ends.items()}, title="These must know the end", **axes),
    dict(series={name: curve(s, 1000) for name, s in open_ended.items()}, title="These need not", **axes)]),
    alt="Rate over 1000 updates after a warmup of 50. Left: a cosine to 10%, a line to zero, and a plateau that falls "
        "over the last 200. Right: a constant, an inverse square root, and a cosine that restarts three times.")

# %% [markdown]
# Three parts: a rise, a high stretch, a fall. Each has its own reason.
#
# ## 3. The derivation
#
# ### 3.1 Warmup: the popular reason is wrong
#
# "Early on, $\hat v$ is too small, so Adam's first steps are too long." If that were so, its mean would lie below the
# truth, and the first step would exceed lr. Feed torch's Adam 4,000 parameters whose gradients are noise of variance
# 1, with lr = 1, and look:

# %%
param, rng, rows = torch.zeros(4000, dtype=torch.float64), np.random.default_rng(0), []
run = torch.optim.Adam([param], lr=1.0)
for t in range(1, 2001):
    before, param.grad = param.clone(), torch.from_numpy(rng.standard_normal(4000))
    run.step()
    v_hat = run.state[param]["exp_avg_sq"].mean() / (1 - 0.999**t)
    rows.append((((param - before) ** 2).mean().sqrt().item(), v_hat.item()))
adam, v_hat = np.array(rows).T
for t in (1, 3, 10, 100, 2000):
    print(f"t = {t:4}: mean of v_hat {v_hat[t - 1]:.2f}, RMS step {adam[t - 1]:.2f} lr")
assert np.allclose(v_hat, 1, atol=0.05) and np.isclose(adam[0], 1) and adam[-1] < 0.25

# %% [markdown]
# $\hat v$ is right from the first step, and the first step is lr, as notebook 04 derived. The *raw* $v$ is too small;
# correction is there for that. (Section 3.3 refutes the sentence a second time: plain gradient descent, which has no
# $v$, profits from warmup too.)
#
# ### 3.2 First reason: the first steps are noise
#
# Something else is wrong with the table. A parameter whose gradient says nothing moves a full lr at first, and a
# quarter of it later, when $m$ has averaged. The few gradients that go into $m$ and $\hat v$ are the same ones. RAdam
# (Liu et al. 2020) computes how uncertain $1/\sqrt{\hat v}$ still is, and shortens the step by the factor $r_t$ of
# notebook 04. Ma & Yarats (2019) answer that a plain warmup over $2/(1-\beta_2)$ updates trains as well:

# %%
steps, r = np.arange(1, 2001), np.array([rectifier(t, 0.999) or np.nan for t in range(1, 2001)])
paths = {"Adam": adam, "RAdam, from step 6": adam * r, "Adam, warmup of 2000": adam * steps / 2000}
plots.show(plots.lines(paths, title="RAdam is a warmup too", logx=True, logy=True, xlabel="update",
                       ylabel="RMS step on pure noise (units of lr)"), alt="Log axes. Adam falls from 1 to 0.23 in "
           "thirty updates. RAdam rises from 0.01 at step 6 to 0.2, Adam with a warmup of 2000 from 0.0005 to 0.23.")
print("share of Adam's step at t = 10, 100, 1000: RAdam", r[[9, 99, 999]].round(2), " warmup", [0.005, 0.05, 0.5])

# %% [markdown]
# RAdam is steeper at first; both need about 2,000 updates at $\beta_2=0.999$, and 40 would do at 0.95. So this reason
# cannot be why language models with 0.95 warm up for thousands.
#
# ### 3.3 Second reason: curvature
#
# Gradient descent is stable while lr < 2 / sharpness. A network may begin where it is sharp. Take notebook 01's tanh
# network with weights 1.5 times larger, *all* data in each step and plain gradient descent: no noise, no second moment.
# The peak rate is a multiple of what the start allows:

# %%
loss, start = tanh_fit()
start = 1.5 * start
limit = 2 / descend(loss, start, lr=0.0, steps=1, look=1).sharpness[0]
for k in (1, 2, 3, 4):
    cold, warm = (descend(loss, start, k * limit, 600, schedule=schedules.linear_warmup(w)).survived for w in (0, 400))
    print(f"peak at {k} times the limit: survives without warmup {cold}, with warmup {warm}")

# %%
cold, warm = (descend(loss, start, 3 * limit, 600, schedule=schedules.linear_warmup(w), look=20) for w in (0, 400))
edge = 2 / (3 * limit * np.minimum(1, (warm.seen_at + 1) / 400))
panels = [dict(series={"no warmup": cold.losses, "warmup of 400": warm.losses}, logy=True, ylabel="loss",
               title="At 3 times the limit, only warmup survives", xlabel="update"),
          dict(series={"sharpness": (warm.seen_at, warm.sharpness), "2 / rate": (warm.seen_at[3:], edge[3:])},
               title="As the rate rises, sharpness is pushed below 2 / rate", logy=True, xlabel="update",
               ylabel="curvature")]
plots.show(plots.lines_grid(panels), alt=(
    "Left: loss on a log axis. Without warmup it explodes within a few updates; with warmup it falls, with a few "
    "bumps. Right: sharpness begins near 43 and climbs slowly; when the falling curve 2 / rate meets it, it drops to "
    "about 20, and again later; it ends near 2 / rate, about 15."))
assert not cold.survived and warm.losses[-1] < 0.5 and warm.sharpness[0] > 1.5 * warm.sharpness[-1]

# %% [markdown]
# Each time the rate crosses the edge, the iterate is thrown across the valley and lands where it is flatter: a small
# *catapult* (Lewkowycz et al. 2020). From the start the same throw at three times the limit never lands. Gilmer et al.
# (2021) saw it in vision and translation models; Kalra & Barkeshli (2024) call it the overwhelming benefit of warmup,
# for SGD and Adam: **it buys a higher peak.** At twice the limit, the catapult alone suffices.
#
# ### 3.4 Third reason: gradients at the output
#
# In the original Transformer the norm comes *after* each residual sum. Xiong et al. (2020) show that at initialisation
# the gradient of the last layers is then large whatever the depth, and falls with depth if the norm comes first:

# %%
norms = {name: np.array([last_gradient(first, layers) for layers in (2, 4, 8, 16)])
         for name, first in (("after", False), ("before", True))}
for name, norm in norms.items():
    print(f"norm {name:6} the sum: gradient at depth 2, 4, 8, 16 over that at 2:", (norm / norm[0]).round(2))
assert norms["after"][-1] > 0.5 * norms["after"][0] and norms["before"][-1] < 0.5 * norms["before"][0]

# %% [markdown]
# Does it matter for training? Eight layers learn to say the next number, 60 updates of Adam; chance is
# $\ln32=3.47$:

# %%
for first, peak, warmup in ((False, 1e-3, 0), (False, 1e-2, 0), (False, 1e-2, 30), (True, 1e-2, 0)):
    end = increment_loss(first, peak, warmup)
    print(f"norm {'before' if first else 'after':6} the sum, peak {peak:5}, warmup {warmup:2}: learned {end < 0.7}")
    assert end < 0.7 or end > 3

# %% [markdown]
# At 1e-3 post-norm does without warmup (a longer copy task gave the same negative result). At 1e-2 it collapses and
# pre-norm does not. Once more the question is not whether to warm up, but how high the peak may be. Which reason counts
# most in a given run is contested; Kosson et al. (2024) add a fourth, that early updates of GPT training turn weights
# by large angles. Recipes range from 0.1% of the run (GPT-3) over 0.7% (Llama 3 405B) to 4% (the first Transformer).
#
# ### 3.5 Decay: distance and noise
#
# Why come down? One weight with curvature $h$ whose gradient has noise of deviation $\sigma$ follows
# $w_{t+1}=(1-\eta_th)w_t-\eta_t\sigma\xi_t$. Square, average, unroll:
#
# $$\mathbb E[w_T^2]=\underbrace{w_0^2\prod_t(1-\eta_th)^2}_{\text{start}\;\approx\;w_0^2e^{-2h\sum\eta_t}}
# +\underbrace{\sigma^2\sum_t\eta_t^2\prod_{s>t}(1-\eta_sh)^2}_{\text{noise}}.$$
#
# The start is forgotten with the *sum* of all rates. Noise remembers only the last $1/(\eta h)$ updates, and at a
# constant rate settles at $\eta\sigma^2/2h$. So: a large sum, then small last rates. Everything below follows from it.
# The instrument is a quadratic with 60 curvatures from 1 to 0.01; its expected loss is exact, no seeds needed:

# %%
problem = NoisyQuadratic(np.logspace(0, -2, 60), noise=0.3)

def parts(rates):
    """What the start and what noise contribute to the expected loss after these rates."""
    factors = (1 - np.outer(rates, problem.curvatures)) ** 2
    from_here = np.cumprod(factors[::-1], axis=0)[::-1]
    later = np.vstack([from_here[1:], np.ones(60)])
    noise = 0.3**2 * (rates[:, None] ** 2 * later).sum(axis=0)
    return problem.curvatures @ from_here[0] / 2, problem.curvatures @ noise / 2

for name, s in {"constant": schedules.constant(), "linear to zero": schedules.linear_to_zero(1000)}.items():
    left, noise = parts(0.1 * curve(s, 1000))
    print(f"{name:14} at peak 0.1: start {left:.4f}, noise {noise:.4f}")
    assert compare("their sum", left + noise, expected_losses(problem, 0.1, 1, 1000, schedule=s)[-1])

# %% [markdown]
# Half the sum leaves five times as much of the start. The noise falls to less than a third, and that decides.
#
# ### 3.6 Cosine: planned, stopped, restarted
#
# Half a cosine (Loshchilov & Hutter 2017) became the habit in language models, with a floor of 10% (GPT-3, Chinchilla).
# A cosine for 1,000 updates, one for 500, and four restarts, all at peak 0.25:

# %%
plans = {"cosine, 1000": schedules.cosine(1000), "cosine, 500": schedules.cosine(500),
         "four cycles of 250": schedules.cosine_restarts(250), "constant": schedules.constant()}
path = {name: expected_losses(problem, 0.25, 1, 1000, schedule=s) for name, s in plans.items()}
path["cosine, 500"][501:] = np.nan
plots.show(plots.lines(path, title="A cosine pays at its end, and only there", logy=True, ylim=(0.05, 2),
                       xlabel="update", ylabel="expected loss"),
           alt="Expected loss by update, log axis. The constant rate levels off near 0.35. The cosine for 1000 "
               "stands at 0.2 when the cosine for 500 ends at 0.11, and ends at 0.08. Four cycles fall to about 0.15 "
               "and jump back to 0.3 after each restart.")
early, planned = path["cosine, 1000"][500], path["cosine, 500"][500]
print(f"at update 500: planned for 1000 {early:.3f}, for 500 {planned:.3f}: {early / planned:.1f} times the loss")
print(f"at update 1000: one cosine {path['cosine, 1000'][-1]:.3f}, four cycles {path['four cycles of 250'][-1]:.3f}")
assert early > 1.5 * planned and path["four cycles of 250"][-1] > 1.1 * path["cosine, 1000"][-1]

# %% [markdown]
# Stopping early wastes the fall; that is why Chinchilla (2022) set the cycle to the token budget, and found earlier
# scaling laws misled by not doing so. Restarts give a good model at the end of each cycle: SGDR was about *anytime*
# performance. "They jump out of local minima" is not what this shows: the bowl has none. Each jump throws in noise
# again.
#
# ### 3.7 Warmup, stable, decay
#
# A plateau, then a short fall (WSD; MiniCPM 2024). Nothing on the plateau depends on the end. So train the small
# language model once at a constant rate, keep three checkpoints, and cool each down over 80 updates:

# %%
data, held_out = text.split(text.corpus())
batches, fixed = list(text.batches(data, 16, 32, 480, seed=0)), list(text.batches(held_out, 64, 32, 4, seed=9))
device = pick_device()

def held_out_loss(model):
    with torch.no_grad():
        return np.mean([lm.next_byte_loss(model, (x.to(device), y.to(device))).item() for x, y in fixed])

def follow(model, optimizer, begin, end, schedule, kept=()):
    """Train from update ``begin`` to ``end``; held-out loss every 20 updates, and copies at those in ``kept``."""
    seen, copies = [], {}
    def look(step, history):
        if (done := begin + step + 1) % 20 == 0:
            seen.append((done, held_out_loss(model)))
        if done in kept:
            copies[done] = copy.deepcopy((model, optimizer))
    train(model, optimizer, batches[begin:end], loss_fn=lm.next_byte_loss, schedule=schedule, callback=look,
          device=device, progress=False)
    return np.array(seen).T, copies

# %% tags=["nbval-ignore-output"]
model = lm.ByteLM(lm.LMConfig(width=32, context=32)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.04, betas=(0.9, 0.95), weight_decay=0.1)
trunk, copies = follow(model, optimizer, 0, 480, schedules.linear_warmup(20), kept=(200, 300, 400))
runs = {"constant": trunk}
for begin, (model, optimizer) in copies.items():
    fall, _ = follow(model, optimizer, begin, begin + 80, schedules.linear_to_zero(80))
    runs[f"cooled from {begin}"] = np.c_[trunk[:, trunk[0] == begin], fall]
    same_updates = trunk[1, trunk[0] == begin + 80][0]
    print(f"at {begin + 80}: constant {same_updates:.3f}, cooled {fall[1, -1]:.3f}")
    assert fall[1, -1] < same_updates
plots.show(plots.lines({name: (x[x >= 160], y[x >= 160]) for name, (x, y) in runs.items()}, xlabel="update",
                       title="The plateau hides progress; each cool-down shows it", ylabel="held-out loss (nats/byte)"),
           alt="Held-out loss of the language model from update 160. The constant rate falls slowly and unevenly. From "
               "200, 300 and 400 a branch falls below it within 80 updates, each branch lower than the last.")

# %% [markdown]
# The drop is no sudden insight. In the formula of 3.5 the plateau shrinks the start's part, beneath noise that the
# fall takes away (Wen et al. 2024: a river at the bottom of a valley). So never judge a plateau's loss against a
# cosine's; cool a copy. DeepSeek-V3 held its rate for 10 trillion tokens.
#
# ### 3.8 Which fall? A tuned comparison
#
# Every schedule gets its own best peak, from a grid of factor $\sqrt2$. Printed is the loss over that of linear to
# zero, for three budgets:

# %%
peaks = 2.0 ** np.arange(-7.5, 0.6, 0.5)

def tuned(schedule, total):
    last = expected_losses(problem, peaks, 1, total, schedule=schedule)[-1]
    best = np.nanargmin(last)
    assert 0 < best < len(peaks) - 1      # the optimum lies inside the grid
    return last[best]

make = {"constant": lambda n: schedules.constant(), "four cycles": lambda n: schedules.cosine_restarts(n // 4),
        "inverse square root": lambda n: schedules.inverse_sqrt(n // 50),
        "WSD, last 10%": lambda n: schedules.warmup_stable_decay(n, 0, n // 10),
        "WSD, last 20%": lambda n: schedules.warmup_stable_decay(n, 0, n // 5),
        "WSD, 20%, 1 - sqrt": lambda n: schedules.warmup_stable_decay(n, 0, n // 5, shape="sqrt"),
        "cosine to 0": schedules.cosine, "cosine to 10%": lambda n: schedules.cosine(n, floor=0.1),
        "linear to 10%": lambda n: schedules.warmup_stable_decay(n, 0, n, floor=0.1)}
budgets = (100, 1000, 6000)
linear = np.array([tuned(schedules.linear_to_zero(n), n) for n in budgets])
ratio = {name: np.array([tuned(build(n), n) for n in budgets]) / linear for name, build in make.items()}
print(f"{'':20}" + "".join(f"{n:7} updates" for n in budgets))
for name, row in ratio.items():
    print(f"{name:20}" + "".join(f"{value:15.2f}" for value in row))
assert ratio["linear to 10%"][0] < 1 < ratio["linear to 10%"][-1] and ratio["constant"][-1] > 1.5

# %% [markdown]
# - A floor helps a short run, where the start still counts, and costs a long one, where only noise is left. Bergsma et
#   al. (2025) find the same on language models up to 1.7 billion parameters: linear to zero wins, and by more the more
#   tokens each parameter sees. Cosine to 10% is a tie here.
# - WSD with a short fall is dearer here; on language models Hägele et al. (2024) match a cosine with 20% and
#   1 - sqrt. A convex bowl with equal noise everywhere is not a language model.
# - The inverse square root (Vaswani et al. 2017) is the best that needs no end.
#
# ### 3.9 Averaging instead
#
# If the fall only removes noise, averaging the weights of a constant run should do it too. Two schedules, each with the
# whole grid of peaks and eight runs for each, and three ways to read the result, at its best peak:

# %%
rate_of_row, h, best = torch.from_numpy(peaks)[:, None, None], torch.from_numpy(problem.curvatures), {}
for name, s in (("constant", schedules.constant()), ("linear to zero", schedules.linear_to_zero(1000))):
    weights, rng = torch.ones(len(peaks), 8, 60, dtype=torch.float64), np.random.default_rng(0)
    readings = [averaging.EMA([weights], 0.995), averaging.TailAverage([weights], 500)]
    for t in range(1000):
        weights -= s(t) * rate_of_row * (h * weights + torch.from_numpy(0.3 * rng.standard_normal(weights.shape)))
        for reading in readings:
            reading.update()
    found = [weights, *(reading.averaged()[0] for reading in readings)]
    best[name] = [problem.loss(w.numpy()).mean(axis=1).min() for w in found]
    print(f"{name:14} last weights {best[name][0]:.3f}, EMA {best[name][1]:.3f}, mean of last half {best[name][2]:.3f}")
assert best["constant"][0] > 1.3 * best["linear to zero"][0] > 1.1 * max(best["constant"][1:])
assert min(best["linear to zero"][1:]) > 0.97 * best["linear to zero"][0]

# %% [markdown]
# Averaging *replaces* the fall. It does not add to it: noise can be removed once. DeepSeek-V3 kept an EMA during
# training to estimate how the model would do after decay. Notebook 08 goes on from here.
#
# ### 3.10 Weight decay follows the schedule
#
# AdamW multiplies by $1-\eta_t\lambda$, so decay rises and falls with the rate. Unroll, with $u_t$ Adam's direction:
#
# $$w_T=w_0\prod_t(1-\eta_t\lambda)-\sum_t c_tu_t,\qquad c_t=\eta_t\prod_{s>t}(1-\eta_s\lambda),\qquad
# \prod_t(1-\eta_t\lambda)\approx e^{-\lambda\sum\eta_t}.$$
#
# Weights are a moving average of updates (Wang & Aitchison 2024); only the product $\eta\lambda$ sets its length,
# $1/\eta\lambda$ updates. Halve $\eta$, double $\lambda$: the same average. Check with torch, then draw the $c_t$:

# %%
def coefficients(rates, decay):
    from_here = np.cumprod((1 - decay * rates)[::-1])[::-1]
    return from_here[0], rates * np.append(from_here[1:], 1.0)

rates = 0.01 * curve(schedules.cosine(300, 30, 0.1), 300)
pair = torch.ones(2, dtype=torch.float64)
adamw = torch.optim.AdamW([pair], lr=1.0, weight_decay=0.5)
for rate in rates:
    adamw.param_groups[0]["lr"], pair.grad = rate, torch.tensor([0.0, 1.0], dtype=torch.float64)      # u = 0 and 1
    adamw.step()
left, c = coefficients(rates, 0.5)
assert compare("both weights", pair, [left, left - c.sum()])

shares = {}
four = {"constant": schedules.constant(), "WSD, last 20%": schedules.warmup_stable_decay(10_000, 0, 2000),
        "cosine to 10%": schedules.cosine(10_000, 0, 0.1), "linear to zero": schedules.linear_to_zero(10_000)}
for name, s in four.items():
    left, c = coefficients(1e-2 * curve(s, 10_000), 0.1)      # so large an lr that 10,000 updates are 10 memories
    shares[name] = 1e4 * c / c.sum()
    print(f"{name:15} leaves {left:.1e} of the start; averages {c.sum() ** 2 / (c**2).sum():5.0f} updates evenly")
plots.show(plots.lines(shares, xlabel="update t", ylabel="share of update t (1 = even)",
                       title="A long fall spreads the final weights over more updates"),
           alt="Share of each of 10,000 updates in the final weights. Constant: almost all comes from the last 2000, "
               "rising to 10. WSD: a peak near 8600. Cosine and linear: broad humps around 6500, at most about 2.")

# %% [markdown]
# A constant rate averages $2/\eta\lambda$ updates, the long falls three times as many: the noise argument again, now
# inside AdamW. This is Bergsma et al.'s reading of linear to zero. A schedule that falls also decays less: half, for
# cosine or linear to zero. Change the schedule, and $\lambda$ means something else.
#
# ### 3.11 Not every tensor gets the same rate
#
# A schedule multiplies; each group has its own base. Norms and biases are not decayed (notebook 05). In *fine-tuning*,
# rates fall from the head down to the embedding, in public recipes for BEiT and MAE by 0.65 to 0.75 per layer, so that
# early layers keep what they know; pretraining does not do this. The helper names what it grouped:

# %%
model = lm.ByteLM(lm.LMConfig(width=32, context=32))
groups = parameter_groups(model, lr=1e-3, weight_decay=0.1, layer_decay=0.5)
print(describe(groups))
assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())

# %%
before, optimizer = copy.deepcopy(model), torch.optim.AdamW(groups, betas=(0.9, 0.95))
train(model, optimizer, batches[:20], loss_fn=lm.next_byte_loss, device="cpu", progress=False)
for block, lr in ((0, 0.00025), (1, 0.0005)):
    moved = (model.blocks[block].mlp_in.weight - before.blocks[block].mlp_in.weight).abs().mean().item()
    print(f"block {block} at lr {lr:.5f}: moved by 2 to 20 of its lr in 20 updates: {2 * lr < moved < 20 * lr}")

# %% [markdown]
# Under Adam a rate is a distance, so a group's multiplier is the share of the way that it may go.
#
# ## 4. The whole
#
# One function holds all schedules that have an end. Shape and length of the fall are its arguments:

# %%
def rate(t, total, warmup=0, decay=None, floor=0.0, shape=lambda p: 1 - p):
    """Multiplier at update t = 0, 1, ...: a warmup, a plateau, a fall to the floor over the last ``decay`` updates."""
    start = warmup if decay is None else total - decay
    p = min(max(t - start, 0) / (total - start), 1.0)      # share of the fall that is over
    return (t + 1) / warmup if t < warmup else floor + (1 - floor) * shape(p)

# %%
fall = dict(warmup=30, shape=lambda p: (1 + math.cos(math.pi * p)) / 2)
mine = [rate(t, 300, floor=0.1, **fall) for t in range(320)]
assert compare("cosine", mine, curve(schedules.cosine(300, 30, 0.1), 320))
mine = [rate(t, 300, 30, 60, shape=lambda p: 1 - math.sqrt(p)) for t in range(320)]
assert compare("WSD", mine, curve(schedules.warmup_stable_decay(300, 30, 60, shape="sqrt"), 320))
print("linear, updates 0, 29, 30, 299, 300:", [round(rate(t, 300, 30), 4) for t in (0, 29, 30, 299, 300)])

# %% [markdown]
# Four boundaries decide most reviews: the first update moves; update `warmup - 1` is the first at full rate; the last
# one still moves; beyond the end nothing rises.
#
# ## 5. Against production
#
# torch's schedulers, stepped once per update after the optimizer:

# %%
def of_torch(make, total=320):
    """Rates that a torch scheduler gives to a base rate of 1."""
    sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # SequentialLR warns of its own calls
        scheduler, seen = make(sgd), []
        for _ in range(total):
            seen.append(sgd.param_groups[0]["lr"])
            sgd.step()
            scheduler.step()
    return np.array(seen)

def sequence(optimizer):
    return lr_scheduler.SequentialLR(optimizer, milestones=[30], schedulers=[
        lr_scheduler.LinearLR(optimizer, start_factor=1 / 30, total_iters=29),
        lr_scheduler.CosineAnnealingLR(optimizer, T_max=290, eta_min=0.1)])

for name, ours, theirs in (
        ("LinearLR, Cosine", schedules.cosine(320, 30, 0.1), sequence),
        ("WarmRestarts", schedules.cosine_restarts(50, 2),
         lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=50, T_mult=2)),
        ("PolynomialLR", schedules.linear_to_zero(300), lambda o: lr_scheduler.PolynomialLR(o, 300)),
        ("StepLR", schedules.step_decay(100, 0.1), lambda o: lr_scheduler.StepLR(o, 100, 0.1)),
        ("LambdaLR", schedules.inverse_sqrt(30), lambda o: lr_scheduler.LambdaLR(o, schedules.inverse_sqrt(30)))):
    assert compare(name, curve(ours, 320), of_torch(theirs))

# %% [markdown]
# A schedule keeps no bytes per parameter, and its time hardly depends on the model:

# %% tags=["nbval-ignore-output"]
scheduler = lr_scheduler.LambdaLR(optimizer, schedules.cosine(10**6))      # the nine groups of section 3.11
times = bench.step_times({"AdamW.step": optimizer.step, "LambdaLR.step": scheduler.step}, repeats=5, warmup=1)
assert 0.9e-3 < scheduler.get_last_lr()[-1] < 1e-3
print(bench.describe_device())
print(bench.ratio_table(times, base="AdamW.step"))

# %% [markdown]
# One trap on a GPU: a CUDA graph freezes a rate that is a Python number, and a compiled optimizer is compiled again for
# each. Both want `lr` as a tensor.
#
# ## 6. Turn the knobs
#
# Predict first: by how much does a cosine to 10% decay weights less than a constant peak? Which moves the sum of the
# rates more, the warmup or the shape of the fall? What must `weight_decay` become to leave as much under linear to
# zero as a constant leaves?

# %%
from course_lib import widgets

widgets.explore_schedule(kind="cosine", peak=3e-4, total=10_000)

# %% [markdown]
# About half; the shape; twice as much, since the product sees only the sum.
#
# ## 7. How it breaks
#
# Eight ways to train at another rate than the one you drew:

# %%
def local_rate(optimizer):
    """Writes the schedule into a variable, as tutorials do."""
    ticks = itertools.count(1)
    def step():
        lr = optimizer.defaults["lr"] * rate(next(ticks), 300, 30)
    return SimpleNamespace(step=step)

def per_micro_batch(optimizer):
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda t: rate(t, 300, 30))
    return SimpleNamespace(step=lambda: [scheduler.step() for micro_batch in range(4)])

broken = {"right: warmup 30, linear": lambda o: lr_scheduler.LambdaLR(o, lambda t: rate(t, 300, 30)),
          "lr = ... in a variable": local_rate,
          "t / warmup": lambda o: lr_scheduler.LambdaLR(o, lambda t: min(t / 30, 1) * rate(t, 300)),
          "stepped past T_max": lambda o: lr_scheduler.CosineAnnealingLR(o, 150),
          "stepped per micro-batch": per_micro_batch,
          "total in epochs": lambda o: lr_scheduler.LambdaLR(o, lambda t: rate(t, 10, 1))}
print(f"{'rate at update':26}" + "".join(f"{t:7}" for t in (0, 1, 29, 80, 150, 299)))
for name, make in broken.items():
    print(f"{name:26}" + "".join(f"{value:7.2f}" for value in of_torch(make, 300)[[0, 1, 29, 80, 150, 299]]))

# %%
adam = torch.optim.Adam([torch.zeros(1)], lr=1.0)
one_cycle = lr_scheduler.OneCycleLR(adam, max_lr=1.0, total_steps=100)
print("OneCycleLR sets Adam's beta1 to", adam.param_groups[0]["betas"][0])
saved = lr_scheduler.LambdaLR(adam, lambda t: rate(t, 300)).state_dict()
print("a saved LambdaLR holds the function:", saved["lr_lambdas"])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = lr_scheduler.LambdaLR(sgd, lambda t: rate(t, 300, 30))
    scheduler.step()      # before optimizer.step()
print(f"stepped first: update 0 has rate {sgd.param_groups[0]['lr']:.3f}; torch says:", str(caught[-1].message)[:60])
assert adam.param_groups[0]["betas"][0] == 0.95 and saved["lr_lambdas"] == [None]

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | rate in a variable | the logged lr (yours) falls; `param_groups[0]["lr"]` does not |
# | `t / warmup` (Hugging Face's default) | first update changes nothing, but feeds Adam's moments |
# | past `T_max` | loss rises again after the planned end |
# | stepped per micro-batch | loss stops falling at a quarter of the run |
# | total in epochs | rate zero after ten updates |
# | `OneCycleLR` | $\beta_1$ moves too (`cycle_momentum=False` prevents it) |
# | resumed `LambdaLR` | with a changed total, lr jumps: the function comes from the code and not from the file |
# | scheduler before optimizer | every rate one update early, and a warning |
#
# Log the rate that the optimizer holds.
#
# ## 8. Your turn
#
# In `exercises/07_schedules.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `warmup_cosine` | warmup and cosine to a floor, with the boundaries right |
# | `warmup_stable_decay` | the plateau and its fall |
# | `parameter_groups` | what decays and what does not, each tensor once |
# | `layer_rates` | rates from the embedding to the head |
# | `decay_left` | a number: what a whole schedule leaves of a weight |
#
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("schedules-warmup-mechanisms")
questions.show("schedules-catapult")

# %% tags=["evidence-schedules-warmup-mechanisms", "evidence-schedules-catapult"]
assert warm.survived and not cold.survived      # gradient descent on all data: no noise, no second moment
before, after = (warm.sharpness[warm.seen_at == t][0] for t in (160, 240))
jump = warm.losses[150:250].max() / warm.losses[150]
assert jump > 4 and before > 1.8 * after and warm.losses[250] < warm.losses[150]
print("between updates 150 and 250 the loss jumped more than fourfold, and sharpness nearly halved")

# %%
questions.show("schedules-two-sums")
questions.show("schedules-wsd-drop")

# %% tags=["evidence-schedules-two-sums", "evidence-schedules-wsd-drop"]
for plateau in (500, 1000, 3000):
    flat, fall = (parts(0.1 * np.minimum(1, (plateau + 200 - np.arange(plateau + 200)) / n)) for n in (1, 200))
    print(f"plateau {plateau:4}: start {flat[0]:.3f}, noise {flat[1]:.3f}; cooled: {fall[0]:.3f}, {fall[1]:.3f}")
    assert 0.35 < 1 - sum(fall) / sum(flat) < 0.45

# %%
questions.show("schedules-decay-left")
questions.show("schedules-update-weights")

# %% tags=["evidence-schedules-decay-left", "evidence-schedules-update-weights"]
rates = 3e-4 * curve(schedules.cosine(50_000, 1000, 0.1), 50_000)
(left, c), (same, other) = coefficients(rates, 0.1), coefficients(rates / 2, 0.2)
print(f"left {left:.3f}, by the area {math.exp(-0.1 * rates.sum()):.3f}; at a constant rate {math.exp(-1.5):.3f}")
assert abs(left - 0.439) < 1e-3 and np.allclose(c / c.sum(), other / other.sum())

# %% [markdown]
# ## 10. Sources
#
# - Warmup: Liu et al. 2020, RAdam (1908.03265); Ma & Yarats 2019 (1910.04209); Lewkowycz et al. 2020, the catapult
#   (2003.02218); Gilmer et al. 2021 (2110.04369); Kalra & Barkeshli 2024 (2406.09405); Xiong et al. 2020 (2002.04745);
#   Kosson et al. 2024 (2410.23922).
# - Loshchilov & Hutter 2017, SGDR (1608.03983); Vaswani et al. 2017 (1706.03762), section 5.3; Brown et al. 2020, GPT-3
#   (2005.14165), appendix B; Hoffmann et al. 2022, Chinchilla (2203.15556), appendix B; Llama team 2024, Llama 3
#   (2407.21783), section 3.4.
# - Hu et al. 2024, MiniCPM (2404.06395); Hägele et al. 2024 (2405.18392); Wen et al. 2024 (2410.05192); DeepSeek-AI
#   2024, DeepSeek-V3 (2412.19437), section 4.2.
# - Defazio et al. 2023 on linear decay (2310.07831); Bergsma et al. 2025, linear to zero (2502.15938).
# - Averages: Izmailov et al. 2018, SWA (1803.05407). Decay: Wang & Aitchison 2024 (2405.13698).
# - Rates by layer: Howard & Ruder 2018 (1801.06146); Bao et al. 2021, BEiT (2106.08254).
# - PyTorch documentation: `torch.optim`; Running the compiled optimizer with an LR scheduler (tutorial).
#
# Contested: which reason for warmup dominates; whether WSD matches a tuned cosine at scale; whether the end should be
# zero (2502.15938) or a floor.
