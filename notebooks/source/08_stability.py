# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Stability
#
# ## 1. The question
#
# > *At step 40,000 the loss is NaN. What do you do, in order? And what would you have built in before the first step?*
#
# Afterwards you can say what clipping does under Adam and what it does not, accumulate gradients without the bug of
# 2024, name for each guard (beta2, StableAdamW, QK-norm, z-loss, initialisation, norms, averages) the failure that it
# prevents, and find the cause of a NaN from a log and one replayed step.
#
# Know first: notebook 04, sections 3.6 to 3.8. Time: 60 minutes.

# %%
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_

from course_lib import plots
from course_lib.averaging import EMA, TailAverage
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.optim import StableAdamW
from course_lib.optim.stable_adamw import excess
from course_lib.problems import depth, digits, failing_runs, lm, text
from course_lib.problems.noisy_quadratic import NoisyQuadratic
from course_lib.problems.watched_lm import WatchedLM
from course_lib.train import train

data, _ = text.split(text.corpus())
small = lm.LMConfig(layers=2, width=32, context=32)
quiet = dict(loss_fn=lm.next_byte_loss, device="cpu", progress=False)

# %% [markdown]
# ## 2. The picture
#
# A training step is a chain: data, activations, logits, loss, gradients, moments, update, weights. Whatever breaks,
# breaks in one link, and the loss is among the last to tell. Here the language model trains at lr = 0.1, without and
# with a guard that section 3.5 explains:

# %%
def watched_run(lr, qk_norm, steps=150):
    """Loss, averaged over 20 steps, and largest attention logit of AdamW."""
    model, logits = WatchedLM(small, qk_norm=qk_norm), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))
    history = train(model, optimizer, text.batches(data, 16, 32, steps, seed=0), **quiet,
                    callback=lambda *_: logits.append(model.largest_logit))
    return np.convolve(history.loss, np.full(20, 1 / 20), "valid"), np.array(logits)

hot = {name: watched_run(0.1, on) for name, on in (("plain", False), ("with QK-norm", True))}
plots.show(plots.lines_grid([
    dict(series={name: run[1] for name, run in hot.items()}, title="The attention logits leave within ten steps ...",
         xlabel="step", ylabel="largest |logit|", logy=True),
    dict(series={name: (np.arange(19, 150), run[0]) for name, run in hot.items()}, xlim=(0, 150), xlabel="step",
         title="... and the loss hardly tells for a long time", ylabel="loss (nats, mean of 20 steps)")]),
    alt="Left, largest attention logit on a log axis: without QK-norm it passes 100 within ten steps and reaches a "
        "thousand; with QK-norm it stays near ten or below. Right, the loss: after a poor start the plain run is level "
        "with the other for some fifty steps; then that one falls on, and the plain run stays on its plateau.")
assert hot["plain"][1][50:].min() > 10 * hot["with QK-norm"][1].max()
assert hot["plain"][0][-1] > hot["with QK-norm"][0][-1] + 0.05

# %% [markdown]
# For some fifty steps the two losses can hardly be told apart, while the logits differ a hundredfold. So log the links,
# not only the end of the chain. We walk along it backwards, from the gradient.
#
# ## 3. The derivation
#
# ### 3.1 Clip by the global norm
#
# One wild batch should not undo a thousand good ones. *What* of its gradient do we give up? The length, not the
# direction. So one factor for all tensors together:
#
# $$g\;\leftarrow\;g\cdot\min\Big(1,\;\frac{c}{\lVert g\rVert}\Big),\qquad
# \lVert g\rVert^2=\sum_{\text{tensors}}\lVert g_k\rVert^2 .$$

# %%
def clip(grads, c):
    norm = torch.sqrt(sum(g.square().sum() for g in grads))
    return [g * (c / norm).clamp(max=1) for g in grads]

def turned(grads):
    cosine = F.cosine_similarity(torch.cat(grads), torch.cat(wild), dim=0)
    return f"{math.degrees(math.acos(min(1.0, cosine))):.1f}"

wild = [torch.tensor([10.0, 1.0], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)]
params = [torch.zeros_like(g) for g in wild]
for p, g in zip(params, wild):
    p.grad = g.clone()
clip_grad_norm_(params, 1.0)
assert compare("clipped", torch.cat(clip(wild, 1.0)), torch.cat([p.grad for p in params]))
print("degrees by which the step turns: global norm", turned(clip(wild, 1.0)), " each tensor by its own",
      turned([clip([g], 1.0)[0] for g in wild]), " each value", turned([g.clamp(-1, 1) for g in wild]))

# %% [markdown]
# "Clipping limits the largest gradient value" describes `clip_grad_value_`, which turned the step by forty degrees.
# (torch divides by $\lVert g\rVert+10^{-6}$.) Where gradients are sharded, nobody may clip before the squared norms of
# all shards are added: an all-reduce of one number.
#
# ### 3.2 Why clipping by a constant hardly moves Adam
#
# Suppose $c$ is so small that it acts on every step. With $c/10$, every gradient is a tenth as long, $m$ and $\sqrt v$
# too, and the step is the same: $c$ *cancels*. What does not cancel is the ratio of the gradients within an average.
# Let them have mean 0.3 and deviation 1, and let one be 1,000 times larger:

# %%
def adam_walk(gradients, c=math.inf, make=torch.optim.Adam, **hyper):
    """Steps (T, n) in units of lr on gradients (T, n) clipped at norm c, in float64 with eps = 0."""
    param, path = torch.zeros(gradients.shape[1], dtype=torch.float64), []
    run = make([param], lr=1.0, eps=0.0, **hyper)
    for g in torch.from_numpy(gradients):
        before, (param.grad,) = param.clone(), clip([g], c)
        run.step()
        path.append(before - param)
    return torch.stack(path).numpy()

spiked = 0.3 + np.random.default_rng(0).standard_normal((3000, 200))
spiked[2000] *= 1000

# %%
walks = {c: adam_walk(spiked, c) for c in (math.inf, 30.0, 1.0, 0.001)}
for c, steps in walks.items():
    rms = np.sqrt((steps**2).mean(axis=1))
    print(f"clip at {c:6}: RMS step before {rms[1500:2000].mean():.2f}, after it at most {rms[2000:].max():.2f}, "
          f"100 later {rms[2100]:.2f}; way made by the end {steps[2000:].mean(axis=1).sum():.0f} lr")
assert np.allclose(walks[1.0], walks[0.001], rtol=1e-9) and not np.allclose(walks[1.0], walks[30.0], rtol=0.01)

# %% [markdown]
# - The usual norm is 15, so 1 and 0.001 act always, and give the same path. A threshold that always acts has no size.
# - The spike costs twice: one step eight times the usual length, and then $v$ remembers it for $1/(1-\beta_2)$ steps in
#   which the weights stand almost still. Most of the way is lost; *any* of the three clips saves it.
# - 1 is not quite 30: a clip at every step gives each batch the same vote in $m$ and $v$.
#
# So choose $c$ from your log, somewhat above the median norm, and watch the *share* of clipped steps. With SGD it is
# different: there an acting $c$ is a part of lr.
#
# ### 3.3 Accumulation, and the bug of 2024
#
# Call `backward` on each of $K$ micro-batches (gradients add up), then step once. With $\ell_{ij}$ the loss of token
# $j$ of the $n_i$ in micro-batch $i$, the left is wanted. Until October 2024 public trainers computed the right:
#
# $$\frac{\sum_i\sum_j\ell_{ij}}{\sum_i n_i}\qquad\text{against}\qquad\frac1K\sum_i\frac1{n_i}\sum_j\ell_{ij} .$$
#
# They agree if all $n_i$ are equal. Sixteen sequences in eight micro-batches, in three sets of lengths:

# %%
def accumulated(model, inputs, targets, pieces, by_token):
    model.zero_grad()
    total, loss = (targets != -100).sum(), 0.0
    for x, y in zip(inputs.chunk(pieces), targets.chunk(pieces)):
        kind, divisor = ("sum", total) if by_token else ("mean", pieces)
        part = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction=kind) / divisor
        part.backward()
        loss += part.item()
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double(), loss

def errors(lengths):
    """Relative errors in eight micro-batches: gradient by token, gradient by mean of means, loss by mean of means."""
    targets = y.masked_fill(torch.arange(32) >= torch.tensor(lengths).long()[:, None], -100)
    (whole, loss), (right, _), (wrong, off) = (accumulated(model, x, targets, *how)
                                               for how in ((1, True), (8, True), (8, False)))
    return *(((g - whole).norm() / whole.norm()).item() for g in (right, wrong)), abs(off / loss - 1)

model = lm.ByteLM(small)
train(model, torch.optim.AdamW(model.parameters(), lr=3e-3), text.batches(data, 16, 32, 40, seed=0), **quiet)
x, y = next(text.batches(data, 16, 32, 1, seed=1))

# %% tags=["nbval-ignore-output"]
for lengths in (np.full(16, 32), np.linspace(16, 32, 16), np.geomspace(2, 32, 16)):
    by_token, by_means, loss_error = errors(lengths)
    print(f"{lengths[0]:2.0f} to 32 tokens: the mean of means has an error of {loss_error:.0%} in the loss and of "
          f"{by_means:.0%} in the gradient; by token {by_token:.0%}")
    assert by_token < 1e-4 and (by_means < 1e-4) == (lengths[0] == 32)
assert by_means > 0.3

# %% [markdown]
# A token of a short sequence had up to sixteen times the vote of one of a long sequence. The loss hardly tells; the
# gradient is another one, so Adam does not hide it. Averaging the means of data-parallel ranks is the same mistake: the
# total must count the tokens of all ranks. (`course_lib.train` weighs by count; you build `token_mean_step`.)
#
# ### 3.4 Spikes: when v is out of date
#
# Wortsman et al. (2304.13013) saw loss spikes one to eight steps after $v$ had fallen behind the gradients. They
# measure how far, tensor by tensor, and StableAdamW divides the rate by it:
#
# $$\mathrm{RMS}_t=\sqrt{\operatorname{mean}\big(g_t^2/\max(\hat v_t,\epsilon^2)\big)},\qquad
# \text{lr}_t=\text{lr}/\max(1,\mathrm{RMS}_t) .$$
#
# Since $\hat v_t\ge(1-\beta_2)g_t^2/(1-\beta_2^t)$, RMS is at most $1/\sqrt{1-\beta_2}$ late in a run: 32 for 0.999,
# 4.5 for 0.95. Notebook 04 shocked $\beta_2$; now the guards. A factor of 100, for good or for one step:

# %%
stays, once = np.random.default_rng(0).standard_normal((2, 3200, 100))
stays[3000:] *= 100
once[3000] *= 100
guards = {"Adam, beta2 0.999": {}, "Adam, beta2 0.95": dict(betas=(0.9, 0.95)),
          "clip at twice the usual": dict(c=20.0),
          "StableAdamW, beta2 0.999": dict(make=StableAdamW, betas=(0.9, 0.999), weight_decay=0.0)}
rms = {name: [np.sqrt((adam_walk(g, **how)[2980:] ** 2).mean(axis=1)) for g in (stays, once)]
       for name, how in guards.items()}
for name, (long, short) in rms.items():
    print(f"{name:25} for good: at most {long.max():.2f};  one step: {short[20]:.2f}, next {short[21]:.2f}, "
          f"100 later {short[120]:.2f}")

# %%
panels = [dict(series={name: (np.arange(-20, 200), r[k]) for name, r in rms.items()}, title=title, logy=True,
               xlabel="steps after the shock", ylabel="RMS step (units of lr)")
          for k, title in ((0, "It stays: the cap holds"), (1, "One step: the cap holds for that step only"))]
plots.show(plots.lines_grid(panels), alt="Left, a lasting shock: Adam at 0.999 rises tenfold, StableAdamW stays low. "
           "Right, one step: StableAdamW is low at it, and as long as Adam a step later; the clipped run stays level.")
assert rms["StableAdamW, beta2 0.999"][1][20] < 0.2 < 2 < rms["StableAdamW, beta2 0.999"][1][21]

# %% [markdown]
# The right panel is easily missed: the cap looks at $g_t$, but the step is $m_t$. At the shock it holds. One step later
# $g$ is ordinary, the cap lets go, and nine tenths of the shock are still in $m$. So: against a lone bad batch, clip or
# skip, *before* it enters the averages; against gradients that stay larger, cap the update or shorten $\beta_2$.
# Epsilon is a guard too, once it is as large as the gradients: section 6. Does a model agree? One batch of random
# bytes at step 100:

# %%
def lengths(make, c=None, **hyper):
    """Length of the step at the bad batch and of the longest of three after it, in usual lengths."""
    net = lm.ByteLM(lm.LMConfig(layers=1, width=32, context=32))
    flat, path = torch.nn.utils.parameters_to_vector, []
    train(net, make(net.parameters(), lr=3e-3, weight_decay=0.0, **hyper), batches, **quiet, clip=c,
          callback=lambda *_: path.append(flat(net.parameters()).detach().clone()))
    steps = torch.stack(path).diff(dim=0).norm(dim=1)      # from step 1 on
    return [(step / steps[80:99].median()).item() for step in (steps[99], steps[100:].max())]

batches = list(text.batches(data, 16, 32, 104, seed=0))
batches[100] = tuple(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 16, 32))))
plain, clipped = lengths(torch.optim.AdamW), lengths(torch.optim.AdamW, 1.0)
capped = lengths(StableAdamW, betas=(0.9, 0.999))
for place, bare, cap, clipping in zip(("at", "after"), plain, capped, clipped):
    print(f"{place} the bad batch, shorter by the cap: {cap < 0.7 * bare}, by the clip: {clipping < 0.9 * bare}")

# %% [markdown]
# ### 3.5 Attention logits: QK-norm
#
# Within attention nothing bounds $q\cdot k/\sqrt d$; the root of $d$ helps only at initialisation. Large logits make
# softmax a hard choice whose gradient vanishes. Normalise $q$ and $k$ to RMS 1 and Cauchy-Schwarz gives
# $|q\cdot k|/\sqrt d\le\sqrt d$, times learned gains. Section 2 has shown it at a rate that is too high. At a good one:

# %%
good = {on: watched_run(3e-3, on) for on in (False, True)}
print("largest logit at step 1 with QK-norm is at most sqrt(8):", bool(good[True][1][0] <= math.sqrt(8) + 1e-4))
print("last losses within 0.1:", bool(abs(np.subtract(good[True][0], good[False][0])[-20:].mean()) < 0.1))

# %% [markdown]
# At a good rate it gains nothing here. It widens the range of rates that work, which is what a run too large to be
# swept needs: small models at high rates show what large ones show at ordinary rates (2309.14322; ViT-22B, 2302.05442).
# Where keys are never formed in one piece, as in multi-head latent attention, QK-clip shrinks the weights after the
# step instead (Kimi K2, 2507.20534; notebook 14).
#
# ### 3.6 Output logits: z-loss
#
# Softmax does not see a common shift of its logits: with $Z=\sum_ke^{x_k}$ the gradient of $\log Z-x_y$ is
# $\operatorname{softmax}(x)-e_y$, whose sum is zero. SGD on logits keeps their mean; Adam divides coordinate by
# coordinate, and the mean drifts. The penalty $c\,(\log Z)^2$ adds $2c\log Z\cdot\operatorname{softmax}(x)$: a pull on
# the level, and on nothing else. Bias-only, 64 classes of Zipf frequencies, from a level of 100:

# %%
def level(make, c, **hyper):
    """Mean logit and log Z after 500 steps from a mean of 100."""
    b = torch.full((64,), 100.0, dtype=torch.float64, requires_grad=True)
    run, rng, p = make([b], **hyper), np.random.default_rng(0), 1 / np.arange(1, 65)
    for _ in range(500):
        log_z = b.logsumexp(0)
        (b.grad,) = torch.autograd.grad(log_z - b[rng.choice(64, 16, p=p / p.sum())].mean() + c * log_z**2, b)
        run.step()
    return f"mean logit {b.mean().item():.2f}, log Z {log_z.item():.1f}"

print("SGD         ", level(torch.optim.SGD, 0.0, lr=0.5), "\nAdam        ", level(torch.optim.Adam, 0.0, lr=0.1),
      "\nAdam, z-loss", level(torch.optim.Adam, 1e-3, lr=0.1))
logits = torch.tensor([1.1, 2.3, 3.2])
for shift in (0.0, 100.0):
    loss = F.cross_entropy((logits + shift).bfloat16().float(), torch.tensor(1)).item()
    print(f"loss of bf16 logits at level {shift:3.0f}: {loss:.2f}")

# %% [markdown]
# The level costs nothing in exact arithmetic, and digits in 16 bits. PaLM (2204.02311) takes $c=10^{-4}$: too weak to
# repair, strong enough to prevent.
#
# ### 3.7 Start well: initialisation
#
# With weights of variance $a/n$ before a ReLU, which halves the mean square, each layer multiplies the mean square by
# $a/2$, forward and backward alike. A residual stream forgives a wrong $a$, but adds up: $N$ branches of variance $s^2$
# give $1+Ns^2$. So GPT-2 divides what writes into the stream by $\sqrt N$, where $N=2\cdot\text{layers}$, since a block
# has two branches. Thirty plain layers, and a stream of 48 blocks:

# %%
for name, gain in (("1/3, torch.nn.Linear's", 1 / 3), ("1, Glorot", 1.0), ("2, He", 2.0)):
    s = depth.plain(gain)
    print(f"a = {name:22} RMS {s.forward[-1]:.0e}, gradient {s.backward[0]:.0e}, predicted {(gain / 2) ** 15:.0e}")
streams = {"1": depth.residual(1.0), "sqrt(0.5)": depth.residual(0.5**0.5), "1/sqrt(96)": depth.residual(96**-0.5)}
print({n: f"variance {s.forward[-1] ** 2:.1f}" for n, s in streams.items()}, "predicted", 1 + 96, 1 + 48, 1 + 1)

# %%
panels = [dict(series={f"scale {n}": getattr(s, way) for n, s in streams.items()}, title=title, xlabel="branch",
               ylabel=f"RMS, {way}", logy=True)
          for way, title in (("forward", "The stream grows tenfold"), ("backward", "and the first gradients with it"))]
plots.show(plots.lines_grid(panels), alt="Over 96 branches, the RMS of the stream rises to 9.9 unscaled, 7 with "
           "sqrt(0.5), 1.4 with 1/sqrt(96); the first branch has 10, 7 and 1.4 times the gradient of the last.")

# %% [markdown]
# The constant $\sqrt{0.5}$ that some texts ascribe to GPT is that of convolutional sequence models (1705.03122); a
# constant does not compensate depth.
#
# ### 3.8 Norms: over which axes?
#
# Four norms, one formula: subtract a mean, divide by a root mean square. What differs is what they are taken over:

# %%
def normalised(x, axes, centred=True):
    x = x - x.mean(axes, keepdim=True) if centred else x
    return x / (x.square().mean(axes, keepdim=True) + 1e-5).sqrt()

x = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 6, 5, 5)) * 3 + 2)      # N, C, H, W
assert compare("batch: N, H, W", normalised(x, (0, 2, 3)), F.batch_norm(x, None, None, training=True))
assert compare("layer: C, H, W", normalised(x, (1, 2, 3)), F.layer_norm(x, (6, 5, 5)))
assert compare("instance: H, W", normalised(x, (2, 3)), F.instance_norm(x))
assert compare("RMS: last", normalised(x, 3, centred=False), F.rms_norm(x, (5,), eps=1e-5))
for others in ((0.0, 4.0), (2.0, 8.0)):
    bn, column = torch.nn.BatchNorm1d(1, dtype=torch.float64), torch.tensor([2.0, *others]).double()[:, None]
    print(f"beside {others}, a 2 becomes {bn(column)[0].item():.2f}; running variance {bn.running_var.item():.2f} = "
          f"0.9 + 0.1 x {column.var().item():.0f}")

# %% [markdown]
# Only batch norm crosses examples: an output depends on its neighbours. So it keeps running statistics for evaluation
# (torch: 0.9 old + 0.1 new, of the *unbiased* variance), and the same weights have two losses:

# %%
held = digits.load()
for norm, batch in ((torch.nn.BatchNorm1d, 2), (torch.nn.BatchNorm1d, 32), (torch.nn.LayerNorm, 2)):
    first, relu, last = digits.classifier((64,))
    net = torch.nn.Sequential(first, norm(64), relu, last)
    train(net, torch.optim.AdamW(net.parameters(), lr=1e-3), loss_fn=digits.loss, device="cpu", progress=False,
          batches=digits.batches(held.images, held.labels, batch, 400, seed=0))
    pairs = list(digits.batches(held.test_images, held.test_labels, batch, 350 // batch, seed=1))
    losses = [np.mean([digits.loss(net.train(mode), pair).item() for pair in pairs]) for mode in (True, False)]
    print(f"{norm.__name__:11} batch {batch:2}: loss in train mode above that in eval mode by a tenth:",
          bool(losses[0] > 1.1 * losses[1]))

# %% [markdown]
# At batch 2 half of every statistic is the neighbour. That is why sequence models use layer norm, or RMSNorm, which
# leaves the mean alone and has the same axis with less work. Notebook 17 has norms and attention.
#
# ### 3.9 Averages of the weights
#
# At a constant rate SGD ends in a cloud around the minimum, whose size is set by lr and noise. Shrink lr, or average
# the cloud away. On a coordinate of curvature $h$, with $\rho=1-\text{lr}\,h$, the variance of an EMA with decay
# $\beta$ is that of the iterate times $\frac{1-\beta}{1+\beta}\cdot\frac{1+\rho\beta}{1-\rho\beta}$: near 1 until the
# memory $1/(1-\beta)$ exceeds $1/(\text{lr}\,h)$. A noisy quadratic with curvatures 0.01 to 1:

# %%
problem = NoisyQuadratic(np.logspace(0, -2, 100), noise=0.3)

def averaged_run(schedule, steps=2000):
    """Loss every 20 steps of the last weights, two EMAs and the mean of the second half; mean of 8 runs."""
    param, rng, log = problem.parameter(8), np.random.default_rng(0), []
    sgd = torch.optim.SGD([param], lr=0.3)
    averages = [EMA([param], 0.9), EMA([param], 0.998), TailAverage([param], steps // 2)]
    for step in range(steps):
        sgd.param_groups[0]["lr"] = 0.3 * schedule(step / steps)
        problem.backward(param, 1, rng)
        sgd.step()
        for average in averages:
            average.update()
        if step % 20 == 19:
            tail = averages[2].averaged() if step >= steps // 2 else [torch.full_like(param, math.nan)]
            points = [param, averages[0].averaged()[0], averages[1].averaged()[0], tail[0]]
            log.append([problem.loss(w.detach().numpy()).mean() for w in points])
    return dict(zip(("last weights", "EMA 0.9", "EMA 0.998", "tail average"), np.array(log).T))

curves = {"lr constant": averaged_run(lambda t: 1.0), "lr to zero": averaged_run(lambda t: 1 - t)}
panels = [dict(series={k: (np.arange(20, 2001, 20), v) for k, v in run.items()}, title=title, xlabel="step",
               ylabel="loss", logy=True)
          for run, title in zip(curves.values(), ("Constant lr: averages gain ninefold", "lr to zero: little is left"))]
plots.show(plots.lines_grid(panels), alt="Left, constant lr: the last weights level off at a loss of 0.7, EMA 0.998 "
           "and the tail average end near 0.08. Right, lr to zero: last weights and averages end between 0.06 and 0.1.")
for name, run in curves.items():
    print(name, {kind: round(float(loss[-1]), 3) for kind, loss in run.items()})

# %% [markdown]
# Averaging does what decay does, and does not add to it: EMA at a constant rate is a forecast of the decayed model
# (DeepSeek-V3 keeps one for that, 2412.19437). Two traps: an EMA that starts at the initial weights without bias
# correction still holds $\beta^t$ of them; and averaged weights need new batch norm statistics (`update_bn`). SWA
# (1803.05407) is the equal-weights version; you build `ema_corrected`.
#
# ## 4. The whole
#
# A step with its guards in order: count tokens, add sums, penalise $\log Z$, clip, look for infinities, step, average.
# Beside it the same model without guards, on 30 batches of which number 10 is all padding:

# %%
def guarded_step(model, micro_batches, optimizer, average, max_norm=1.0, z=1e-4):
    """One step over pairs (inputs, targets), -100 for targets that do not count; whether it was taken."""
    tokens, loss = sum(int((y != -100).sum()) for _, y in micro_batches), 0.0
    optimizer.zero_grad()
    for x, y in micro_batches:
        logits, y = model(x).float().flatten(0, 1), y.flatten()
        penalty = z * logits.logsumexp(-1)[y != -100].square().sum()
        part = (F.cross_entropy(logits, y, reduction="sum") + penalty) / max(tokens, 1)
        part.backward()
        loss += part.item()
    norm = clip_grad_norm_(model.parameters(), max_norm).item()
    if tokens == 0 or not math.isfinite(loss + norm):
        return False
    optimizer.step()
    average.update()
    return True

model, bare, taken = lm.ByteLM(small), lm.ByteLM(small), []
optimizer, average = StableAdamW(model.parameters(), lr=3e-3), EMA(model.parameters(), 0.9)
naked = torch.optim.AdamW(bare.parameters(), lr=3e-3)
for step, (x, y) in enumerate(text.batches(data, 16, 32, 30, seed=0)):
    y = torch.full_like(y, -100) if step == 10 else y
    taken.append(guarded_step(model, list(zip(x.chunk(4), y.chunk(4))), optimizer, average))
    naked.zero_grad()
    failing_runs.masked_mean(bare, (x, y.clamp(min=0)), y != -100).backward()
    naked.step()
print("skipped", [step for step, yes in enumerate(taken) if not yes], " weights finite: guarded, bare",
      [all(bool(p.isfinite().all()) for p in net.parameters()) for net in (model, bare)])

# %% [markdown]
# Is StableAdamW what section 3.4 says? `torch.optim.AdamW`, its lr divided by hand, and torch's EMA:

# %%
mine, theirs, v = (torch.zeros(100, dtype=torch.float64) for _ in range(3))
stable = StableAdamW([mine], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
adamw = torch.optim.AdamW([theirs], betas=(0.9, 0.99), weight_decay=0.1)
ema, torch_ema = EMA([mine], 0.9, bias_correction=False), torch.zeros_like(mine)
for t, g in enumerate(torch.from_numpy(once[2950:3050]), start=1):
    mine.grad, theirs.grad, v = g, g, 0.99 * v + 0.01 * g**2
    adamw.param_groups[0]["lr"] = 0.01 / max(1.0, excess(g, v / (1 - 0.99**t), 1e-8).item())
    stable.step()
    adamw.step()
    ema.update()
    torch.optim.swa_utils.get_ema_multi_avg_fn(0.9 if t > 1 else 0.0)([torch_ema], [mine], t)
assert compare("weights", mine, theirs) and compare("m", stable.state[mine]["exp_avg"] * (1 - 0.9**100),
                                                    adamw.state[theirs]["exp_avg"])
assert compare("EMA", ema.averaged()[0], torch_ema)

# %% [markdown]
# ## 5. Against production
#
# What do guards cost? The norm reads every gradient once, 4 bytes per float32 parameter beside the 28 of AdamW's step;
# scaling reads and writes it, 8 more. An EMA reads the weight and its average and writes the average: 12, and keeps 4.
# Each `.item()` makes a GPU wait: one a step is little, one a tensor is not.

# %% tags=["nbval-ignore-output"]
params = [torch.ones(512, 512, requires_grad=True) for _ in range(8)]
sum(p.sum() for p in params).backward()
ways = {"AdamW": torch.optim.AdamW(params).step, "stable": StableAdamW(params).step, "EMA": EMA(params, 0.9).update,
        "clip": lambda: clip_grad_norm_(params, 1), "finite": lambda: all(p.grad.isfinite().all() for p in params)}
print(bench.describe_device(), bench.ratio_table(bench.step_times(ways, repeats=5, warmup=1), base="AdamW"), sep="\n")
assert ways["finite"]() and abs(torch.cat([p.grad.flatten() for p in params]).norm() - 1) < 1e-3

# %% [markdown]
# Beside the passes through a model all this is small; but a check tensor by tensor may cost as much as the step.
# torch's fused steps read the scaler's `found_inf` on the device, so that a skip needs no wait.
#
# ## 6. Turn the knobs
#
# Section 3.4's shock with all guards; the cap is on. Predict, then move one at a time: the shock for good; the cap off,
# clipping at the usual norm; beta2 at 0.95; epsilon at 1, the usual size of a gradient.

# %%
from course_lib import widgets

widgets.explore_gradient_shock(cap=True)

# %% [markdown]
# Epsilon at 1 halves the usual step and the shock's less: it helps where $v$ has nearly vanished, and costs all other
# steps. A clip leaves usual steps alone. The cap leaves a lone spike to the next step.
#
# ## 7. How it breaks
#
# Six real runs of the language model, 60 steps each. One is sound. For each of the others: which link broke first?

# %%
runs = dict(zip("ABCDEF", map(failing_runs.run, ("division", "attention", "overflow", "rate", "bad batch", "sound"))))
titles = "all ends at once", "nothing ends", "all but the loss ends", "factors, then NaN", "a jump, and back", "no news"
panels = [dict(series=run.series(), title=f"Log {name}: {title}", xlabel="step", ylabel="log scale", logy=True,
               xlim=(0, 60)) for (name, run), title in zip(runs.items(), titles)]
plots.show(plots.lines_grid(panels), alt="Four curves a log. A: ordinary until step 40, then nothing. B: the logit "
           "climbs to several hundred. C: as A, but the loss of step 40 is there. D: all grow by factors, and end "
           "before step 10. E: loss and gradient norm jump together at step 40. F: all stay level.")

# %% [markdown]
# Then ask, in this order. Keep the last weights that were sound, and replay the step:
#
# 1. **Non-finite?** Which first: loss, gradient or update? Replay the step in float32.
#    - *finite now*: a 16-bit overflow. Loss scale, or bf16.
#    - *not finite*: replay with another batch.
#      - *finite*: this batch, or an operation at its edge: $\log 0$, $0/0$, a masked row. Forward hooks
#        (`failing_runs.first_nonfinite`) and `torch.autograd.set_detect_anomaly` name the place.
#      - *not finite*: the weights were gone before. Look back for growth by factors: lr, or a missing warmup.
# 2. **Finite, but worse.**
#    - *attention logits in the hundreds*: QK-norm, a lower rate.
#    - *loss and gradient norm jump in the same step*: the batch. Look at it; clip, skip.
#    - *the step's length jumps first, the loss steps later*: $v$ out of date. $\beta_2$, the cap.

# %%
for name, run in runs.items():
    found = failing_runs.diagnose(run)
    print(f"{name}: finite {found.first is None!s:5} replayed in float32 {found.same_batch!s:5} "
          f"with another batch {found.other_batch!s:5} -> {found.verdict}")

# %% [markdown]
# D used SGD: under Adam a rate too high seldom ends in NaN; it looks like B. Five operations that are fine forward and
# not backward, or the other way round:

# %%
def gradient(function, *values):
    x = torch.tensor(values, requires_grad=True)
    y = function(x)
    y.backward()
    return f"value {y.item():.3g}, gradient {x.grad.tolist()}"

print("where(x > 0, log x, 0) at 0:     ", gradient(lambda x: torch.where(x > 0, x.log(), 0.0).sum(), 0.0))
print("sqrt(sum of squares) at 0:       ", gradient(lambda x: x.square().sum().sqrt(), 0.0))
print("log(softmax), logits 200 apart:  ", gradient(lambda x: -x.softmax(0).log()[0], 0.0, 200.0))
print("masked sum / count, none counts: ", gradient(lambda x: (x * 0).sum() / torch.zeros(()), 1.0))
print("cross_entropy, all targets -100: ", gradient(lambda x: F.cross_entropy(x[None], torch.tensor([-100])), 1.0, 2.0))

# %% [markdown]
# The last is a trap for loggers: the loss is NaN, the gradient zero, and the run goes on with a spoiled average.
#
# | mistake | in the log |
# |---|---|
# | clipping each tensor by its own norm | the global norm after clipping is above the threshold |
# | mean of means | loss as always, result changes with the number of micro-batches |
# | one unguarded spike, $\beta_2=0.999$ | step length low for hundreds of steps after it |
# | no $1/\sqrt N$ | gradient norms of early blocks ten times those of late ones |
# | batch norm, tiny batches | train and evaluation losses of the same weights differ |
# | EMA 0.9999, uncorrected, in a run of 2,000 steps | 82% of the average are still initial weights |
# | resume without optimizer state | gradient norms go on as before, each weight moves by lr at first |
#
# ## 8. Your turn
#
# In `exercises/08_stability.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `clip_by_global_norm` | clipping with its edges: no gradient, zero, infinite, 16 bits |
# | `token_mean_step` | one step over micro-batches of unequal length |
# | `ema_corrected` | the path of a bias-corrected average |
# | `z_loss` | loss and gradient, stable for logits of 10,000 |
# | `residual_std` | a number: GPT-2's initialisation with 48 layers |
# | `first_symptom` | where in a training log something is first wrong |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("stab-nan-tree")
questions.show("stab-where-trap")

# %% tags=["evidence-stab-nan-tree", "evidence-stab-where-trap"]
verdicts = {name: failing_runs.diagnose(run).verdict for name, run in runs.items()}
assert list(verdicts.values()) == ["division", "attention", "overflow", "rate", "bad batch", "sound"]
p = torch.tensor([0.0, 0.5], requires_grad=True)
(wrong,) = torch.autograd.grad(torch.where(p > 0, p * p.log(), 0 * p).sum(), p)
(right,) = torch.autograd.grad((p * torch.where(p > 0, p, torch.ones_like(p)).log()).sum(), p)
assert wrong[0].isnan() and right.isfinite().all()

# %%
questions.show("stab-way-lost")
questions.show("stab-cap-or-clip")

# %% tags=["evidence-stab-way-lost", "evidence-stab-cap-or-clip"]
way = {c: steps[2000:].mean() for c, steps in walks.items()}
bare, capped, clipped = (rms[name] for name in list(guards)[::3] + list(guards)[2:3])
assert way[math.inf] < 0.2 * way[30.0] and capped[0].max() < 0.5 * bare[0].max()
assert capped[1][20] < 0.2 and abs(capped[1][21] / bare[1][21] - 1) < 0.01 and clipped[1].max() < 0.5
print(f"left of the way {way[math.inf] / way[30.0]:.0%}; step after the shock {capped[1][21]:.1f} lr")

# %%
questions.show("stab-attention-logits")
questions.show("stab-average-or-decay")

# %% tags=["evidence-stab-attention-logits", "evidence-stab-average-or-decay"]
assert hot["plain"][1][-1] > 50 * good[True][1][0] and good[True][1][0] <= math.sqrt(8) + 1e-4
last = {name: {kind: loss[-1] for kind, loss in run.items()} for name, run in curves.items()}
gain = {name: end["last weights"] / end["tail average"] for name, end in last.items()}
print({name: f"averaging gains {factor:.1f}-fold" for name, factor in gain.items()})
assert gain["lr constant"] > 5 > 2 > gain["lr to zero"]

# %% [markdown]
# ## 10. Sources
#
# - Pascanu et al. 2013, *On the difficulty of training recurrent neural networks* (1211.5063): clipping by the norm.
# - Wortsman et al. 2023, *Stable and low-precision training for large-scale vision-language models* (2304.13013):
#   StableAdamW, spikes and $v$; *Small-scale proxies for large-scale Transformer training instabilities* (2309.14322).
# - Henry et al. 2020, *Query-Key Normalization for Transformers* (2010.04245); Dehghani et al. 2023, ViT-22B
#   (2302.05442); Kimi Team 2025, Kimi K2 (2507.20534): QK-clip.
# - Chowdhery et al. 2022, PaLM (2204.02311): z-loss, spikes, restarts that skip batches.
# - Hugging Face Transformers, pull request 34191 (October 2024): the accumulation bug.
# - Radford et al. 2019, GPT-2, section 2.3; He et al. 2015 (1502.01852); Glorot & Bengio 2010 (AISTATS).
# - Ioffe & Szegedy 2015, batch norm (1502.03167); Ba et al. 2016, layer norm (1607.06450); Ulyanov et al. 2016,
#   instance norm (1607.08022); Zhang & Sennrich 2019, RMSNorm (1910.07467).
# - Izmailov et al. 2018, SWA (1803.05407); DeepSeek-AI 2024, DeepSeek-V3 (2412.19437).
#
# Contested: what causes spikes at scale. $v$ out of date (2304.13013), or gradients of early layers that fall to
# epsilon and become correlated in time (Molybog et al. 2023, 2304.09871). PaLM's team found that neither the data
# alone nor the weights alone bring a spike back, only the two together.
