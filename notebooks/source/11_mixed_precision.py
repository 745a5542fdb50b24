# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Mixed precision
#
# ## 1. The question
#
# > *If the weights are used in 16 bits, why does everyone keep a 32-bit copy? And what is the loss scaler for?*
#
# Afterwards you can say what fp16 loses and what bf16 loses, derive loss scaling and put its calls in order, name three
# ways to keep small updates and their bytes, and recognise nine mistakes in a training log.
#
# Know first: notebook 04, and from notebook 10 the sum 2P + 2P + 12P. Time: 50 minutes.

# %%
import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_

from course_lib import plots, precision
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.precision import FORMATS
from course_lib.problems import lm, text
from course_lib.train import pick_device, train

# %% [markdown]
# ## 2. The picture
#
# A number format is a ruler. Within each octave, from one power of two to the next, its marks are evenly spaced; the
# next octave has as many marks at twice the distance. So the *relative* gap is about the same everywhere: until the
# octaves run out. With 16 bits you may buy many octaves or fine marks, not both:

# %%
size = 2.0 ** np.arange(-44, 30)
gaps = {f.name: (x := size[(f.smallest_subnormal <= size) & (size <= f.max)],
                 f.epsilon * np.maximum(1, f.smallest_normal / x)) for f in FORMATS.values() if f.key != "tf32"}
plots.show(plots.lines(gaps, title="bfloat16 has coarse marks everywhere, float16 fine ones in a short range",
                       logx=True, logy=True, xlabel="size of the number", ylabel="gap / number", size=(8, 4)),
           alt="Relative gap by size, log axes: float32 at 1e-7 and bfloat16 at 8e-3 throughout; float16 at 1e-3 from "
               "6e-5 to 65504, rising to 1 at 6e-8; the float8 formats at 0.12 and 0.25 over still shorter ranges.")

# %% [markdown]
# All that follows comes from this figure. float16 breaks at its left edge: gradients fall off it. bfloat16 breaks in
# height: a weight cannot take a step smaller than half its gap.
#
# ## 3. The derivation
#
# ### 3.1 One number in every format
#
# With sign $s$, exponent field $E$ and a mantissa field $M$ of $k$ bits, a normal number is
# $(-1)^s\,(1+M/2^k)\,2^{E-\text{bias}}$. Its neighbour is $2^{-k}\cdot2^{E-\text{bias}}$ away, so rounding to nearest
# errs by at most $2^{-k-1}$ of it. At $E=0$ the leading 1 is given up (*subnormal*): the gap stays, and digits go.

# %%
print(f"{'':8} {'0.1: sign, exponent, mantissa':36} {'stored':13} largest   normal smallest")
for key, f in FORMATS.items():
    tenth = precision.take_apart(0.1, key)
    print(f"{key:8} {tenth.bits:36} {tenth.value:.11f} {f.max:7.1e}"
          f"  {f.smallest_normal:7.1e}  {f.smallest_subnormal:7.1e}")
    if f.dtype:
        assert tenth.value == torch.tensor(0.1).to(f.dtype).item() and f.max == torch.finfo(f.dtype).max

# %% [markdown]
# bf16 is the upper half of fp32: the same exponent, so the same range. tf32 is no storage format; it is what tensor
# cores read of an fp32 operand. fp16 keeps three more mantissa bits than bf16 and pays with three of the exponent.
#
# ### 3.2 What fp16 loses
#
# Train the small language model for 60 steps in float32, then look at two kinds of gradient: those of the weights, and
# those that flow back from block to block, which each position receives:

# %%
data, _ = text.split(text.corpus())
model, quiet = lm.ByteLM(), dict(loss_fn=lm.next_byte_loss, device="cpu", progress=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
train(model, optimizer, text.batches(data, 16, 64, 60, seed=0), **quiet)
probe, batch, flows = copy.deepcopy(model), next(text.batches(data, 64, 64, 1, seed=1)), []
for block in probe.blocks:
    block.register_full_backward_hook(lambda _, __, out: flows.append(out[0].flatten()))
probe.zero_grad()
lm.next_byte_loss(probe, batch).backward()
grads = {"weights": torch.cat([p.grad.flatten() for p in probe.parameters()]), "flowing back": torch.cat(flows)}
grads = {name: g[g != 0] for name, g in grads.items()}      # the rows of absent bytes are zero anyway
tiny = {name: (g.abs() < FORMATS["fp16"].smallest_normal).float().mean().item() for name, g in grads.items()}
print("more than nine in ten below fp16's normal numbers:", {name: share > 0.9 for name, share in tiny.items()})
assert tiny["flowing back"] > 0.9 and 0.05 < tiny["weights"] < 0.6

# %%
def octaves(g):
    """Percent of the gradients in each octave, by its upper end."""
    count, edges = np.histogram(np.log2(g.abs().double().numpy()), bins=np.arange(-40, 21))
    return edges[1:], np.where(count, 100 * count / g.numel(), np.nan)

panels = [dict(series={name: octaves(g * 2.0**k) for name, g in grads.items()}, title=title, xlim=(-36, 20),
               vlines={"zero": -25, "normal": -14, "overflow": 16}, xlabel="log2 of |gradient|",
               ylabel="percent per octave")
          for k, title in ((0, "As computed: digits are missing"), (16, "Times 65,536: digits are kept"))]
plots.show(plots.lines_grid(panels), alt=(
    "Two histograms over log2 of the gradient's size, for weight gradients and for gradients that flow back. Left: the "
    "flowing ones peak near -18, below fp16's normal range that begins at -14; part of the weight gradients is there "
    "too. Right: multiplied by 65,536 both lie between -14 and 16, inside fp16's range."))

# %% [markdown]
# The flowing gradients are small for a plain reason: the loss is a *mean* over 64 x 64 positions, so that each
# position's share is divided by 4,096. Larger micro-batches make it worse. Few of them become zero here; most become
# subnormal and lose digits. "fp16 gradients underflow to zero" is the visible end of that.
#
# ### 3.3 Multiply the loss
#
# By the chain rule every gradient is linear in the gradient of the loss with respect to itself, which is 1. Start with
# $S$ instead, and everything that flows back is $S$ times larger. A power of two changes exponents only, so dividing by
# $S$ afterwards, in float32, is exact:

# %%
def gradients(model, scale):
    """Gradients of scale * loss, divided by scale in float32; the loss itself is computed in float32."""
    loss = F.cross_entropy(model(batch[0]).float().flatten(0, 1), batch[1].flatten())
    return [g.float() / scale for g in torch.autograd.grad(scale * loss, list(model.parameters()))]

true, half = gradients(model, 1.0), copy.deepcopy(model).half()
assert all(map(torch.equal, gradients(model, 2.0**16), true))
error = {k: np.median([((mine - g).norm() / g.norm()).item() for mine, g in zip(gradients(half, 2.0**k), true)])
         for k in (0, 12, 24)}
print("2^12 instead of 1: error of the median tensor at least ten times smaller:", bool(error[0] > 10 * error[12]))
print("2^24: finite:", math.isfinite(error[24]))

# %% [markdown]
# In float32 the scale changes no bit. In fp16 it repairs the gradient, and too much of it overflows.
#
# ### 3.4 The scale as a control loop
#
# The largest safe scale is $65504/\max|S{=}1\text{ gradient}|$. It drifts during training and nobody knows it
# beforehand, but overflow announces itself: infinities. So probe for the edge (`torch.amp.GradScaler`):
#
# - infinity or NaN in any gradient: skip the step, multiply $S$ by 0.5, count from zero;
# - `growth_interval` = 2000 clean steps in a row: multiply $S$ by 2, count from zero.
#
# Ours beside torch's, on 3,000 steps of which one in forty overflows at random:

# %%
def drive(scaler, gradients):
    """Scale and weight after each step of SGD with lr = 1, whose gradient passes through float16 times the scale."""
    weight, path = torch.zeros(1, requires_grad=True), []
    sgd = torch.optim.SGD([weight], lr=1.0)
    for gradient in gradients:
        scaler.scale(weight.sum()).backward()
        weight.grad.copy_(torch.tensor(scaler.get_scale() * gradient).half())
        scaler.step(sgd)
        scaler.update()
        sgd.zero_grad()
        path.append((scaler.get_scale(), weight.item()))
    return np.array(path)

shocks = np.where(np.random.default_rng(0).random(3000) < 1 / 40, np.inf, 2.0**-10)
mine = drive(precision.GradScaler(2.0**20, growth_interval=30), shocks)
theirs = drive(torch.amp.GradScaler("cpu", 2.0**20, growth_interval=30), shocks)
assert compare("scale", mine[:, 0], theirs[:, 0], tol=0) and compare("weight", mine[:, 1], theirs[:, 1], tol=0)
print(f"{3000 + mine[-1, 1] * 2**10:.0f} steps skipped, largest scale 2^{np.log2(mine[:, 0].max()):.0f}")

# %% [markdown]
# What is the price of probing? At a constant gradient the scale, once at the edge, overflows right after each growth.
# So one step in `growth_interval` + 1 is lost. When gradients shrink, the loop follows the edge upwards:

# %%
still = np.diff(drive(precision.GradScaler(growth_interval=100), np.full(3030, 0.7))[-2021:, 1]) == 0
print(f"steps lost with growth_interval 100: 1/{1 / still.mean():.0f}; with 2000 it is {1 / 2001:.2%}")
noisy = np.geomspace(2, 2e-3, 3000) * np.exp(0.3 * np.random.default_rng(1).standard_normal(3000))
climb = {"where it overflows": 65504 / noisy, "scale": drive(precision.GradScaler(growth_interval=100), noisy)[:, 0]}
plots.show(plots.lines(climb, title="The scale climbs until it touches the edge, falls by half, and climbs again",
                       logy=True, xlabel="step", ylabel="scale"), alt="A staircase between 1e4 and 1e7 on a log axis: "
           "it follows the noisy, rising edge 65504 / gradient from below, and drops by half at each touch.")

# %% [markdown]
# bf16 has fp32's range and needs none of this. A scaler beside it is of no use.
#
# ### 3.5 The order of the calls
#
# | call | does | needs before it |
# |---|---|---|
# | `scaler.scale(loss).backward()` | scaled gradients; once per micro-batch | loss divided by their number |
# | `scaler.unscale_(optimizer)` | divides `.grad` by $S$, looks for infinities | the last backward |
# | `clip_grad_norm_` | global norm | true gradients, hence `unscale_` |
# | `scaler.step(optimizer)` | skips if there were any; unscales if nobody has | clipping |
# | `scaler.update()` | moves $S$, forgets what was unscaled | once per optimizer step |
#
# Now permute. A quadratic in 20 dimensions, clipped at norm 1, 300 steps in float64; the last column has one infinite
# gradient. Printed is the share of the distance that is left:

# %%
target = torch.from_numpy(np.random.default_rng(0).standard_normal(20))
noise = torch.from_numpy(0.1 * np.random.default_rng(1).standard_normal((300, 20)))

def left(order, make, infinite=None):
    """Share of the distance that is left after 300 steps with the calls in this order; one loss may be infinite."""
    weight = torch.zeros(20, dtype=torch.float64, requires_grad=True)
    optimizer, scaler = make([weight]), torch.amp.GradScaler("cpu")
    calls = dict(backward=lambda: scaler.scale(loss).backward(), unscale_=lambda: scaler.unscale_(optimizer),
                 clip=lambda: clip_grad_norm_([weight], 1.0), step=lambda: scaler.step(optimizer),
                 update=scaler.update, bare_step=optimizer.step)
    for step in range(300):
        loss = (weight - target - noise[step]).square().sum() / 2 * (math.inf if step == infinite else 1)
        optimizer.zero_grad()
        for call in order.split():
            calls[call]()
    return ((weight - target).norm() / target.norm()).item()

sgd, adam = (lambda w: torch.optim.SGD(w, lr=0.1)), (lambda w: torch.optim.Adam(w, lr=0.03))
print(f"{'':39}   SGD  Adam  Adam, one overflow")
for order in ("backward unscale_ clip step update", "backward clip unscale_ step update", "backward clip step update",
              "backward unscale_ step update clip", "backward bare_step", "backward unscale_ clip bare_step update"):
    print(f"{order:39} {left(order, sgd):5.2f} {left(order, adam):5.2f} {left(order, adam, 150):5.2f}")

# %% [markdown]
# - *Clip before unscale.* The scaled norm is clipped to 1, then divided by 65,536: SGD stands still. Adam divides the
#   factor out again (notebook 04), so nobody notices; but every gradient now has the same norm, and clipping is gone.
# - *No `unscale_` at all* is the same: `scaler.step` unscales, after your clipping.
# - *Clip after step* clips nothing. On this tame problem that does not show.
# - *`optimizer.step()`, scaled.* SGD takes steps 65,536 times too long. Adam hides it, until the first overflow.
# - *`optimizer.step()` after unscaling.* Perfect, until the first overflow makes everything NaN.
#
# The other orders raise an error (section 7).

# %% [markdown]
# ### 3.6 What bf16 loses: updates
#
# bf16 keeps the range and pays with digits. An update smaller than half the gap to the next mark is rounded away, and
# so is the next one, and all others: rounding to nearest has no memory. (At 3.0 even fp16, with eight times as many
# marks, stands still.) The same happens to a sum that has grown large beside its terms, which is why matrix units add
# up 16-bit products in float32:

# %%
print("beside 3.0 in bf16:", precision.neighbours(3.0, "bf16"))
for dtype in (torch.float32, torch.float16, torch.bfloat16):
    weight, total = torch.tensor(3.0, dtype=dtype), torch.tensor(0.0, dtype=dtype)
    for _ in range(10_000):
        weight, total = weight - 3e-4, total + 0.01
    print(f"{str(dtype):15} 3 - 10,000 x 0.0003 = {weight.item():.3f}   10,000 x 0.01 = {total.item():.1f}")

# %% [markdown]
# An Adam step is seldom much longer than lr, whatever the weight. So the lost share depends on lr beside the
# weights. Take the model and Adam's direction $\hat m/(\sqrt{\hat v}+\epsilon)$ after the 60 steps, and ask at each lr
# how many weights would move if they were kept in bf16:

# %%
def direction(state):
    step, m, v = (state[key] for key in ("step", "exp_avg", "exp_avg_sq"))
    return (m / (1 - 0.9**step) / ((v / (1 - 0.95**step)).sqrt() + 1e-8)).flatten()

u = torch.cat([direction(optimizer.state[p]) for p in model.parameters()])
w, rates = torch.cat([p.detach().flatten() for p in model.parameters()]).bfloat16(), np.logspace(-5, -2, 13)
lost = [100 * ((w - lr * u).bfloat16() == w)[u != 0].float().mean().item() for lr in rates]
plots.show(plots.lines({"lost": (rates, lost)}, title="As the learning rate decays, a bf16 weight stops moving",
                       logx=True, xlabel="learning rate", ylabel="updates lost (percent)"),
           alt="Share of updates that leave a bf16 weight unchanged, against the learning rate: nearly all at 1e-5, "
               "about two thirds at 3e-4, a few percent at 1e-2.")
print("lost at lr 3e-4: more than half:", lost[6] > 50, "  at 1e-5: more than nine in ten:", lost[0] > 90)

# %% [markdown]
# The end of a schedule, where the fine work is done, is where bf16 weights stand still. (Seen on this small model;
# weights and rates of large ones differ.) Weights near 1 suffer first. Notebook 04's bound says that with betas (0.9,
# 0.95) no step is longer than 1.17 lr. At lr = 1e-3 that is less than half of either gap beside 1.0, so that the gain
# of a norm can never leave it:

# %%
pure = lm.ByteLM(lm.LMConfig(width=32)).bfloat16()
adamw = torch.optim.AdamW(pure.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
history = train(pure, adamw, text.batches(data, 8, 64, 40, seed=0), **quiet)
gains = torch.cat([p for name, p in pure.named_parameters() if name.endswith("norm.weight")])
print(f"{len(gains)} gains, all exactly 1 after {len(history)} steps:", bool((gains == 1).all()))
assert (gains == 1).all() and torch.tensor(1 - 1.17e-3).bfloat16() == 1 and history.loss[-1] < history.loss[0] - 0.3

# %% [markdown]
# The loss falls, so no log shows it.
#
# ### 3.7 Three cures
#
# **Master weights**: keep the weight in float32, give the passes a bf16 copy. Small updates add up where they can be
# seen.
#
# **Stochastic rounding**: between neighbours $a<x<b$ go up with probability $(x-a)/(b-a)$. Then
# $\mathbb E[\text{round}(x)]=a+(b-a)\frac{x-a}{b-a}=x$: a lost update becomes a rare full one. In bits: add 16 random
# bits to the lower half of the float32, cut that half off.
#
# **Kahan summation**: keep what rounding cut off in a second bf16 number, and add it to the next update.
#
# A linear regression with 256 weights under AdamW's rule, lr falling from 1e-2 to 0, all but the weight in float64:

# %%
X = torch.from_numpy(np.random.default_rng(0).standard_normal((512, 256)))
y = X @ torch.from_numpy(np.random.default_rng(1).standard_normal(256))

def fit(store, weight, steps=1500):
    """Loss at every step; ``store(weight, update)`` returns the weight that the next pass reads."""
    m, v, losses, still = torch.zeros(256), torch.zeros(256), [], 0
    for t in range(1, steps + 1):
        error = X @ weight.double() - y
        g = 2 / 512 * X.T @ error
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
        lr = 5e-3 * (1 + math.cos(math.pi * t / steps))
        update = lr * m / (1 - 0.9**t) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
        before, weight = weight.clone(), store(weight, update)
        still += (weight == before).double().mean().item()
        losses.append(error.square().mean().item())
    return losses, still / steps

# %%
rng, master, rest = np.random.default_rng(2), torch.zeros(256), torch.zeros(256, dtype=torch.bfloat16)

def stochastic(w, update):
    noise = torch.from_numpy(rng.integers(0, 2**16, 256, dtype=np.int32))
    return precision.stochastic_round(w.float() - update.float(), noise=noise)

def kahan(w, update):
    precision.kahan_add_(w, rest, -update.bfloat16())
    return w

runs = {"bf16, to nearest": (0, lambda w, update: (w.double() - update).bfloat16()),
        "bf16, stochastic": (0, stochastic), "bf16, Kahan": (2, kahan),
        "float32 master": (4, lambda w, update: master.sub_(update).bfloat16())}
fits = {name: fit(store, torch.zeros(256, dtype=torch.bfloat16)) for name, (_, store) in runs.items()}
for name, (losses, lost) in fits.items():
    print(f"{name:17} last loss {losses[-1]:.4f}   {2 + 2 + 4 + 4 + runs[name][0]} bytes per parameter")
print(f"rounded to nearest, {fits['bf16, to nearest'][1]:.0%} of the updates are lost")
assert fits["bf16, to nearest"][0][-1] > 10 * max(losses[-1] for losses, _ in list(fits.values())[1:])

# %% [markdown]
# Without a cure the loss stops more than ten times higher. The bytes are weight, gradient, two float32 moments and the
# cure; bf16 moments (3.8) save four of them.
#
# Whether one may drop the master is **contested**. Zamirai et al. (2020) match float32 with bf16 weights and either
# cure. Gopher's 280 billion bf16 weights were updated with stochastic rounding. Ozkara et al. (2025) report bf16 with
# stochastic rounding *ahead* of mixed precision, up to 6.7 billion. DeepSeek-V3, at 671 billion, computes in fp8, moves
# its moments to bf16, and keeps master weights and gradients in fp32.
#
# ### 3.8 Moments and constants in 16 bits
#
# At $\beta_2=0.999$, $v\leftarrow\beta_2v+(1-\beta_2)g^2$ shrinks by a thousandth per step at most, less than half a
# bf16 gap:

# %%
for beta2 in (0.999, 0.99, 0.95):
    v = torch.ones((), dtype=torch.bfloat16)
    for _ in range(1500):
        v *= beta2      # torch multiplies by the exact beta2 and rounds the product
    print(f"beta2 {beta2:5}: v = 1 after 1500 zero gradients {v.item():.2g}, exact {beta2**1500:.2g}")
print("in fp16: eps 1e-8 is", torch.tensor(1e-8).half().item(),
      "and the square of 1e-4 is", torch.tensor(1e-4).half().square().item())

# %% [markdown]
# A $v$ that cannot fall keeps one old spike for ever, and the step stays short. DeepSeek-V3 has bf16 moments *and*
# $\beta_2=0.95$; the connection is our reading. On bf16 parameters `torch.optim.AdamW` keeps both moments in bf16
# without a word, and its default is 0.999.
#
# ### 3.9 Autocast
#
# `torch.autocast` leaves weights in float32 and chooses per operation. Run them on the CPU:

# %%
w, low, index = torch.ones(4, 4, requires_grad=True), torch.ones(4, 4).bfloat16(), torch.arange(4)
with torch.autocast("cpu", dtype=torch.bfloat16):
    ran = {"matmul of float32": w @ w, "gelu of bf16": F.gelu(low), "embedding of float32": F.embedding(index, w),
           "softmax of bf16": low.softmax(-1), "layer_norm of bf16": F.layer_norm(low, (4,)), "float32 + bf16": w + low,
           "cross_entropy of bf16": F.cross_entropy(low, index), "mse_loss of bf16": F.mse_loss(low, low)}
ran["gradient of the weight"] = torch.autograd.grad(ran["matmul of float32"].sum(), w)[0]
print(*(f"{name:24} -> {str(result.dtype).removeprefix('torch.')}" for name, result in ran.items()), sep="\n")

# %% [markdown]
# Three kinds: products go low, losses go high, the rest takes what it gets, the wider where two differ. The lists are
# the device's: on CUDA, softmax, layer_norm, exp, pow, sum and norm run in float32 too. Weights and their gradients
# remain float32, so the optimizer needs no master; the model state is 4 + 4 + 8 = 16 bytes, *not* half. Autocast saves
# time and activations. Only the forward pass belongs inside it; backward follows the forward's types.

# %% [markdown]
# ### 3.10 Eight bits
#
# fp8 comes in two formats (Micikevicius et al. 2022): e4m3, with digits, and e5m2, with range. Its range is so short
# that every tensor gets a float32 scale of its own, chosen so that its largest value just fits. One scale per tensor
# lets a single outlier push all others off the ruler; one per block of 128 confines the damage. Normal values, one of
# them 100,000 times too large, as Sun et al. (2024) find in real activations:

# %%
values = np.random.default_rng(3).standard_normal((128, 128))
values[0, 0] = 1e5
for key in ("fp8_e4m3", "fp8_e5m2"):
    for name, axis in (("one scale per tensor", None), ("one per row of 128", 1)):
        scale = FORMATS[key].max / abs(values).max(axis=axis, keepdims=True)      # the largest value just fits
        kept = precision.round_to(values * scale, key) / scale
        print(f"{key} {name:21} error {np.std(kept - values):6.1%}   turned to zero {np.mean(kept == 0):6.1%}")

# %% [markdown]
# Range or blocks: one of the two is needed, and e4m3 with blocks is the most exact. NVIDIA's first recipe has e4m3
# forward, e5m2 backward, one scale per tensor. DeepSeek-V3 has e4m3 throughout, scales per 1 x 128 of the activations
# and per 128 x 128 of the weights, and adds up in float32. The MX formats scale every 32 values by a power of two. In
# all of them fp8 is for the *inputs of matrix products*. DeepSeek-V3 leaves embedding, head, gating, norms and
# attention in higher precision, and master weights and gradients in fp32.
#
# ## 4. The whole
#
# A mixed-precision step: 16-bit gradient to 32 bits, update in 32, copy back. `course_lib.precision.MasterWeights`
# beside those three around `torch.optim.AdamW`:

# %%
weight, master = torch.nn.Parameter(torch.ones(64).bfloat16()), torch.ones(64)
mine, textbook = precision.MasterWeights([weight], torch.optim.AdamW), torch.optim.AdamW([master])
for gradient in torch.from_numpy(np.random.default_rng(4).standard_normal((200, 64))).bfloat16():
    weight.grad, master.grad = gradient, gradient.float()
    mine.step()
    textbook.step()
assert compare("master", mine.masters[0], master, tol=0) and compare("weight", weight, master.bfloat16(), tol=0)

# %% [markdown]
# Now the language model on the device at hand. By hand: 16-bit weights, masters, our scaler. torch: float32 weights
# under autocast, its own scaler. bf16 gets a scale of 1.

# %%
def by_hand(model, batches, dtype):
    weights = precision.MasterWeights(model.to(dtype).parameters(), lambda masters: torch.optim.AdamW(masters, lr=3e-3))
    scaler = precision.GradScaler(init_scale=2.0**16 if dtype == torch.float16 else 1.0)
    for inputs, targets in batches:
        weights.zero_grad()
        loss = F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten())
        scaler.scale(loss).backward()
        weights.gradients_to_masters()
        scaler.unscale_(weights.optimizer)
        clip_grad_norm_(weights.masters, 1.0)
        scaler.step(weights.optimizer)
        weights.masters_to_weights()
        scaler.update()
        yield loss.item()

def with_torch(model, batches, dtype):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    for batch in batches:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = lm.next_byte_loss(model, batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        yield loss.item()

# %% tags=["nbval-ignore-output"]
device = pick_device()
batches = [(x.to(device), y.to(device)) for x, y in text.batches(data, 8, 64, 40, seed=0)]
runs = {"float32": (with_torch, torch.float32),
        "bf16, torch": (with_torch, torch.bfloat16), "bf16, by hand": (by_hand, torch.bfloat16),
        "fp16, torch": (with_torch, torch.float16), "fp16, by hand": (by_hand, torch.float16)}
losses = {name: np.array(list(run(lm.ByteLM(lm.LMConfig(width=32)).to(device), batches, dtype)))
          for name, (run, dtype) in runs.items()}
end = {name: loss[-10:].mean() for name, loss in losses.items()}
print(bench.describe_device(), {name: round(float(loss), 3) for name, loss in end.items()}, sep="\n")
assert all(abs(loss - end["float32"]) < 0.15 for loss in end.values()) and end["float32"] < losses["float32"][0] - 1
plots.show(plots.lines(losses, title="Five ways to the same loss", xlabel="step", ylabel="loss (nats per byte)"),
           alt="Loss over 40 steps for float32, bf16 and fp16, each by torch and by hand: five curves on one another.")

# %% [markdown]
# The differences are those of rounding. That two runs agree for 40 steps does not show that they agree for 600,000: see
# the gains in 3.6.
#
# ## 5. Against production
#
# What 16 bits buy is matrix products, where the hardware has units for them:

# %% tags=["nbval-ignore-output"]
dtypes = (torch.float32, torch.bfloat16, torch.float16)
ones = {dtype: torch.ones(512, 512, dtype=dtype, device=device) for dtype in dtypes}
times = bench.step_times({str(dtype): lambda a=a: a @ a for dtype, a in ones.items()}, repeats=5, warmup=2)
assert all(((a @ a) == 512).all() for a in ones.values())
print(bench.describe_device())
print(bench.ratio_table(times, base="torch.float32"))

# %% [markdown]
# A processor without such units may be slower in 16 bits. The optimizer gains nothing: a fused step with masters reads
# gradient, master, $m$, $v$ (2 + 4 + 4 + 4 bytes) and writes master, $m$, $v$ and the 16-bit weight (4 + 4 + 4 + 2).
# That is 28 bytes per parameter, as in float32.
#
# ## 6. Turn the knobs
#
# A simulated fp16 run. Predict, then move one slider at a time: a first scale of 1, a growth interval of 10, a backoff
# of 0.9, gradients a hundred times smaller.

# %%
from course_lib import widgets

widgets.explore_loss_scaling()

# %% [markdown]
# A first scale of 1 loses small gradients until it has doubled a few times. A short interval probes, and skips, far
# more often. A backoff near 1 is back at the edge sooner, and skips more.
#
# ## 7. How it breaks
#
# Three orders that torch refuses, gradients that are infinite at every scale, Adam on fp16 weights whose gradient is
# zero (the embedding row of an absent byte), and a mask of $-10^9$ in fp16 over a row that is all padding:

# %%
for order in ("backward unscale_ clip step", "backward unscale_ unscale_ step update", "backward step unscale_ update"):
    try:
        left(order, sgd)
    except RuntimeError as refusal:
        print(f"{order:38} -> {refusal}")
print("torch, 200 overflows in a row: scale", drive(torch.amp.GradScaler("cpu"), [math.inf] * 200)[-1, 0])
try:
    drive(precision.GradScaler(), [math.inf] * 200)
except precision.ScaleBottomedOut as stop:
    print("ours:", str(stop).split(", and")[0])
row = torch.ones(3, dtype=torch.float16)
row.grad = torch.zeros_like(row)
torch.optim.Adam([row], lr=1e-3).step()
masked = (torch.zeros(3).half() - 1e9 * torch.ones(3).half()).softmax(-1)
print("zero gradient:", row.tolist(), " masked row:", masked.tolist())
assert row.isnan().all() and masked.isnan().all()

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | clip before `unscale_`, or without it | logged norms in the ten thousands, moving with the scale; SGD is stuck |
# | `optimizer.step()` for `scaler.step` | SGD diverges at once; Adam: NaN at the first overflow |
# | infinite activations, such as logits above 65,504 | at every step the scale halves and no weight moves |
# | eps = 1e-8 with fp16 state | NaN after one step, first in rows of absent tokens |
# | mask of $-10^9$ in fp16 | NaN loss from the first padded row; use `torch.finfo(dtype).min` |
# | bf16 weights without a cure | the loss stops falling late in the schedule; gains are exactly 1 |
# | bf16 $v$ with $\beta_2=0.999$ | after a spike the update norm stays down |
# | `scheduler.step()` on skipped steps | lr runs ahead of the optimizer's own step count |
#
# The ninth shows only after a restart. This run resumes from a checkpoint in which one part is missing each time:

# %%
def fresh():
    model = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return dict(model=model, optimizer=optimizer, scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100),
                scaler=torch.amp.GradScaler("cpu", 2.0**12, growth_interval=10),
                generator=torch.Generator().manual_seed(0))

def go(model, optimizer, scheduler, scaler, generator):
    for _ in range(50):
        x = torch.randn(4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        scaler.scale((model(x) - x.sum()).square().sum()).backward()
        model.weight.grad.copy_(model.weight.grad.half())      # as fp16 would round it, infinities included
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    return model.weight.detach().clone()

first = fresh()
go(**first)
saved = copy.deepcopy({key: (getattr(part, "get_state", None) or part.state_dict)() for key, part in first.items()})
end = go(**first)
for missing in ("nothing", *saved):
    run = fresh()
    for key in (key for key in saved if key != missing):
        (getattr(run[key], "set_state", None) or run[key].load_state_dict)(copy.deepcopy(saved[key]))
    lr, scale = run["optimizer"].param_groups[0]["lr"], run["scaler"].get_scale()
    print(f"without {missing:9}: resumes at lr {lr:.3f}, scale {scale:6.0f}; same end: {torch.equal(go(**run), end)}")

# %% [markdown]
# Without the model the loss starts over. Without the optimizer the moments are zero, the rate is the first one, and the
# loss bumps. Without the scheduler the schedule begins anew. Without the scaler the scale is back at its first value:
# where that is too high, every restart begins with a row of skipped steps. Without the generator the data repeat. With
# master weights there is a sixth part: masters rebuilt from 16-bit weights have lost what 3.6 is about.
#
# ## 8. Your turn
#
# In `exercises/11_mixed_precision.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `next_scale` | the scaler's rule |
# | `amp_step` | one step over several micro-batches, every call in its place |
# | `resume_state` | the checkpoint of an exact resume |
# | `four_sums` | a long sum in four mixtures of fp16 and fp32 |
# | `stochastic_round` | float32 to bf16 with bits and noise |
# | `smallest_scale` | a number: the scale that keeps a gradient alive |
# | `frozen_step` | a number: the largest step that bf16 loses |
# | `underflow_step` | where in a training log gradients underflow |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("mixed-fp16-vs-bf16")
questions.show("mixed-master-weights")

# %% tags=["evidence-mixed-fp16-vs-bf16", "evidence-mixed-master-weights"]
for dtype in (torch.float16, torch.bfloat16):
    print(f"{str(dtype):14} has for 70,000, 1e-8 and 1.001:", torch.tensor([7e4, 1e-8, 1.001]).to(dtype).tolist())
weight, master = torch.tensor(3.0).bfloat16(), torch.tensor(3.0)
for _ in range(10_000):
    master, weight = master - 3e-4, weight - 3e-4
assert weight == 3 and abs(master.bfloat16()) < 1e-3

# %%
questions.show("mixed-clip-before-unscale")
questions.show("mixed-scale-climb")

# %% tags=["evidence-mixed-clip-before-unscale", "evidence-mixed-scale-climb"]
wrong, sound = "backward clip step update", "backward unscale_ clip step update"
assert left(wrong, sgd) > 0.99 > 0.1 > left(sound, sgd) and abs(left(wrong, adam) - left(sound, adam)) < 0.05
climb = drive(torch.amp.GradScaler("cpu", 1.0, growth_interval=20), np.zeros(400))[:, 0]
print("steps from 1 to 65,536 with an interval of 20:", 1 + np.argmax(climb == 65536), "so with 2,000:", 16 * 2000)
assert 1 + np.argmax(climb == 65536) == 16 * 20

# %%
questions.show("mixed-beta2-in-bf16")
questions.show("mixed-drop-the-master")

# %% tags=["evidence-mixed-beta2-in-bf16", "evidence-mixed-drop-the-master"]
v = (1 + torch.arange(128) / 128).bfloat16()      # one octave of bf16
print("v shrinks from every value with a memory of", max(n for n in range(2, 999) if ((1 - 1 / n) * v < v).all()))
assert (0.999 * v == v).all() and torch.tensor(0.999).bfloat16() == 1
x, noise = torch.full((2**16,), 1.001), torch.arange(2**16, dtype=torch.int32)      # every possible noise
assert precision.stochastic_round(x, noise=noise).double().mean() == x[0].double() != x[0].bfloat16()
print("last losses:", {name: round(losses[-1], 4) for name, (losses, _) in fits.items()})

# %% [markdown]
# ## 10. Sources
#
# - Micikevicius et al. 2018, *Mixed Precision Training* (1710.03740): master weights, loss scaling, float32 sums.
# - Kalamkar et al. 2019, *A Study of BFLOAT16 for Deep Learning Training* (1905.12322).
# - Gupta et al. 2015, *Deep Learning with Limited Numerical Precision* (1502.02551): stochastic rounding.
# - Zamirai et al. 2020, *Revisiting BFloat16 Training* (2010.06192): stochastic rounding and Kahan summation.
# - Rajbhandari et al. 2020, ZeRO (1910.02054), section 3.1: 2P + 2P + 12P.
# - Micikevicius et al. 2022, *FP8 Formats for Deep Learning* (2209.05433); Rouhani et al. 2023, *Microscaling Data
#   Formats* (2310.10537); Peng et al. 2023, *FP8-LM* (2310.18313).
# - DeepSeek-AI 2024, DeepSeek-V3 (2412.19437), section 3.3: blocks, what stays high, bf16 moments.
# - Sun et al. 2024, *Massive Activations in Large Language Models* (2402.17762).
# - PyTorch documentation: `torch.amp`, with autocast's lists for each device.
#
# Contested: whether the master can go (3.7: Rae et al. 2021, Gopher, 2112.11446; Ozkara et al. 2025, 2502.20566). And
# whether bf16 is the right 16 bits: Qi et al. 2025 (2510.26788) find fp16 more stable in reinforcement learning of
# language models, where training and sampling must agree closely.
