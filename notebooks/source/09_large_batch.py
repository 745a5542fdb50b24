# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Large batches
#
# ## 1. The question
#
# > *You are given four times the GPUs. What do you do with batch size, learning rate and betas, and how much faster are
# > you?*
#
# Afterwards you can measure the gradient noise scale and say what a larger batch buys; derive SGD's linear and Adam's
# square-root rule and say where each ends; derive LARS and LAMB; and answer the question with numbers.
#
# Know first: notebooks 02 and 04. Time: 50 minutes.

# %%
import math

import numpy as np
import torch

from course_lib import plots
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.optim import LAMB, LARS
from course_lib.problems import digits, lm, text
from course_lib.problems.noisy_quadratic import (
    NoisyQuadratic, descend, expected_losses, fewest_steps, steps_to_target,
)
from course_lib.problems.one_pass import one_pass
from course_lib.problems.scaled_layers import ScaledLayers, relative_sizes
from course_lib.problems.sparse import rare_features
from course_lib.train import pick_device, train

# %% [markdown]
# ## 2. The picture
#
# You ask people in the street which way is downhill, and go where the mean answer points. If they nearly agree, five
# are enough and the next thousand tell you nothing. If they hardly agree, a thousand are well asked. So how many to ask
# depends on one number: how much the answers scatter, beside how far they point the same way on average.
#
# Our instrument is a quadratic in 30 directions, with curvatures from 1 down to 1/316, on which that number is known.
# The noise of one example is larger where the valley is steeper, as it is near the minimum of a likelihood.

# %%
h = np.logspace(0, -2.5, 30)
valley = NoisyQuadratic(h, noise=4 * np.sqrt(h), start=1 / np.sqrt(h))
G, start, batches = valley.gradient(valley.start), float(valley.loss(valley.start)), 2.0 ** np.arange(13)

# %%
rng = np.random.default_rng(0)
seen = [G + valley.noise / math.sqrt(b) * rng.standard_normal((4000, 30)) for b in batches]
share = {"measured": (batches, [100 * G @ G / (g**2).sum(axis=1).mean() for g in seen]),
         "1 / (1 + 16 / B)": (batches, 100 / (1 + 16 / batches))}
plots.show(plots.lines(share, title="At 16 examples half of the gradient is signal; far beyond, all of it", logx=True,
                       xlabel="batch size B (examples)", ylabel="share of signal (percent)",
                       vlines={"noise scale": valley.noise_scale(valley.start)}),
           alt="Share of the squared length of a batch gradient that is signal, against the batch size: 6 percent at "
               "1, 50 at 16, 94 at 256. Points measured from 4,000 draws lie on the curve.")

# %% [markdown]
# ## 3. The derivation
#
# ### 3.1 The gradient noise scale
#
# Let $G$ be the true gradient and $S$ the covariance of one example's gradient. The mean $g_B$ of $B$ independent
# examples has covariance $S/B$, so
#
# $$\mathbb E\,|g_B|^2=|G|^2+\frac{\operatorname{tr}S}{B}=|G|^2\Big(1+\frac{\mathcal B}{B}\Big),\qquad
# \mathcal B=\frac{\operatorname{tr}S}{|G|^2}.$$
#
# $\mathcal B$ is the *simple noise scale* of McCandlish et al. (2018): the batch at which noise and signal are equally
# long. Two batch sizes give two equations for the two unknowns:

# %%
def two_sizes(small, big, square_small, square_big):
    """|G|^2 and tr S from the mean squared length of gradients at two batch sizes."""
    signal = (big * square_big - small * square_small) / (big - small)
    return signal, (square_small - square_big) / (1 / small - 1 / big)

# %%
signal, scatter = two_sizes(4, 64, (seen[2] ** 2).sum(axis=1), (seen[6] ** 2).sum(axis=1))      # 4,000 estimates
print(f"true: |G|^2 {G @ G:.2f}, tr S {valley.noise_trace:.1f}, ratio {valley.noise_trace / (G @ G):.1f}")
print(f"mean: |G|^2 {signal.mean():.2f}, tr S {scatter.mean():.1f}, ratio {scatter.mean() / signal.mean():.1f}")
print(f"mean of the 4,000 ratios {(scatter / signal).mean():.1f}, from {(scatter / signal).min():.0f} up")
assert abs(scatter.mean() / signal.mean() - 16) < 0.5 and (scatter / signal).min() < 0

# %% [markdown]
# Both estimates are unbiased and noisy; a ratio of noisy numbers is neither. So average $|G|^2$ and
# $\operatorname{tr}S$ over many steps, and divide last. Data-parallel training gets both sizes for nothing: the length
# of each worker's gradient before the all-reduce, and of the mean after it.
#
# On real data, softmax regression on the digits, the truth can be computed from all per-image gradients. Sixteen
# simulated workers with 32 images each estimate it beside, from 200 steps:

# %%
data = digits.load(torch.float64)
x, y = np.c_[data.images.numpy(), np.ones(len(data.images))], np.eye(10)[data.labels.numpy()]
w = np.zeros((65, 10))
for step in range(301):
    error = np.exp(x @ w) / np.exp(x @ w).sum(axis=1, keepdims=True) - y
    if step in (0, 10, 100, 300):
        each = (x[:, :, None] * error[:, None, :]).reshape(len(x), -1)      # a gradient an image
        exact = each.var(axis=0).sum() / (each.mean(axis=0) ** 2).sum()
        workers = np.array([each[rng.integers(0, len(x), (16, 32))].mean(axis=1) for _ in range(200)])      # 200 steps
        a, b = two_sizes(32, 512, (workers**2).sum(axis=2).mean(), (workers.mean(axis=1) ** 2).sum(axis=1).mean())
        loss = -np.log((error + y)[y == 1]).mean()
        print(f"step {step:3}: loss {loss:.2f}, noise scale {exact:5.0f} images, estimated {b / a:5.0f}")
    w -= x.T @ error / len(x)
assert exact > 2000 and 0.5 < (b / a) / exact < 2

# %% [markdown]
# The scale grows fifty-fold while the loss falls: at first all images agree on what to do, in the end each wants
# something else. No batch size is right for a whole run.
#
# ### 3.2 How long may the step be?
#
# Along $g_B$ with rate $\eta$, the expected loss of a quadratic with Hessian $H$ changes by
#
# $$-\eta\,|G|^2+\frac{\eta^2}2\Big(G^\top HG+\frac{\operatorname{tr}(HS)}B\Big),\qquad\text{least at}\qquad
# \eta^*(B)=\frac{\eta_{\max}}{1+\mathcal B_H/B},\quad \mathcal B_H=\frac{\operatorname{tr}(HS)}{G^\top HG}.$$
#
# Here $\eta_{\max}=|G|^2/G^\top HG$ is the best rate without noise. $\mathcal B_H$ is the noise scale weighted by the
# curvature; $\mathcal B$ stands in for it because nobody has $H$. (In our valley both are 16.)

# %%
rates, many = np.geomspace(1e-3, 5, 4000), 4.0 ** np.arange(-1, 7)
best = rates[[expected_losses(valley, rates, b, 1)[1].argmin() for b in many]]
eta_max, B_H = G @ G / (G @ (h * G)), (h * valley.noise**2).sum() / (G @ (h * G))
assert compare("best rate of a step", best, eta_max / (1 + B_H / many), tol=0.01) and np.isclose(B_H, 16)

# %%
series = {name: (many, best[0] * (many / many[0]) ** power) for name, power in (("linear rule", 1), ("root rule", 0.5))}
chart = plots.lines({"best rate": (many, best)} | series,
                    title="The linear rule holds below the noise scale and ends there", logx=True, logy=True,
                    xlabel="batch size B (examples)", ylabel="learning rate", vlines={"noise scale": 16})
plots.show(chart, alt="Best rate of one SGD step against batch size, log axes. Below 16 examples it rises in "
           "proportion; above, it levels off near 2. The linear rule goes on rising; the root rule is too low.")

# %% [markdown]
# Below the noise scale the best rate is proportional to $B$: Goyal et al.'s linear rule (2017). Above it the rate is
# capped by curvature, and no rule can raise it. A step at the best rate gains $1/(1+\mathcal B_H/B)$ of what the true
# gradient would gain. That factor will return as the price of everything.
#
# ### 3.3 Linear for SGD
#
# Keep the whole path, then, when the batch grows $k$-fold and the steps become $k$ times fewer. In $n$ steps SGD drifts
# by $n\eta G$ and collects noise of covariance $n\eta^2S/B$. With $n/k$, $kB$ and rate $\eta'$:
#
# $$\frac nk\,\eta'G\quad\text{and}\quad\frac nk\,\eta'^2\frac S{kB}:\qquad \eta'=k\eta\ \text{ restores both.}$$
#
# Four hundred directions in which one example's gradient is ten times as much noise as signal. Printed is by what
# factor the losses differ from the run at batch 1, at equal numbers of examples (1.00 is the same run):

# %%
def apart(path, reference):
    """Typical factor between two loss curves, from eight points of each."""
    path, reference = (curve[:: len(curve) // 8][1:9] for curve in (path, reference))
    return math.exp(np.abs(np.log(path / reference)).mean())

loud, steps = NoisyQuadratic(np.ones(400), noise=30.0, start=3.0), 4096
base = expected_losses(loud, 0.004, 1, steps)
print("SGD   batch x", *(f"{k:7}" for k in (4, 16, 64, 256)))
for rule, power in (("kept", 0), ("root", 0.5), ("linear", 1)):
    row = [apart(expected_losses(loud, 0.004 * k**power, k, steps // k), base) for k in (4, 16, 64, 256)]
    print(f"rate {rule:8}", *(f"{factor:7.2f}" for factor in row))
    assert power < 1 or max(row[:2]) < 1.05

# %% [markdown]
# The linear rule reproduces the run until the rate itself is no longer small beside 2/curvature.
#
# ### 3.4 Square root for Adam
#
# Adam divides by $\sqrt v$. Where noise dominates, $v\approx S/B$, and a $k$-fold batch makes $\sqrt v$ smaller by
# $\sqrt k$. So drift per step grows by $\sqrt k$ already, and the noise per step stays at unit size:
#
# $$\frac nk\,\eta'\sqrt k\quad\text{and}\quad\frac nk\,\eta'^2:\qquad\eta'=\sqrt k\,\eta\ \text{ restores both.}$$
#
# The averages should remember as many *examples* as before: $1-\beta\to k(1-\beta)$. And $\epsilon$ stands beside
# $\sqrt v$: $\epsilon\to\epsilon/\sqrt k$ (Malladi et al. 2022). All three, on the loud problem and on a quiet one:

# %%
def adam(problem, k, power, scaled=True, lr=0.02, betas=(0.99, 0.999)):
    betas = [1 - k * (1 - beta) if scaled else beta for beta in betas]
    make = lambda params: torch.optim.Adam(params, lr * k**power, betas, eps=1e-12 / k**0.5)
    return descend(problem, make, 4096 // k, batch=k).losses[:, 0]

quiet = NoisyQuadratic(np.ones(400), noise=0.3, start=3.0)
base = {problem: adam(problem, 1, 0) for problem in (loud, quiet)}
print("Adam, batch x 16              loud   quiet")
for rule, power, new in (("kept", 0, True), ("root", 0.5, True), ("linear", 1, True), ("root, old betas", 0.5, False)):
    row = [apart(adam(problem, 16, power, new), base[problem]) for problem in (loud, quiet)]
    print(f"rate {rule:20} {row[0]:8.2f} {row[1]:7.1f}")
    assert row[0] < 1.2 if (rule == "root") else row[0] > 1.2

# %% [markdown]
# On the loud problem the root rule holds and the linear one is wrong by a factor of two. Where the gradient is mostly
# signal (right) neither is right, and the linear one is nearer: $\sqrt v$ is then the signal's size and does not shrink
# with the batch, so that only fewer, longer steps cover the same way. The root rule too ends at the noise scale. And it
# has a hard end: $k(1-\beta_1)<1$, a factor of ten for $\beta_1=0.9$.
#
# ### 3.5 Steps against examples: the critical batch size
#
# A step gains $1/(1+\mathcal B/B)$ of a noiseless one, so if $\mathcal B$ did not change, a target would take
#
# $$S=S_{\min}\Big(1+\frac{\mathcal B}B\Big)\ \text{steps and}\ E=SB=E_{\min}\Big(1+\frac B{\mathcal B}\Big)\
# \text{examples},\qquad\Big(\frac S{S_{\min}}-1\Big)\Big(\frac E{E_{\min}}-1\Big)=1,$$
#
# with $E_{\min}=\mathcal B\,S_{\min}$. For a whole run, over which $\mathcal B$ grows, call $E_{\min}/S_{\min}$ the
# *critical batch size*. We run the valley down to a tenth of its loss, for each batch with the
# best of 600 rates:

# %%
S = np.array([fewest_steps(valley, 0.1 * start, b)[0] for b in batches])
S_min, E_min = (fewest_steps(valley, 0.1 * start, b)[0] * min(b, 1) for b in (math.inf, 0.1))      # the two limits
product = (S / S_min - 1) * (S * batches / E_min - 1)
print(f"S_min {S_min:.0f} steps, E_min {E_min:.0f} examples, critical batch {E_min / S_min:.0f}")
print("product for batches 4 to 256:", product[2:9].round(2))
assert ((0.5 < product[2:9]) & (product[2:9] < 2)).all()

# %%
model = S_min + E_min / batches
axes = dict(xlabel="batch size (examples)", logx=True, logy=True, vlines={"critical": E_min / S_min})
plots.show(plots.lines_grid([
    dict(series={"measured": (batches, S), "hyperbola": (batches, model)}, title="Steps fall, then no more",
         ylabel="steps to the target", **axes),
    dict(series={"measured": (batches, S * batches), "hyperbola": (batches, model * batches)},
         title="Examples stay, then multiply", ylabel="examples to the target", **axes)]),
    alt="Two log-log charts against batch size 1 to 4096, with a line at the critical batch of about 100. Steps fall "
        "in proportion to the batch and level off at 44; examples are level at about 4,000, then rise in proportion. "
        "Measured points lie on the hyperbola that only its two ends were fitted to.")

# %% [markdown]
# At the critical batch both cost twice their minimum. It is not the noise scale of the start, 16: it is a mean over the
# run, and so it depends on how far you go. It also depends on the optimizer (Zhang et al. 2019): momentum takes fewer
# steps where noise does not stand in its way.

# %%
critical = {share: 0.1 * fewest_steps(valley, share * start, 0.1)[0] / fewest_steps(valley, share * start, math.inf)[0]
            for share in (0.3, 0.1, 0.03, 0.01)}
print("critical batch by share of the loss that is left:", {share: round(b) for share, b in critical.items()})
assert critical[0.01] > 4 * critical[0.1]

# %%
for batch in (16, 64, 1024):
    paths = [expected_losses(valley, np.geomspace(0.01, 1.9, 60) * gain, batch, 400, momentum=mu)
             for mu, gain in ((0.0, 1.0), (0.9, 1.5))]
    plain, heavy = ((path > 0.1 * start).sum(axis=0).min() for path in paths)
    print(f"batch {batch:4}: {plain:3} steps, with momentum 0.9 {heavy:3}: {plain / heavy:.1f} times fewer")
assert plain > 2 * heavy

# %% [markdown]
# **In language models** the same two facts are measured. Merrill et al. (2025) branch real OLMo runs and find the
# critical batch near zero at first, then rising quickly, then level; they grow the batch along with it and save 43% of
# the steps. Zhang et al. (2024) find that it grows with the *data* trained on and hardly with model size. Merrill et
# al. also doubt the noise scale as its proxy: use it for the order of magnitude.

# %% [markdown]
# ### 3.6 One rate for all layers: LARS and LAMB
#
# A large batch wants a large rate, and what limits the rate is the layer that can bear least. A step changes layer $l$
# by the share $\eta\,|g_l|/|w_l|$ of its weights. Take a linear network of five layers whose sizes grow
# tenfold from one to the next. Multiplying one layer by $1+\delta$ changes the output as much as multiplying
# another by it, so $\langle w_l,g_l\rangle$ is the same for all, and $|w_l|/|g_l|$ goes as $|w_l|^2$:

# %%
x, matrix = (torch.from_numpy(np.random.default_rng(0).standard_normal((n, 32))) for n in (256, 32))
linear = dict(scales=(0.01, 0.1, 1, 10, 100), sizes=6 * [32], normalise=False, dtype=torch.float64)
net, misfit = ScaledLayers(**linear), lambda net: (net(x) - x @ matrix / 6).square().mean() / 2
misfit(net).backward()
print("|w| / |g|:", *(f"{ratio:.0e}" for ratio in relative_sizes(net)))
assert np.ptp([(p * p.grad).sum().item() for p in net.layers]) < 1e-9

# %% [markdown]
# One rate, and shares of change that differ by $10^8$. The *trust ratio* of LARS (You et al. 2017) sets them equal:
# layer $l$ takes the step $\eta\,\frac{|w_l|}{|g_l|}\,g_l$, through momentum. LAMB (2020) does it with Adam's direction
# $u_l=\hat m/(\sqrt{\hat v}+\epsilon)+\lambda w_l$ for $g_l$. Then $\eta$ is the share of its norm by which every layer
# moves. Does SGD really get stuck without it?

# %%
net, first = ScaledLayers(**linear), ScaledLayers(**linear).layers
sgd = torch.optim.SGD(net.parameters(), lr=1e-3)
for _ in range(600):
    sgd.zero_grad()
    misfit(net).backward()
    sgd.step()
moved = [((p - q).norm() / q.norm()).item() for p, q in zip(net.layers, first)]
print("loss below 1e-9:", misfit(net).item() < 1e-9, "  layers that moved by a percent:", [m > 0.01 for m in moved])
assert misfit(net) < 1e-9 and moved[0] > 1 and max(moved[1:]) < 0.01

# %% [markdown]
# It doesn't, and this experiment refutes what we expected of it. Only the smallest layer moves, and in a linear network
# one layer can do the work of all. So the test needs layers that cannot stand in for one another: three hidden layers
# with ReLU and normalisation, on the digits. Normalisation makes the function independent of each layer's size, so that
# multiplying the first layer by $1/c$ and the third by $c$ changes nothing but the optimizer's view. Full batch of 512,
# 60 steps, rate falling linearly, the best of five rates for each:

# %% tags=["nbval-ignore-output"]
data = digits.load(torch.float32)
batch, held_out = (data.images[:512], data.labels[:512]), (data.test_images, data.test_labels)

def fit(make, lr, c, steps=60):
    """Training loss and held-out loss after ``steps`` with layers multiplied by 1 / c, 1, c and 1."""
    net = ScaledLayers((1 / c, 1, c, 1), (64, 32, 32, 32, 10), normalise=True)
    run = train(net, make(net.parameters(), lr), steps * [batch], loss_fn=digits.loss, device="cpu", progress=False,
                schedule=lambda t: 1 - t / steps)
    return [digits.loss(net, part).item() if run.stopped is None else math.inf for part in (batch, held_out)]

contestants = {
    "Nesterov": (lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True), 2.0 ** np.arange(-5, 0)),
    "LARS": (lambda p, lr: LARS(p, lr, trust_coefficient=1.0), 2.0 ** np.arange(-7, -2)),
    "AdamW": (lambda p, lr: torch.optim.AdamW(p, lr), 2.0 ** np.arange(-6, -1)),
    "LAMB": (lambda p, lr: LAMB(p, lr, weight_decay=0.01), 2.0 ** np.arange(-6, -1))}
ends = {name: {c: np.array([fit(make, lr, c) for lr in rates]) for c in (1, 64)}
        for name, (make, rates) in contestants.items()}
best = {name: [end[:, 0].min() for end in runs.values()] for name, runs in ends.items()}
print("training loss at the best rate    c = 1   c = 64    its place in the grid of five")
for name, losses in best.items():
    places = [int(end[:, 0].argmin()) + 1 for end in ends[name].values()]
    print(f"{name:29}", *(f"{loss:8.1e}" for loss in losses), "  ", places)
assert all((losses[-1] < 3 * losses[0]) if name in ("LARS", "LAMB") else (losses[-1] > 4 * losses[0])
           for name, losses in best.items())
unseen = {name: round(float(runs[1][:, 1].min()), 2) for name, runs in ends.items()}
print("held-out loss at the best rate for it, c = 1:", unseen)
assert abs(unseen["LARS"] - unseen["Nesterov"]) < 0.15 and abs(unseen["LAMB"] - unseen["AdamW"]) < 0.15

# %% [markdown]
# Badly scaled layers cost Nesterov and AdamW dearly; LARS and LAMB do not notice them. That is the whole idea, shown
# where it must hold.
#
# The sober part is c = 1, an ordinary initialisation. LARS and LAMB still have the lower training loss after 60 steps;
# on images not trained on, each is about where its unscaled relative is. At full size, Nado et al. (2021) tuned
# Nesterov and Adam as carefully as LARS and LAMB had been tuned, and matched or beat them on ResNet-50 and BERT at
# large batch. What looked like an optimizer was largely the schedule and the tuning around it.
#
# ### 3.7 The other end: small batches
#
# *Accumulating* gradients on one device gives up steps for less noise, at equal examples. What does that buy SGD?
# Exactly, on the valley, after 4,096 examples, with the best of 100 rates from 0.01 to 8 and linear decay:

# %%
rates = np.geomspace(0.01, 8, 100)
for b in (1, 4, 16, 64, 256):
    left = expected_losses(valley, rates, b, 4096 // b, schedule=lambda t: 1 - t * b / 4096)[-1] / start
    print(f"batch {b:3}: {4096 // b:4} steps, loss left {np.nanmin(left):6.2%}, rate {rates[np.nanargmin(left)]:.2f}")

# %% [markdown]
# Nothing: the loss is the same up to the noise scale, and then grows. Why have small batches a bad name with Adam,
# then? Because $\beta_2$ is held fixed. 0.95 remembers about 20 steps; at batch 64 that is 1,280 examples, at batch 1
# it is 20. Hold the *half-life in tokens* instead (Marek et al. 2025): $\beta_2'=\beta_2^{B'/B}$. Logistic regression
# with rare features (notebook 03), 6,400 examples once, batch 64 against batch 1, tested on fresh ones:

# %%
rare, grid = rare_features(500, 9600), np.geomspace(1e-3, 30, 16)
runs = {(b, name): one_pass(rare, 6400, b, grid, beta2=beta2) for b, name, beta2 in (
    (64, "Adam, beta2 0.95", 0.95), (1, "Adam, beta2 0.95", 0.95), (1, "Adam, beta2 0.95^(1/64)", 0.95 ** (1 / 64)),
    (64, "SGD", None), (1, "SGD", None))}
left = {name: losses.min() for name, losses in runs.items()}
assert all(0 < losses.argmin() < 15 for losses in runs.values())      # the best rate lies inside the grid
for (b, name), loss in left.items():
    print(f"batch {b:2}  {name:24} {loss:.3f}")
assert left[1, "Adam, beta2 0.95"] > 1.3 * left[1, "Adam, beta2 0.95^(1/64)"] and left[1, "SGD"] < left[64, "SGD"]

# %% [markdown]
# With its half-life held, Adam at batch 1 is where it was at batch 64; with $\beta_2$ held it is much worse. And SGD,
# without any state, comes close at batch 1. So small batches want simple optimizers, and large ones repay elaborate
# ones. What small batches do not repay is the hardware (section 5).
#
# ## 4. The whole
#
# LAMB, in the order of Algorithm 2, beside the library's. Layer 2 starts at zero, as a bias does; there the ratio is 1.

# %%
def lamb(layers, gradients, lr, beta1=0.9, beta2=0.999, eps=1e-6, decay=0.1, corrected=True):
    """Weights and trust ratios of the last step, float64, without torch."""
    moments = [[0.0, 0.0] for _ in layers]
    for t, grads in enumerate(gradients, start=1):
        for i, g in enumerate(grads):
            m, v = moments[i] = [beta1 * moments[i][0] + (1 - beta1) * g, beta2 * moments[i][1] + (1 - beta2) * g**2]
            c1, c2 = (1 - beta1**t, 1 - beta2**t) if corrected else (1, 1)
            u = m / c1 / (np.sqrt(v / c2) + eps) + decay * layers[i]
            size, length = np.linalg.norm(layers[i]), np.linalg.norm(u)
            layers[i] = layers[i] - lr * (size / length if size and length else 1.0) * u
    return layers

draw = np.random.default_rng(5).standard_normal
begin, gradients = [draw((4, 3)), np.zeros(4)], [[10 * draw((4, 3)), 0.1 * draw(4)] for _ in range(50)]
params = [torch.tensor(part, requires_grad=True) for part in begin]
library = LAMB(params, lr=0.01, weight_decay=0.1)
for step in gradients:
    for p, g in zip(params, step):
        p.grad = torch.from_numpy(g)
    library.step()
for name, mine, theirs in zip(("matrix", "bias"), lamb(begin.copy(), gradients, 0.01), params):
    assert compare(name, mine, theirs.detach())
raw = [lamb(begin.copy(), gradients, 0.01, eps=1e-30, decay=d, corrected=c)[0] for d in (0, 0.1) for c in (True, False)]
print("without bias correction the same: without decay", np.allclose(raw[0], raw[1]), " with", np.allclose(*raw[2:]))

# %% [markdown]
# There is no common reference to match. pytorch_optimizer drops bias correction and cuts $|w|$ at 10; NVIDIA's and
# timm's first clip the whole gradient to norm 1; bitsandbytes only ever shortens a step. The last line says when the
# correction matters: the ratio divides out any factor of $u$, unless decay has been added to it.
#
# ### The answer in numbers
#
# A step on $n$ GPUs takes $B/(nr)+c$: $r$ tokens per second and GPU, and a pause $c$ that the batch does not shorten
# (all-reduce, launches, the pipeline's bubble). With 3.5, the time to the target is
#
# $$T=S_{\min}\Big(1+\frac{\mathcal B}B\Big)\Big(\frac B{nr}+c\Big),\quad\text{least at}\quad
# B^*=\sqrt{n\,r\,c\,\mathcal B}.$$
#
# So with four times the GPUs the fastest batch *doubles* (our derivation; it inherits the model's assumptions). With a
# critical batch of 4M tokens, $r$ = 10,000, $c$ = 0.4 s, $S_{\min}$ = 10,000, from 64 GPUs at 1M tokens to 256:

# %%
def plan(gpus, batch, critical=4e6, speed=1e4, pause=0.4, least=10_000):
    """Steps, tokens and hours to the target."""
    steps = least * (1 + critical / batch)
    return steps, steps * batch, steps * (batch / (gpus * speed) + pause) / 3600

today = plan(64, 1e6)
for gpus, batch, name in ((64, 1e6, "today"), (256, 1e6, "same batch"), (256, 2e6, "twice"), (256, 4e6, "four times")):
    steps, tokens, hours = plan(gpus, batch)
    k, rate = batch / 1e6, (1 + 4e6 / 1e6) / (1 + 4e6 / batch)
    print(f"{name:10} {steps:6,.0f} steps {tokens / 1e9:3.0f}G tokens {hours:5.1f} h, {today[2] / hours:.2f} x faster; "
          f"rates: SGD x {rate:.2f}, Adam x {k**0.5:.2f} with betas ({1 - 0.1 * k:.1f}, {1 - 0.05 * k:.2f})")
sizes = np.geomspace(1e5, 3e7, 200)
hours = {f"{gpus} GPUs": (sizes / 1e6, plan(gpus, sizes)[2]) for gpus in (64, 256)}
fastest = [sizes[curve.argmin()] for _, curve in hours.values()]
assert np.allclose(fastest, [math.sqrt(n * 1e4 * 0.4 * 4e6) for n in (64, 256)], rtol=0.03)
plots.show(plots.lines(hours, title="Four times the GPUs: the fastest batch only doubles",
                       logx=True, logy=True, xlabel="batch (millions of tokens)", ylabel="hours to the target",
                       vlines={"1.0": fastest[0] / 1e6, "2.0": fastest[1] / 1e6}),
           alt="Hours to the target against batch size on log axes, for 64 and 256 GPUs: two valleys. The lowest "
               "points are 27 hours at one million tokens and 10 hours at two million.")

# %% [markdown]
# - *Keep the batch*: same run, no tuning, no tokens lost, if the interconnect bears shorter steps. If data is scarce,
#   this is the answer.
# - *Double it*: fastest here. Rate by the rule for your optimizer, then one sweep of the rate around it.
# - *Quadruple it*: as fast as keeping it, and 60% more tokens. $\beta_1$ would have to fall to 0.6; most people keep
#   the betas, and leave the rule's ground.
#
# Where the scale grows during training, ramp the batch: small at first, doubled as the noise scale permits (GPT-3,
# Llama 3, Merrill et al.). And four runs side by side, a sweep, use four times the GPUs without any of this.
#
# ## 5. Against production
#
# The small language model, forward and backward, on the device at hand. What does the hardware make of a small batch?

# %% tags=["nbval-ignore-output"]
device, bytes_ = pick_device(), text.split(text.corpus())[0]
model = lm.ByteLM(lm.LMConfig(width=32)).to(device)
inputs = {b: [part.to(device) for part in next(text.batches(bytes_, b, 64, 1, seed=0))] for b in (1, 4, 16, 64)}
times = bench.step_times({f"batch {b}": lambda pair=pair: lm.next_byte_loss(model, pair).backward()
                          for b, pair in inputs.items()}, repeats=5, warmup=2)
print(bench.describe_device())
print({name: f"{int(name[6:]) / seconds:,.0f} sequences/s" for name, seconds in times.items()})
micro = [lm.next_byte_loss(model, [part[i : i + 16] for part in inputs[64]]) for i in range(0, 64, 16)]
assert torch.allclose(torch.stack(micro).mean(), lm.next_byte_loss(model, inputs[64]), atol=1e-4)

# %% [markdown]
# Sequences per second rise with the batch until the device is busy, then stay. (The assert says that four micro-batches
# have the loss of the whole: what they lack is only the speed.) The smallest batch that keeps the
# device busy is the right one below the critical size.
#
# ## 6. Turn the knobs
#
# The model of 3.5 with a pause. Predict, then move one slider at a time: batch from 16 to 4,096; GPUs from 1 to 4; no
# pause at all; a noise scale of 100,000.

# %%
from course_lib import widgets

widgets.explore_batch_size()

# %% [markdown]
# Without a pause the smallest batch is always the fastest: it is the pause that pays for large ones.
#
# ## 7. How it breaks
#

# %%
wild = expected_losses(valley, 0.02 * 256, 256, 60)[-1] / start
print(f"linear rule past the noise scale: after 60 steps the loss is {wild:.0e} times the first")
kept = steps_to_target(valley, 0.1 * start, 0.02, 256) / fewest_steps(valley, 0.1 * start, 256)[0]
print(f"rate 0.02 kept at batch 256: {kept:.0f} times the steps of the best rate")
print("betas 0.9 and 0.95 by the rule at k = 16:", [round(1 - 16 * (1 - beta), 2) for beta in (0.9, 0.95)])
tries = np.array([each[rng.integers(0, len(each), (16, 8))].mean(axis=1) for _ in range(200)])
signal, _ = two_sizes(8, 128, (tries**2).sum(axis=2).mean(axis=1), (tries.mean(axis=1) ** 2).sum(axis=1))
print("digits, step 300, workers of 8: |G|^2 below zero more than once in three:", bool((signal < 0).mean() > 1 / 3))
assert wild > 1e6 and kept > 4 and (signal < 0).mean() > 1 / 3

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | linear rule past the noise scale | diverges, or warmup grows longer with every doubling |
# | rate kept while the batch grows | smoother curve, and worse at equal examples |
# | linear rule with Adam | update norms grow by $\sqrt k$ too much; spikes |
# | both batch sizes far below the noise scale | estimates of $\lvert G\rvert^2$ scatter around zero; average longer |
# | ratio of each step averaged | a noise scale that jumps by orders of magnitude and turns negative |
# | noise scale of the start used for the run | a batch that is too small at the end |
# | runs compared at equal steps, or rates tuned for one batch only | the larger batch always, or never, wins |
# | "batch 512" without a unit | sequences or tokens: a factor of thousands |
# | trust ratio of a zero tensor taken as 0 | biases, and a zero-initialised last layer, never move |
# | batch cut, $\beta_2$ kept | Adam much worse at batch 1 (3.7) |
#
# ## 8. Your turn
#
# In `exercises/09_large_batch.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `noise_scale` | $\lvert G\rvert^2$, $\operatorname{tr}S$ and their ratio from two batch sizes |
# | `lamb_step` | one step of LAMB, zero norms included |
# | `scale_rule` | rate, betas and epsilon for a batch $k$ times larger, for SGD and Adam |
# | `steps_needed` | a number: steps at a batch, from $S_{\min}$ and $E_{\min}$ |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("batch-linear-or-root")
questions.show("batch-adam-root")

# %% tags=["evidence-batch-linear-or-root", "evidence-batch-adam-root"]
sgd = [apart(expected_losses(loud, 0.004 * rate, 16, 256), expected_losses(loud, 0.004, 1, 4096)) for rate in (4, 16)]
roots = [apart(adam(loud, 16, power), base[loud]) for power in (0.5, 1)]
print(f"SGD: root {sgd[0]:.2f}, linear {sgd[1]:.2f}. Adam: root {roots[0]:.2f}, linear {roots[1]:.2f}")
assert sgd[1] < 1.05 and roots[0] < 1.2 < min(sgd[0], roots[1]) and 1 - 16 * (1 - 0.9) < 0

# %%
questions.show("batch-noise-scale-two-sizes")
questions.show("batch-critical-from-two-runs")

# %% tags=["evidence-batch-noise-scale-two-sizes", "evidence-batch-critical-from-two-runs"]
signal, scatter = two_sizes(32, 512, 5.0, 1.25)
tokens = (60_000 - 22_500) / (1 / 0.5 - 1 / 2.0)      # millions
print(f"noise scale {scatter / signal:.0f}; critical batch {tokens / (60_000 - tokens / 0.5):.1f} million tokens")
assert (signal, scatter) == (1, 128) and tokens == 25_000

# %%
questions.show("batch-trust-ratio")
questions.show("batch-four-times-gpus")

# %% tags=["evidence-batch-trust-ratio", "evidence-batch-four-times-gpus"]
net = ScaledLayers((0.01, 1, 100), (8, 8, 8, 8), normalise=False, dtype=torch.float64)
net(torch.eye(8, dtype=torch.float64)).square().sum().backward()
shares = [1 / ratio for ratio in relative_sizes(net)]
print(f"SGD moves these layers by shares {shares[0] / shares[2]:.0e} apart; LARS by equal ones")
assert shares[0] > 1e7 * shares[2] and [round(plan(256, b)[2], 1) for b in (1e6, 2e6, 4e6)] == [11.0, 9.8, 10.9]

# %% [markdown]
# ## 10. Sources
#
# - McCandlish et al. 2018, *An Empirical Model of Large-Batch Training* (1812.06162): noise scale, section 2; two batch
#   sizes, appendix A.1.
# - Goyal et al. 2017 (1706.02677): the linear rule with warmup on ImageNet. Malladi et al. 2022, *On the SDEs and
#   Scaling Rules for Adaptive Gradient Algorithms* (2205.10287).
# - You et al. 2017, LARS (1708.03888); You et al. 2020, LAMB (1904.00962).
# - Nado et al. 2021, *A Large Batch Optimizer Reality Check* (2102.06356).
# - Zhang et al. 2019, *Which Algorithmic Choices Matter at Which Batch Sizes?* (1907.04164): the noisy quadratic.
# - Shallue et al. 2019, *Measuring the Effects of Data Parallelism on Neural Network Training* (1811.03600).
# - Zhang et al. 2024, *How Does Critical Batch Size Scale in Pre-training?* (2410.21676). Merrill et al. 2025,
#   *Critical Batch Size Revisited* (2505.23971).
# - Marek et al. 2025, *Small Batch Size Training for Language Models* (2507.07101).
# - Batch ramps: Brown et al. 2020, GPT-3 (2005.14165); Grattafiori et al. 2024, Llama 3 (2407.21783).
#
# Contested: whether the noise scale predicts the critical batch of a language model; whether Adam's best rate really
# goes as the root of the batch (McCandlish et al. fit exponents from a half to one); whether large batches generalise
# worse (Shallue et al. find no sign of it).

