# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # AdamW
#
# ## 1. The question
#
# > *What is the difference between Adam and AdamW, and why does it matter?*
#
# Afterwards you can derive the difference, predict which weights each shrinks, choose `weight_decay` together with
# `lr`, decide which parameters get none, and recognise six wrong AdamWs.
#
# Know first: notebook 04. Time: 45 minutes.

# %%
import math

import numpy as np
import torch
from torch import nn

from course_lib import plots
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.optim import SGD, Adam, AdamW

# %% [markdown]
# ## 2. The picture
#
# Weight decay is rent. At every step each weight gives up the same small share of itself; a weight that is useful
# earns it back through its gradient, a useless one fades. Now recall the coach of notebook 04, who divides whatever
# arrives at a muscle by that muscle's usual size. Put the rent into the gradient, and he divides the rent too: legs
# hardly pay, fingers are ruined. AdamW collects the rent before the coach comes in.
#
# To see it, take weights that are useless by construction. They start at 1 and their gradients are pure noise, of
# three loudnesses:

# %%
def drive(make, grads, start=1.0):
    """Feed given gradients (steps, *shape) to an optimizer; return its weights, (steps + 1, *shape)."""
    w = nn.Parameter(torch.full(grads.shape[1:], start, dtype=torch.float64))
    optimizer, path = make([w]), [w.detach().clone()]
    for g in grads:
        w.grad = g.clone()
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


# %%
half = torch.from_numpy(np.random.default_rng(0).standard_normal((2000, 1, 250)))
noise = torch.cat([half, -half], dim=-1)  # both signs, so that the noise cancels in the mean over the 500 weights
stds = [1e-3, 0.1, 10.0]
loud = noise * torch.tensor(stds, dtype=torch.float64)[:, None]
mean = {rule.__name__: drive(lambda p: rule(p, lr=1e-3, weight_decay=0.1), loud).mean(-1) for rule in (Adam, AdamW)}
for name, path in mean.items():
    print(f"{name:6}", "  ".join(f"std {s:g}: {w:.3f}" for s, w in zip(stds, path[-1].tolist())))
assert torch.allclose(mean["AdamW"][-1], torch.tensor((1 - 1e-4) ** 2000).double(), atol=1e-3)

# %%
titles = {"Adam": "Adam + L2: the loud weights escape", "AdamW": "AdamW: all decay alike"}
panels = [dict(series={f"gradient std {s:g}": mean[name][:, i] for i, s in enumerate(stds)}, title=title,
               xlabel="step", ylabel="mean weight (started at 1)", ylim=(0, 1.05)) for name, title in titles.items()]
plots.show(plots.lines_grid(panels), alt=(
    "Two panels, mean weight against step for noise gradients of std 0.001, 0.1 and 10. Under Adam with an L2 penalty "
    "the curves fan out and end at 0.02, 0.19 and 0.98. Under AdamW they coincide and end at 0.82."))

# %% [markdown]
# AdamW leaves $(1 - 10^{-3}\cdot 0.1)^{2000} = 0.819$ of each. Adam with the same `weight_decay=0.1` leaves almost
# nothing of one and almost everything of another, and none of them had anything to learn.
#
# ## 3. The derivation
#
# ### 3.1 For plain SGD, penalty and decay are one thing
#
# An L2 penalty adds $\tfrac{\lambda'}{2}\lVert w\rVert^2$ to the loss, so $\lambda' w$ to the gradient:
#
# $$w \leftarrow w - lr\,(g + \lambda' w) = (1 - lr\,\lambda')\,w - lr\,g.$$
#
# The right-hand side is weight decay: first shrink by a fixed share, then step. A penalty $\lambda'$ is a decay of
# $lr\,\lambda'$ per step (Proposition 1 of Loshchilov & Hutter):

# %%
grads = torch.from_numpy(np.random.default_rng(1).standard_normal((300, 5)))
w = torch.ones(5, dtype=torch.float64)
for g in grads:
    w = (1 - 0.05 * 0.02) * w - 0.05 * g
penalty = drive(lambda p: SGD(p, lr=0.05, weight_decay=0.02), grads)
assert compare("SGD", penalty[-1], w, tol=1e-12)

# %% [markdown]
# ### 3.2 Momentum already breaks it
#
# "For SGD, L2 is weight decay" is said without the word *plain*. With momentum the penalty enters the buffer, and the
# buffer overshoots. Take no gradient at all, only the penalty:

# %%
still = torch.zeros(60, 1, dtype=torch.float64)
momentum = drive(lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), still)
print(f"SGD + momentum + L2: lowest weight {momentum.min():.3f}")
print(f"decay of 0.01 a step: lowest weight {0.99**60:.3f}")
assert momentum.min() < -0.1

# %% [markdown]
# The weight swings through zero. No rescaled $\lambda$ helps: a share between 0 and 1, taken from a positive weight,
# leaves a positive weight. The paper therefore has an SGDW beside AdamW.
#
# ### 3.3 Adam cancels the penalty's strength
#
# Suppose the loss has no gradient, so that Adam sees only $\lambda w$. Both moments are homogeneous, and
#
# $$\frac{\hat m(\lambda w)}{\sqrt{\hat v(\lambda w)} + \epsilon}
# = \frac{\lambda\,\hat m(w)}{\lambda\sqrt{\hat v(w)} + \epsilon} \approx \frac{\hat m(w)}{\sqrt{\hat v(w)}}.$$
#
# $\lambda$ has gone. Fifty steps at `lr=1e-2`, with strengths ten thousand times apart:

# %%
end = {(rule.__name__, wd): drive(lambda p: rule(p, lr=1e-2, weight_decay=wd), still[:50])[-1].item()
       for rule in (Adam, AdamW) for wd in (1e-4, 1.0)}
for (name, wd), value in end.items():
    print(f"{name:6} weight_decay={wd:<6g} weight after 50 steps: {value:.5f}")
assert abs(end["Adam", 1e-4] - end["Adam", 1.0]) < 1e-4
assert math.isclose(end["AdamW", 1.0], 0.99**50) and math.isclose(end["AdamW", 1e-4], (1 - 1e-6) ** 50)

# %% [markdown]
# What is left is Adam's own pace, about `lr` a step. Two popular answers fall here. *"AdamW has the same effect as
# Adam with L2 and is only cheaper"*: the effects differ, the cost does not (nobody differentiates the penalty by
# machine; both add one multiply). *"AdamW adds the weight decay that Adam lacks"*: Adam's implementations always had
# `weight_decay`; AdamW changes where it acts.
#
# ### 3.4 With a loss: divided by the noise
#
# With gradients much larger than $\lambda w$, $\sqrt{v}$ is about the gradient's root mean square, so a penalty
# $\lambda$ acts like a decay of $\lambda/\sqrt{v}$, another one for every coordinate. No single $\lambda$ repairs
# that (Proposition 2). From the picture's numbers, the AdamW decay to which Adam's 0.1 amounted:

# %%
acts_like = -mean["Adam"][-1].log() / (1e-3 * 2000)
for s, value in zip(stds, acts_like.tolist()):
    print(f"gradient std {s:<6g} Adam's weight_decay=0.1 acts like {value:.3f} in AdamW")
assert abs(acts_like[2] - 0.1 / 10) < 1e-3 and acts_like[0] > 1.5

# %% [markdown]
# So a comparison of `Adam(weight_decay=0.01)` with `AdamW(weight_decay=0.01)` is not like with like: equal numbers
# are not equal strength. For the loud weights the formula holds ($0.1/10$); for the quiet ones the penalty itself
# dominates $v$, and 3.3 takes over.
#
# ### 3.5 Decouple
#
# What must stay out of $m$ and $v$, and out of the division, is subtracted from the weight directly:
#
# $$w \leftarrow (1 - lr\,\lambda)\,w - lr\,\frac{\hat m}{\sqrt{\hat v} + \epsilon},
# \qquad m, v \text{ from } g \text{ alone.}$$
#
# *"Adam decays before the gradient, AdamW after it"* is wrong: the order is not the point. torch's AdamW decays
# first, before it touches the moments. Decaying last instead changes a step by $lr^2\lambda$ times its direction:

# %%
class LateAdamW(Adam):
    """Steps first and decays afterwards."""

    def update(self, param, grad, state, group):
        self.adapt(param, grad, state, group)
        param.mul_(1 - group["lr"] * group["weight_decay"])


for lr in (1e-2, 5e-3):
    one = [drive(lambda p: rule(p, lr=lr, weight_decay=0.1), grads[:1]) for rule in (AdamW, LateAdamW)]
    gap = (one[0] - one[1])[-1].abs().max().item()
    print(f"lr={lr:g}: the orders differ by {gap:.2e}, lr^2 * weight_decay = {lr**2 * 0.1:.2e}")
    assert math.isclose(gap, lr**2 * 0.1, rel_tol=1e-5)

# %% [markdown]
# Half the rate, a quarter of the difference. Shrink, step, shrink, step: one loop, cut open at different places.
#
# ### 3.6 Whose learning rate?
#
# *"The difference is that AdamW multiplies the decay by the learning rate"* names a convention, not the difference.
# In the paper (Algorithm 2, line 12) a schedule multiplier $\eta_t$ scales step and decay, and the base rate $\alpha$
# scales the step alone: $w \leftarrow w - \eta_t(\alpha\,\hat m/(\sqrt{\hat v}+\epsilon) + \lambda w)$. Composer's
# `DecoupledAdamW` does the same: it shrinks by `1 - lr / initial_lr * weight_decay`. torch shrinks by `1 - lr *
# weight_decay`. Translate with $\lambda_{paper} = \alpha\,\lambda_{torch}$. They part when you halve the base rate.
# The steps in which a weight without gradient shrinks by $e$:

# %%
def steps_to_e(share):
    return math.ceil(-1 / math.log1p(-share))


for lr in (3e-4, 1.5e-4):
    print(f"base lr {lr:g}: torch, 0.1: {steps_to_e(lr * 0.1):,} steps   paper, 3e-5: {steps_to_e(3e-5):,} steps")
assert steps_to_e(3e-4 * 0.1) == 33_333 == round(1 / (3e-4 * 0.1))

# %% [markdown]
# In torch's convention half the rate is also half the decay per step. A *schedule* is another matter: both
# conventions scale the decay with it. Leave the decay out of the schedule, and this happens, here to a weight whose
# gradient always says "up", so that Adam's step is exactly `lr`:

# %%
multiplier = 1 - np.arange(10_000) / 10_000  # linear to zero
weights = {}
for name, decay in {"decay follows the schedule": multiplier, "decay does not": np.ones(10_000)}.items():
    w = [0.0]
    for eta, d in zip(multiplier, decay):
        w.append((1 - 5e-2 * 0.1 * d) * w[-1] + 5e-2 * eta)
    weights[name] = np.array(w)
assert weights["decay follows the schedule"][-1] > 9.9 and weights["decay does not"][-1] < 0.3
title = "A decay left out of the schedule erases the weight"
plots.show(plots.lines(weights, title=title, xlabel="step", ylabel="weight"), alt=(
    "A weight that always wants to grow, under a learning rate that falls linearly to zero. With the decay in the "
    "schedule it rises to 10 and stays. With a constant decay it peaks below 10 and falls to nearly 0, because "
    "nothing rebuilds what is taken."))

# %% [markdown]
# It settles at $1/\lambda_{torch}$ = 10, where rent equals income. Xie & Li (2024) prove it for full batches: where
# AdamW converges, it converges inside $\lVert w\rVert_\infty \le 1/\lambda$. As the rate falls to zero the decay
# fades with it, and the weights freeze where they are.
#
# ### 3.7 `lr * weight_decay` is a memory
#
# Write $a = lr\,\lambda$ and $u_t$ for Adam's direction. Then
#
# $$w_t = (1-a)\,w_{t-1} + a\left(-\frac{u_t}{\lambda}\right):$$
#
# an exponential moving average. Adam's weight is the sum of all its updates; AdamW's is their moving average, with a
# memory of $1/a$ steps (Wang & Aitchison 2024). To check it, take the updates from *Adam* and average them:

# %%
adam = drive(lambda p: Adam(p, lr=1e-2), grads)
ema = torch.ones(5, dtype=torch.float64)
for u in (adam[:-1] - adam[1:]) / 1e-2:
    ema = ema.lerp(-u / 0.5, 1e-2 * 0.5)
adamw = drive(lambda p: AdamW(p, lr=1e-2, weight_decay=0.5), grads)
assert compare("AdamW", adamw[-1], ema, tol=1e-12)

# %% [markdown]
# With `lr=3e-4` and `weight_decay=0.1` that is the 33,333 steps above. Keep it in view when batch size, rate or
# length of the run change, best counted in tokens or epochs: in epochs, Wang & Aitchison find the best memory about
# constant across model and data sizes.
#
# ### 3.8 Scale-freeness
#
# Multiply each coordinate's gradient by its own constant, and $\hat m/\sqrt{\hat v}$ does not change. AdamW's decay
# does not look at gradients, so its whole path stays the same (Zhuang et al. 2022); Adam's penalty does not scale
# along:

# %%
scale = 10.0 ** torch.linspace(-3, 3, 5, dtype=torch.float64)


def moved(rule, eps):
    runs = [drive(lambda p: rule(p, lr=1e-2, weight_decay=0.1, eps=eps), g) for g in (grads, grads * scale)]
    return (runs[0] - runs[1]).abs().max().item()


assert moved(AdamW, eps=1e-30) < 1e-12
for rule, eps in ((AdamW, 1e-8), (AdamW, 1e-4), (Adam, 1e-30)):
    print(f"{rule.__name__:6} eps={eps:<6g} path moves by {moved(rule, eps):.0e}")

# %% [markdown]
# What breaks it is `eps`, the one quantity with the units of a gradient.
#
# ### 3.9 Which parameters get no decay
#
# Matrices decay. Norm gains and biases usually do not: they are few, and a gain pulled to 0 shuts its channel. Most
# code decides by the number of axes:

# %%
def decay_groups(model, weight_decay):
    """Two named groups: tensors of two or more axes decay, the others do not."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [{"params": [(n, p) for n, p in named if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [(n, p) for n, p in named if p.ndim < 2], "weight_decay": 0.0}]


embed, block = nn.Embedding(256, 16), nn.TransformerEncoderLayer(16, 2, 32)
model = nn.ModuleDict(dict(embed=embed, block=block, head=nn.Linear(16, 256, bias=False)))
model.head.weight = model.embed.weight  # tied, as in GPT-2
groups = AdamW(decay_groups(model, 0.1), lr=3e-4).param_groups
for group in groups:
    print(f"weight_decay={group['weight_decay']}:", ", ".join(group["param_names"]))
assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())

# %% [markdown]
# The last line is the one to copy. Choosing by module type or by name goes wrong in two ways, one loud and one silent
# (a tied tensor is listed once, under its first name, so "head" matches nothing):

# %%
try:
    AdamW([{"params": model.head.parameters()}, {"params": model.embed.parameters(), "weight_decay": 0.0}])
except ValueError as error:
    print("tied weights:", error)
lost = [n for n, _ in model.named_parameters() if not any(key in n for key in ("linear", "attn", "head"))]
print("never trained:", ", ".join(lost))

# %% [markdown]
# Embeddings are disputed, and so are gains. nanoGPT's rule is the one above: it decays embeddings and spares gains.
# OLMo 2's configuration does the opposite on both counts. Say so, and say which you would try first.
#
# ## 4. The whole
#
# AdamW in fifteen lines:

# %%
class FifteenLines:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.params, self.t = list(params), 0
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.m = [torch.zeros_like(p) for p in self.params]
        self.v = [torch.zeros_like(p) for p in self.params]

    @torch.no_grad()
    def step(self):
        self.t += 1
        (beta1, beta2), t = self.betas, self.t
        for p, m, v in zip(self.params, self.m, self.v):
            p.mul_(1 - self.lr * self.weight_decay)
            m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            p.sub_(self.lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + self.eps))


# %% [markdown]
# Two hundred steps of regression, beside `torch.optim.AdamW`, with hyper-parameters far from the defaults:

# %%
X, y = (torch.from_numpy(np.random.default_rng(2).standard_normal(shape)) for shape in ((64, 5), (64,)))


def fit(rule, **options):
    w = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = rule([w], lr=2e-2, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3, **options)
    for _ in range(200):
        w.grad = torch.autograd.grad(((X @ w - y) ** 2).mean(), w)[0]
        optimizer.step()
    return w.detach(), optimizer


(mine, m), (ours, c), (theirs, p) = (fit(rule) for rule in (FifteenLines, AdamW, torch.optim.AdamW))
state, course = (next(iter(o.state.values())) for o in (p, c))
results = [compare("m", m.m[0], state["exp_avg"]), compare("v", m.v[0], state["exp_avg_sq"]),
           compare("w", mine, theirs), compare("course_lib: w", ours, theirs),
           compare("course_lib: m", course["exp_avg"], state["exp_avg"]),
           compare("Adam, decoupled", fit(torch.optim.Adam, decoupled_weight_decay=True)[0], theirs, tol=0)]
assert all(results)

# %% [markdown]
# The last line: in torch, AdamW *is* `Adam(decoupled_weight_decay=True)`, bit for bit.
#
# ## 5. Against production
#
# torch runs the same rule in three ways: a for-loop over parameters, `foreach` (one operation over all parameters at
# a time) and `fused` (the whole rule in one pass). Per float32 parameter the rule reads $w, g, m, v$ and writes $w,
# m, v$: 28 bytes. State is Adam's 8 bytes; decay adds none. In the fused kernel the decay moves no extra byte; as an
# operation of its own it reads and writes $w$ once more, 8 bytes.

# %%
cpu = bench.step_variants([(128, 128)] * 4, device="cpu", lr=1e-3, weight_decay=0.1)
for step in [*cpu.values()] * 20:
    step()
after = {name: torch.stack(step.__self__.param_groups[0]["params"]) for name, step in cpu.items()}
assert compare("foreach, bitwise", after["foreach"], after["for-loop"], tol=0)
assert compare("fused", after["fused"], after["for-loop"], tol=1e-6)

# %% tags=["nbval-ignore-output"]
variants, plain = (bench.step_variants([(512, 512)] * 8, optimizer_class=rule, lr=1e-3)
                   for rule in (torch.optim.AdamW, torch.optim.Adam))
times = bench.step_times(variants | {"fused, no decay": plain["fused"]}, repeats=10, warmup=2)
print(bench.describe_device(), "2.1 million parameters", bench.ratio_table(times, base="for-loop"), sep="\n")
ends = [step.__self__.param_groups[0]["params"][0] for step in variants.values()]
assert all(torch.allclose(end, ends[0], atol=1e-6) for end in ends)

# %% [markdown]
# The two fused rows differ by the price of decoupling: one multiplication, on data that is loaded anyway. Expect
# noise to hide it. `foreach` saves kernel launches, which only a GPU notices.
#
# ## 6. Turn the knobs
#
# On noise alone the weights forget their start and settle at a size of their own. Balance what decay removes from the
# variance per step, $2\,lr\,\lambda\,\sigma_w^2$, with what independent steps add, $lr^2$:
#
# $$\sigma_w = \sqrt{lr / (2\lambda)}, \qquad \text{reached in about } 1/(lr\,\lambda) \text{ steps.}$$
#
# The *product* of the two knobs is the speed, their *ratio* the size. Four settings, two of each; change them:

# %%
settings = [(2e-2, 0.5), (1e-2, 1.0), (1e-2, 0.25), (5e-3, 0.5)]  # (lr, weight_decay)
sizes = {}
for lr, wd in settings:
    path = drive(lambda p: AdamW(p, lr=lr, weight_decay=wd), noise[:, 0])
    sizes[f"lr {lr:g}, wd {wd:g}"] = size = path.square().mean(-1).sqrt()
    end, theory = size[-500:].mean(), math.sqrt(lr / 2 / wd)
    print(f"lr={lr:<6g} wd={wd:<5g} lr*wd={lr * wd:<7g} settles at {end:.3f}, theory {theory:.3f}")
    assert math.isclose(end, theory, rel_tol=0.15)
title = "lr times wd sets how fast weights forget, lr over wd how large they stay"
plots.show(plots.lines(sizes, title=title, xlabel="step", ylabel="root mean square weight", logy=True, size=(8, 4)),
           alt="Root mean square weight against step, logarithmic, for four settings. Two fall steeply and two four "
               "times more slowly: lr times wd. One of each pair settles near 0.14, the other near 0.07: lr over wd.")

# %% [markdown]
# The derivation is a random-walk estimate of ours, good to some 15% here; Kosson et al. (2023) treat real networks.
#
# Does decay make a model *generalise* better? *"It controls complexity and prevents over-fitting"* is half true.
# AdamW's own evidence is image classification over many epochs. In training that sees its data about once, D'Angelo
# et al. (2023) find that it acts on the optimisation (effective rate, stability) and lowers the *training* loss.
# *"AdamW converges faster, above all for sparse NLP"* is unsupported: the paper tests no such thing, and in
# Chinchilla AdamW overtook Adam only around 80% of the cosine cycle, to a better final loss. Neither is run here:
# nothing at this scale could settle it.
#
# ## 7. How it breaks
#
# Four ways to get the decay line wrong, on the picture's noise, 300 steps at `lr=1e-2`, `weight_decay=0.1`:

# %%
def left(mistake, std, lr=1e-2, wd=0.1):
    """Median weight left of 1 after 300 noise gradients of this standard deviation."""
    w, m, v = np.ones(500), 0.0, 0.0
    for t, g in enumerate(std * noise[:300, 0].numpy(), start=1):
        if mistake == "L2 in the gradient":
            g = g + wd * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, root = m / (1 - 0.9**t), np.sqrt(v / (1 - 0.999**t)) + 1e-8
        share = {"L2 in the gradient": 0, "divided by root v": lr * wd / root, "without lr": wd, "lr twice": lr**2 * wd}
        w = w - share.get(mistake, lr * wd) * w - lr * m_hat / root
    return np.median(w)


# %%
rules = ["correct", "L2 in the gradient", "divided by root v", "without lr", "lr twice"]
table = {rule: {f"gradient std {s:g}": left(rule, s) for s in stds} for rule in rules}
assert max(abs(value - 0.999**300) for value in table["correct"].values()) < 0.02
title = "A wrong decay shows in what it leaves of quiet and of loud weights"
plots.show(plots.bars(table, title=title, ylabel="median weight left of 1", fmt=".2f", size=(8, 3.6)), alt=(
    "Grouped bars for five rules and three gradient sizes. Correct: three equal bars at 0.74. L2 in the gradient, and "
    "decay divided by root v: low bars for quiet weights, high for loud ones. Decay without lr: nothing left. "
    "lr applied twice: nothing decayed."))

# %% [markdown]
# | mistake | in a training log |
# |---|---|
# | L2 in AdamW's clothes | norms sort by gradient size: quiet layers shrink, loud ones keep what they started with |
# | decay divided by $\sqrt{v}$ | the same, and weights that flip sign at step 1, where $\lvert g\rvert < lr\,\lambda$ |
# | decay without `lr` | norms collapse within tens of steps; no weight grows past about $lr/\lambda$ |
# | `lr` twice | runs with `weight_decay` 0 and 0.1 coincide |
#
# The fifth hides in "no gradient". In torch `None` means skip the parameter; a gradient of zeros is a gradient, and
# the weight decays. An implementation that skips zeros leaves rare embedding rows undecayed, and their norms stay
# where they started:

# %%
zeros, none = (nn.Parameter(torch.ones(1)) for _ in range(2))
zeros.grad = torch.zeros(1)
optimizer = torch.optim.AdamW([zeros, none], lr=1e-2, weight_decay=0.1)
for _ in range(300):
    optimizer.step()
assert none.item() == 1 and math.isclose(zeros.item(), 0.999**300, rel_tol=1e-4)

# %% [markdown]
# The sixth decays everything. Halve the matrix before a normalisation, as decay would: the function stays. Halve the
# gain: the output halves. So decay on such a matrix does not make the function simpler (it raises the effective rate;
# van Laarhoven 2017), while decay on a gain turns the layer down unless its gradient resists. In the log, gains drift
# down together.

# %%
norm = nn.LayerNorm(5).double()
before = norm(X)  # X stands for what a matrix without bias gives; half the matrix is half of X
assert compare("matrix halved", norm(X / 2), before, tol=1e-2)
norm.weight.data /= 2
assert compare("gain halved", norm(X), before / 2, tol=1e-12)

# %% [markdown]
# And one that is no bug: carrying `weight_decay=0.01` over from Adam (3.4). Tune it again; with AdamW, language
# models mostly take 0.1 (OLMo 2 among them).
#
# ## 8. Your turn
#
# In `exercises/05_adamw.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `adamw` | AdamW, guided |
# | `adamw_blank` | the same on an empty page, with groups, closures and resume |
# | `adamw_bug` | what is wrong in a colleague's AdamW |
# | `decay_steps` | a number: how long a weight remembers |
# | `decay_groups` | the two groups of 3.9 |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell after each pair
# proves both.

# %%
from course_lib import questions

questions.show("adamw-cheaper-l2")
questions.show("adamw-sgd-l2")

# %% tags=["evidence-adamw-cheaper-l2", "evidence-adamw-sgd-l2"]
weak, strong = (drive(lambda p: Adam(p, lr=1e-2, weight_decay=wd), still[:50])[-1].item() for wd in (1e-4, 1.0))
assert abs(weak - strong) < 1e-4
print(f"Adam + L2, no gradient: {weak:.3f} for wd 1e-4, {strong:.3f} for wd 1")
for mu in (0.0, 0.9):
    l2 = drive(lambda p: SGD(p, lr=0.1, momentum=mu, weight_decay=0.1), still[:10])[-1].item()
    assert math.isclose(l2, 0.99**10) == (mu == 0)
    print(f"SGD + L2, momentum {mu}: {l2:.3f} after ten steps; decay of 1% a step: {0.99**10:.3f}")

# %%
questions.show("adamw-decay-timescale")
questions.show("adamw-frozen-layer")

# %% tags=["evidence-adamw-decay-timescale", "evidence-adamw-frozen-layer"]
share = drive(lambda p: torch.optim.AdamW(p, lr=3e-4, weight_decay=0.1), still)[-1].item()
assert math.isclose(-60 / math.log(share), 33_333, rel_tol=1e-4)
zeroed = drive(lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=1.0), still[:50])[-1].item()
assert math.isclose(zeroed, 0.99**50)
print(f"to 1/e in {-60 / math.log(share):,.0f} steps; 'frozen' by zero gradients: {zeroed:.3f} of the weight left after 50 steps")

# %%
questions.show("adamw-no-decay-groups")
questions.show("adamw-scale-freeness")

# %% tags=["evidence-adamw-no-decay-groups", "evidence-adamw-scale-freeness"]
rest = [name for name, p in model.named_parameters() if p.ndim < 2]
assert groups[1]["param_names"] == rest and all("norm" in name or "bias" in name for name in rest)
assert moved(AdamW, eps=1e-30) < 1e-12 < 1e-3 < moved(AdamW, eps=1e-4) and moved(Adam, eps=1e-30) > 1e-2
print(f"no decay: {len(rest)} norm gains and biases of {len(list(model.parameters()))} tensors; scale-free: AdamW at eps 0 only")

# %% [markdown]
# ## 10. Sources
#
# - Loshchilov & Hutter 2019, *Decoupled Weight Decay Regularization*, 1711.05101: Propositions 1 and 2, SGDW, AdamW.
# - van Laarhoven 2017, 1706.05350, and Kosson et al. 2023, 2305.17212: decay before a normalisation; equilibrium.
# - Zhuang et al. 2022, 2202.00089: AdamW as an approximate proximal step; scale-freeness.
# - Hoffmann et al. 2022 (Chinchilla), 2203.15556, footnote 8: Adam against AdamW.
# - D'Angelo et al. 2023, 2310.04415: what decay does in modern training.
# - Xie & Li 2024, 2404.04454: the $\ell_\infty$ bound. Wang & Aitchison 2024, 2405.13698: the moving average and its
#   timescale.
# - Code: Composer `decoupled_weight_decay.py`, nanoGPT `model.py`, OLMo `OLMo2-7B-stage1.yaml`.
#
# Where the literature disagrees: *why* AdamW wins. Loshchilov & Hutter say regularisation; Zhuang et al. say
# scale-freeness, on correlational evidence; Kosson et al. say balanced rotation of the weights; D'Angelo et al. find
# no use for decay as an explicit regulariser, while GPT-3's authors (2020, 2005.14165) give a little regularisation
# as their reason for 0.1. Whether embeddings and gains should decay is open.
