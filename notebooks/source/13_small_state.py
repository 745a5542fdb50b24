# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Optimizers with a small state
#
# ## 1. The question
#
# > *Half of the memory of training is the optimizer. Which part of it would you drop, what breaks, and how much do you
# > really save?*
#
# Afterwards you can derive Adafactor's factored second moment, say what 8-bit blocks lose and where, set Lion's and
# Adafactor's learning rates without falling into their traps, and tell a saving of state from a saving of memory.
#
# Know first: notebook 04 ($m$, $v$, bias correction), and from notebook 10 that mixed precision with AdamW holds 16
# bytes per parameter, 8 of them $m$ and $v$. Time: 55 minutes.

# %%
import logging
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from course_lib import plots
from course_lib.benchmark import build, records, runner, summary
from course_lib.compare import compare
from course_lib.memory.models import find
from course_lib.memory.predict import predict
from course_lib.optim import CAME, REGISTRY, Adafactor, AdamW8bit, Lion
from course_lib.optim.adafactor import factored_moment
from course_lib.precision import blockwise
from course_lib.problems import lm, text
from course_lib.train import train


def steps_of(make, gradients, start=0.0, **hyper):
    """What an optimizer with lr = 1 subtracts from a parameter that begins at ``start``: as ``gradients`` (T, ...)."""
    gradients = torch.as_tensor(np.asarray(gradients))
    param = torch.full(gradients.shape[1:], start, dtype=gradients.dtype)
    optimizer, path = make([param], **{"lr": 1.0} | hyper), [param.clone()]
    for param.grad in gradients:
        optimizer.step()
        path.append(param.clone())
    return -torch.stack(path).diff(dim=0).numpy()


def rms(x, axis=(1, 2)):
    return np.sqrt(np.square(x).mean(axis=axis))

# %% [markdown]
# ## 2. The picture
#
# A town wants to know how hard the wind usually blows at each house. AdamW hangs a gauge on every house. Adafactor
# counts by street and by avenue, and multiplies. Adam-mini hangs one gauge per block of houses. 8-bit AdamW keeps every
# gauge and notes its reading in coarse marks. Lion looks at the flag and never asks how hard.
#
# What each of them really holds after a step, for one matrix of 256 x 1024:

# %%
def kept(key, shape=(256, 1024)):
    """Bytes per parameter in the tensors that an optimizer of the registry holds after a step, by name."""
    param = torch.zeros(shape)
    param.grad = torch.ones(shape)
    optimizer = REGISTRY[key].make([param])
    optimizer.step()
    held = {name: t for name, t in optimizer.state[param].items() if torch.is_tensor(t) and t.dim()}
    assert sum(t.nbytes for t in held.values()) == REGISTRY[key].state_bytes(shape)
    return {name: t.nbytes / param.numel() for name, t in held.items()}

keys = ("adamw", "came", "adam_mini", "lion", "adamw8bit", "adafactor")
state = {key: kept(key) for key in keys}
first = ("exp_avg", "state1", "absmax1")      # what belongs to m
bars = {REGISTRY[key].name: {"m": sum(held.get(name, 0) for name in first),
                             "v": sum(size for name, size in held.items() if name not in first)}
        for key, held in state.items()}
plots.show(plots.stacked_bars(bars, title="v can shrink to nearly nothing, m to one byte", fmt=".2f",
                              ylabel="bytes of state per parameter"),
           alt="Stacked bars of m and v in bytes per parameter for a matrix of 256 by 1024. AdamW 4 and 4. CAME, "
               "Adam-mini and Lion about 4 of m and next to no v. 8-bit AdamW 1.02 and 1.02. Adafactor 0.02 of v.")

# %% [markdown]
# Two ideas: keep $v$ for *groups* of weights, or keep *marks* instead of numbers. $v$ can stand the first, as it only
# sets a scale. $m$ cannot: it is the direction. Lion drops $v$; Adafactor, by default, drops $m$ as well.
#
# ## 3. The derivation
#
# ### 3.1 One number per row, one per column
#
# Let $V$ be an $n\times m$ matrix of mean squared gradients. Which $r_is_j\ge0$ come nearest to it? The distance must
# care about ratios, since $v$ acts through $1/\sqrt v$. Adafactor takes the generalised Kullback-Leibler divergence
#
# $$D=\sum_{ij}V_{ij}\log\frac{V_{ij}}{r_is_j}-V_{ij}+r_is_j,\qquad
# \frac{\partial D}{\partial r_i}=-\frac1{r_i}\sum_jV_{ij}+\sum_js_j=0\ \Rightarrow\ r_i=\frac{\sum_jV_{ij}}{\sum_js_j}.$$
#
# For columns alike. So $r_is_j$ is row sum times column sum over the total sum, or with row means $R$ and column
# means $C$: $V'=R\,C/\operatorname{mean}(R)$. Beside it the best rank-one matrix in the sense of squares, by the SVD:

# %%
rng = np.random.default_rng(0)
V = rng.chisquare(1, (6, 9)) * np.outer(10.0 ** rng.uniform(-3, 0, 6), 10.0 ** rng.uniform(-3, 0, 9))
R, C = V.mean(axis=1, keepdims=True), V.mean(axis=0, keepdims=True)
factored = R * C / R.mean()
u, s, vt = np.linalg.svd(V)
svd = np.abs(s[0] * u[:, :1] * vt[:1])
divergence = lambda A: (V * np.log(V / A) - V + A).sum()
assert compare("factored_moment", factored_moment(*map(torch.from_numpy, (R, C))), factored)
nudges = np.exp(0.1 * rng.standard_normal((1000, 15)))
assert min(divergence(factored * np.outer(n[:6], n[6:])) for n in nudges) > divergence(factored)
for name, A in {"R C / mean(R)": factored, "SVD": svd}.items():
    print(f"{name:14} sum of squares {np.square(V - A).sum():.4f}   divergence {divergence(A):.3f}")

# %% [markdown]
# None of 1,000 neighbours is nearer. The SVD wins by squares, where only the largest elements count, and loses by
# divergence. The closed form has a second virtue: means are *linear*. The average over time of row means is the row
# mean of the average, so $R$ and $C$ follow exactly, and nobody ever needs $V$.
#
# ### 3.2 How wrong is it on a real second moment?
#
# Rank one says: a gradient's size is a size of its row times a size of its column. Train the small language model for
# 100 steps with AdamW, take its $v$, and see by which factor a step changes if $v$ is rebuilt from means:

# %%
data, _ = text.split(text.corpus())
model = lm.ByteLM()
adamw = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
train(model, adamw, text.batches(data, 16, 64, 100, seed=0), loss_fn=lm.next_byte_loss, device="cpu", progress=False)
moments = {name.removeprefix("blocks.").removesuffix(".weight"): {k: s.double() for k, s in adamw.state[p].items()}
           for name, p in model.named_parameters() if p.dim() == 2}

# %%
def off(v, shared):
    """Factor by which the median step is off where ``shared`` stands for v; never-seen rows (v = 0) left out."""
    return (0.5 * (shared / v)[v > 0].log().abs().median()).exp().item()

share = {}
for name in ("byte_embedding", "0.attention_in", "1.mlp_in", "1.mlp_out", "head"):
    v = moments[name]["exp_avg_sq"]
    row, column = v.mean(1, keepdim=True), v.mean(0, keepdim=True)
    share[name] = {"row x column": off(v, factored_moment(row, column)), "a number per row": off(v, row + 0 * v),
                   "one number": off(v, v.mean() + 0 * v)}
plots.show(plots.bars(share, title="Rank one and rows keep the scale of most steps, one number for a tensor does not",
                      ylabel="median factor of error in the step", logy=True, fmt=".2f", size=(8, 3.6)),
           alt="Grouped bars for five tensors: median factor by which steps are off. Row times column 1.1 to 1.3, a "
               "number per row 1.2 to 1.4, one number for the tensor 1.4 to 5, and over 10 for the head.")
assert all(f["row x column"] < min(1.5, f["one number"]) for f in share.values()) and share["head"]["one number"] > 10

# %% [markdown]
# Off by a tenth to a third: not exact, and small beside the tenfold by which rates are tuned. A number per row is
# nearly as good. For the head one number fails: rows of frequent and of absent bytes differ by orders of magnitude
# (notebook 06). *Which* weights share is all that matters.
#
# ### 3.3 Adafactor: the rest of it, and a trap
#
# Without $m$, and with $\beta_{2,t}=1-t^{-0.8}$, Adafactor needs two more parts. The first gradient gets $\beta_2=0$,
# so no bias correction is due; but a $v$ that lags behind growing gradients makes a step too long. So the update
# $U=G/\sqrt{V'}$ is *clipped*: divided by $\max(1,\mathrm{RMS}(U)/d)$ with $d=1$. And the step is *relative*:
# $\alpha_t=\max(\epsilon_2,\mathrm{RMS}(W))\cdot\min(\text{lr},1/\sqrt t)$. What that does to one and the same lr:

# %%
for size in (1.0, 0.1, 0.02, 0.0):
    step = steps_of(torch.optim.Adafactor, torch.ones(1, 8, 8), start=size, lr=0.01)
    print(f"weights of RMS {size:4}: first step {step[0, 0, 0]:.5f}   (AdamW at this lr: 0.01)")

# %% [markdown]
# **lr is not Adam's lr.** torch's class always multiplies by $\mathrm{RMS}(W)$; Hugging Face's does so unless
# `scale_parameter=False`. At weights of 0.02, a usual initialisation, the same lr is 50 times less. A matrix that
# begins at zero (LoRA's second factor, a zeroed output projection) begins at $\epsilon_2=10^{-3}$ of lr.
#
# **A second trap is torch's own.** The paper adds $\epsilon_1=10^{-30}$ to the squares. torch floors
# $\operatorname{mean}(R)$ and $\sqrt{V'}$ at $\epsilon_1=1.2\cdot10^{-7}$. Gradients in which one row is 100 times
# smaller:

# %%
for size in 10.0 ** np.arange(-2, -10, -1):
    g = torch.full((1, 8, 8), size)
    g[0, 0] /= 100
    step = steps_of(torch.optim.Adafactor, g, start=1.0, lr=0.01)[0] / 0.01
    ratio = step[1, 0] / step[0, 0]
    print(f"gradients of {size:.0e}: RMS of the step {rms(step, None):.2f}, large / small row {ratio:.0f}")

# %% [markdown]
# Down to $10^{-4}$ both rows move alike. From $10^{-6}$ they keep their ratio of 100: what is left is the gradient
# divided by *one* number, SGD with clipping. Below $10^{-7}$ the step fades too. Gradients of large models can be that
# small (notebook 04). Pass `eps=(1e-30, 1e-3)`.
#
# ### 3.4 CAME: trust what agrees
#
# CAME brings $m$ back, as the average of *updates* $U$, and asks how far $U$ is from it. It keeps $(U-m)^2$ in rows and
# columns as well and divides by its root: where updates agree, steps are long.

# %%
noise = np.random.default_rng(1).standard_normal((1000, 16, 16))
fed = {"steady": np.ones_like(noise), "steady, with noise": 1 + 0.3 * noise, "noise alone": noise}
came = {name: rms(steps_of(CAME, g)) for name, g in fed.items()}
vector = rms(steps_of(CAME, noise[:1, 0]), 1)
print(f"first step: a matrix {came['steady'][0]:.1f} lr = 0.1 / (0.9 x sqrt(0.0001)), a vector {vector[0]:.1f} lr")
plots.show(plots.lines(came, title="CAME starts at 11 lr; agreement lengthens steps, noise shortens them",
                       logx=True, logy=True, xlabel="step", ylabel="RMS of the step (units of lr)"),
           alt="RMS of CAME's steps against the step number on log axes. All start at 11. A steady gradient rises to "
               "about 50, one with noise rises to 38 and falls back to about 11, noise alone falls below 1.")
assert came["steady"][-1] > 4 * came["steady"][0] and came["noise alone"][-1] < 1

# %% [markdown]
# The confidence works, and CAME corrects no bias: $(U-m)^2$ is averaged over 10,000 steps and starts at zero, so it is
# too small for as long. Vectors have no confidence and start at 0.1 lr. Warmup hides both; a plot of step sizes does
# not.
#
# ### 3.5 Adam-mini: which weights may share
#
# Adam-mini keeps $m$ whole and one $v$ per *block*. Its claim: blocks should be those of the Hessian. Take a softmax
# layer with $C$ classes at the start, where all are equally likely. From the Hessian
# $(\operatorname{diag}(p)-pp^\top)\otimes\mathbb E[xx^\top]$ the rows' own blocks hold a share of $1-1/C$ of the sum of
# squares:

# %%
x = torch.from_numpy(np.random.default_rng(2).standard_normal((200, 5))) @ torch.ones(5, 5, dtype=torch.float64).triu()
for C in (2, 16, 64):
    nll = lambda w, y=torch.arange(200) % C: F.cross_entropy(x @ w.T, y)
    H = torch.func.hessian(nll)(torch.zeros(C, 5, dtype=torch.float64)).square()
    within = sum(H[c, :, c].sum() for c in range(C)) / H.sum()
    assert compare(f"{C} classes, {1 - 1 / C:.4f}", within, 1 - 1 / C)

# %% [markdown]
# So a row of the head, a token, is a block. *Within* it the Hessian is as dense as $\mathbb E[xx^\top]$. Does a rate
# per element help there? Compare condition numbers, curvatures spread from 1 to 1,000, along the axes and along random
# ones:

# %%
Q = np.linalg.qr(np.random.default_rng(2).standard_normal((200, 8, 8)))[0]
along = np.diag(np.geomspace(1, 1000, 8))[None]
for name, H in {"the axes": along, "random axes": Q @ along @ Q.transpose(0, 2, 1)}.items():
    scale = np.sqrt(H.diagonal(axis1=1, axis2=2))
    scaled = np.linalg.cond(H / (scale[:, :, None] * scale[:, None, :]))
    print(f"{name}: condition {np.median(scaled):.0f} with a rate per element, {np.linalg.cond(H)[0]:.0f} with one")

# %% [markdown]
# Along the axes a rate per element cures everything, in a dense block next to nothing. There one rate is no loss:
# Adam-mini's point. The catch is the partition: a row each for most matrices, a head each for queries and keys, a token
# each for embedding and head. It must be told, and 3.2 shows the price of a mistake.

# %% [markdown]
# ### 3.6 Eight bits: which 256 marks, and over what range
#
# Cut a tensor into blocks of 256, keep each block's largest size in float32, and of each number the nearest of 256
# marks between 0 (or $-1$) and 1: 2 bytes a parameter for $m$ and $v$, and $2\cdot4/256$ for the scales. Evenly spaced
# marks spend half of themselves on the upper half. The *dynamic* map gives each decade half as many marks as the one
# above, so that the relative error only doubles per decade. By the size of the gradient, so that $v$ is its square:

# %%
g = np.logspace(-7, 0, 7 * 16 * 64 + 1)      # in units of the block's largest

def worst(x, signed, table=None):
    """The largest relative error in each sixteenth of a decade of gradient sizes; 1 has become zero."""
    error = blockwise.relative_error(torch.from_numpy(x), signed=signed, block=x.size, table=table)
    return g[:-1].reshape(-1, 64)[:, 32], error[:-1].reshape(-1, 64).amax(dim=1).numpy()

curves = {"m, dynamic map": worst(g, True), "v, dynamic map": worst(g**2, False),
          "v, linear map": worst(g**2, False, blockwise.linear_map(False))}
plots.show(plots.lines(curves, title="v is lost 1,500 times sooner than m, with even marks almost at once", logx=True,
                       logy=True, xlabel="|gradient| / largest of its block", ylabel="worst relative error"),
           alt="Worst relative error against gradient size in units of the block's largest, log axes. m with the "
               "dynamic map stays below 1 down to 3e-7, v with it down to 4e-4, v with the linear map down to 0.04.")
least = {name: blockwise.dynamic_map(signed) for name, signed in {"m": True, "v": False}.items()}
least = {name: (marks[marks > 0][0].item() / 2) ** (0.5 if name == "v" else 1) for name, marks in least.items()}
print({name: f"becomes 0 below 1/{1 / share:,.0f} of the largest gradient" for name, share in least.items()})
assert 1500 > least["v"] / least["m"] > 1400

# %% [markdown]
# **Why $v$ is harder.** Its square doubles the decades. And it is in the denominator: an $m$ that becomes zero stands
# still, a $v$ that becomes zero lets its weight run. Hence small blocks; and hence embeddings in 32 bits in the
# paper, where frequent and rare tokens are neighbours. The real $v$ of section 3.2, in percent that became zero:

# %% tags=["nbval-ignore-output"]
def zeros(moment, **how):
    moment = moment[moment != 0]
    return 100 * (blockwise.relative_error(moment, **how) == 1).double().mean().item()

print(f"{'percent of':21} {'v, even marks':>13} {'v, one block':>13} {'v, 2048':>9} {'v, 256':>8} {'m, 256':>8}")
for name in share:
    m, v = moments[name]["exp_avg"], moments[name]["exp_avg_sq"]
    lost = [zeros(v, signed=False, table=blockwise.linear_map(False)), zeros(v, signed=False, block=v.numel()),
            zeros(v, signed=False, block=2048), zeros(v, signed=False), zeros(m, signed=True)]
    print(f"{name:21} {lost[0]:13.2f} {lost[1]:13.2f} {lost[2]:9.2f} {lost[3]:8.2f} {lost[4]:8.2f}")
    assert lost[3] <= lost[1] <= lost[0] and lost[3] < 0.5
    assert name != "byte_embedding" or lost[0] > 3

# %% [markdown]
# Blocks of 256 with the dynamic map lose next to nothing, even in the embedding. What would happen where they do? One
# gradient of each block is 1, the others $3\cdot10^{-4}$: their $v$ is forgotten after every step, so that
# $\hat v=\frac{1-\beta_2}{1-\beta_2^t}\,g^2$ and the step grows to $1/\sqrt{1-\beta_2}$. Right, gradients of mean 0.5
# and deviation 1 times scales spread over some decades in every block:

# %%
small = np.full((600, 256), 3e-4, dtype=np.float32)
small[:, 0] = 1
drift = {f"beta2 = {b}": steps_of(AdamW8bit, small, betas=(0.9, b), eps=0, weight_decay=0, min_size=0)[:, 1]
         for b in (0.999, 0.95)}

# %%
scale = 10.0 ** -np.outer(range(4), np.random.default_rng(0).random(1024)).ravel()
fed = ((0.5 + np.random.default_rng(1).standard_normal((250, 4096))) * scale).astype(np.float32)
apart = {}
for b in (0.999, 0.95):
    ours, exact = (steps_of(make, fed, betas=(0.9, b), weight_decay=0).sum(axis=0).reshape(4, 1024)
                   for make in (AdamW8bit, torch.optim.AdamW))
    apart[f"beta2 = {b}"] = 100 * np.linalg.norm(ours - exact, axis=1) / np.linalg.norm(exact, axis=1)
plots.show(plots.lines_grid([
    dict(series=drift, title="v lost: the step grows", xlabel="step", ylabel="step (units of lr; AdamW: 1)"),
    dict(series=apart, title="The wider the scales, the farther off", xlabel="decades of gradient scales in a block",
         ylabel="off from AdamW's way (percent)")]),
    alt="Left, step lengths of elements whose v rounds to zero: beta2 0.999 grows to about 20 lr over 600 steps, 0.95 "
        "stays at 4. Right, distance to AdamW's path: from 1 percent without spread to 15 or 20 at three decades for "
        "0.999; about half of that for 0.95.")
assert 15 < drift["beta2 = 0.999"][-1] < 26 and drift["beta2 = 0.95"].max() < 4.6
long, short = apart.values()
assert long[3] > 4 * long[0] and (short < long)[1:].all()

# %% [markdown]
# So the $\beta_2=0.95$ of language models is kinder to 8 bits than Adam's default: a lost $v$ costs 4.5 lr and not 32.
#
# Small tensors stay in 32 bits, in bitsandbytes those under 4,096 elements: norms and biases cost nothing and matter.
# In our small models that is *most* tensors, so pass `min_size=256` when you experiment, or you test float32.
#
# ### 3.7 Lion: no size at all
#
# If sizes are only good for dividing them out, take the sign, which needs none:
#
# $$c=\beta_1m+(1-\beta_1)g,\qquad w\leftarrow w-\text{lr}\,(\operatorname{sign}(c)+\lambda w),\qquad
# m\leftarrow\beta_2m+(1-\beta_2)g .$$
#
# It is *not* true that Lion keeps only signs: $m$ is an ordinary average, and the sign comes after it. Notebook 04's
# skewed gradient shows why that matters (one in ten is +11, nine are $-1$). Then, the length of the step by the ratio
# of signal to noise:

# %%
skewed = np.where(np.random.default_rng(3).random((900, 400)) < 0.1, 11.0, -1.0)
lion = steps_of(Lion, skewed)[300:].mean()
print(f"mean gradient {skewed.mean():+.1f}, mean sign {np.sign(skewed).mean():+.1f}, Lion's mean step {lion:+.1f} lr")
for mean in (0.0, 0.3, 1.0, 10.0):      # over the noise of 3.4, whose deviation is 1
    adam, sign = (rms(steps_of(make, mean + noise, weight_decay=0.0)[300:], None) for make in (torch.optim.AdamW, Lion))
    print(f"mean / deviation {mean:4}: RMS of a step, AdamW {adam:.2f} lr, Lion {sign:.2f}: {sign / adam:.0f} times")

# %% [markdown]
# The sign throws Adam's caution away: where a gradient is noise, Adam takes 0.23 lr (notebook 04) and Lion 1. So its lr
# must be smaller, here by up to four times; the authors advise 3 to 10. And since decay acts as
# $\text{lr}\cdot\lambda$, make $\lambda$ larger by the same factor. A larger batch has less noise, and the caution that
# Lion lacks is worth less there: the authors find its gains to grow with the batch.
#
# ## 4. The whole
#
# Adafactor and Lion, each in the paper's order, beside production and the library:

# %%
class TinyAdafactor:
    def __init__(self, w, lr=1e-2, eps1=1e-30, eps2=1e-3, d=1.0):
        self.w, self.hyper, self.t = w, (lr, eps1, eps2, d), 0
        self.row_var, self.col_var = torch.zeros(w.shape[0], 1), torch.zeros(1, w.shape[1])

    @torch.no_grad()
    def step(self):
        self.t += 1
        w, g, R, C, (lr, eps1, eps2, d) = self.w, self.w.grad, self.row_var, self.col_var, self.hyper
        size = lambda x: x.square().mean().sqrt().item()
        fresh = self.t**-0.8                                              # 1 - beta2
        alpha = max(eps2, size(w)) * min(lr, self.t**-0.5)
        R.mul_(1 - fresh).add_((g.square() + eps1).mean(1, keepdim=True), alpha=fresh)
        C.mul_(1 - fresh).add_((g.square() + eps1).mean(0, keepdim=True), alpha=fresh)
        U = g / (R * C / R.mean()).sqrt()
        w.sub_(alpha * U / max(1, size(U) / d))


class TinyLion:
    def __init__(self, w, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        self.w, self.hyper, self.m = w, (lr, *betas, weight_decay), torch.zeros_like(w)

    @torch.no_grad()
    def step(self):
        lr, beta1, beta2, decay = self.hyper
        c = beta1 * self.m + (1 - beta1) * self.w.grad
        self.w.sub_(lr * (c.sign() + decay * self.w))
        self.m.mul_(beta2).add_(self.w.grad, alpha=1 - beta2)

# %%
gradients = torch.from_numpy(np.random.default_rng(4).standard_normal((100, 12, 20)) * np.logspace(-2, 1, 20)).float()
start = torch.from_numpy(np.random.default_rng(5).standard_normal((12, 20))).float()

def run(make):
    w = start.clone()
    optimizer = make(w)
    for w.grad in gradients:
        optimizer.step()
    return w, (optimizer.state[w] if hasattr(optimizer, "state") else vars(optimizer))

tiny, theirs = run(TinyAdafactor), run(lambda w: torch.optim.Adafactor([w], eps=(1e-30, 1e-3)))
for name in ("row_var", "col_var"):
    assert compare(name, tiny[1][name], theirs[1][name], tol=1e-4)
assert compare("Adafactor", tiny[0], theirs[0], tol=1e-5)
assert compare("library", run(lambda w: Adafactor([w], eps=(1e-30, 1e-3)))[0], theirs[0], tol=1e-5)

# %%
hyper = dict(lr=1e-3, weight_decay=0.1)
assert compare("Lion", run(lambda w: TinyLion(w, **hyper))[0], run(lambda w: Lion([w], **hyper))[0], tol=1e-5)

# %% [markdown]
# torch.optim has no Lion; the library's agrees with pytorch_optimizer's and lion_pytorch's in the tests. CAME and
# Adam-mini likewise. bitsandbytes' 8-bit AdamW agrees with ours up to its own rounding:

# %% tags=["nbval-ignore-output"]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
moved = {}
for whose in ("make", "production"):
    w, rng = torch.zeros(64, 64), np.random.default_rng(6)
    try:
        optimizer = getattr(REGISTRY["adamw8bit"], whose)([w], weight_decay=0.0)
    except ModuleNotFoundError as missing:      # on Colab, for instance
        print(missing)
        continue
    for _ in range(50):
        w.grad = torch.from_numpy(rng.standard_normal((64, 64))).float()
        w.grad[:, 0] = 0
        optimizer.step()
    moved[whose] = w
    print(f"{whose:10} way made {w[:, 1:].abs().mean():.5f}, without any gradient {w[:, 0].abs().max():.5f}")
if len(moved) == 2:
    print(f"apart by {(moved['make'] - moved['production']).norm() / moved['make'].norm():.1%} of the way")
assert moved["make"][:, 0].abs().max() == 0

# %% [markdown]
# On a CPU bitsandbytes (0.50) looks codes up in a grid of $2^{-15}$. A zero in $m$ comes back as $2\cdot10^{-5}$ of the
# block's largest, so that a weight without any gradient moves a little. Ours keeps zeros.

# %% [markdown]
# ## 5. Against production
#
# ### 5.1 Quality against bytes
#
# The small language model again, 120 steps, warmup and cosine, clipping at 1, one seed. The rates are the best of three
# to five, a factor of two apart, none at the edge of its grid. The loss is the mean over the last 15 batches, text that
# was not seen before:

# %% tags=["nbval-ignore-output"]
rates = {"adamw": 0.008, "adamw8bit": 0.008, "adam_mini": 0.008, "came": 0.0005, "lion": 0.002, "adafactor": 0.12,
         "momentum": 0.5}
batches = list(text.batches(data, runner.BATCH, runner.MODEL.context, 120, seed=1))
held, loss = {}, {}
for key, lr in rates.items():
    model = lm.ByteLM(runner.MODEL, seed=1)
    optimizer = build.make_optimizer(key, model, lr, 120)
    for group in optimizer.param_groups:
        group["min_size"] = 256      # of 8-bit AdamW; the others do not read it
    history = train(model, optimizer, batches, loss_fn=lm.next_byte_loss, schedule=runner.schedule(key, 120),
                    clip=runner.CLIP, device="cpu", progress=False)
    held[key] = runner.state_bytes(optimizer) / sum(p.numel() for p in model.parameters())
    loss[key] = history.loss[-15:].mean()
points = {REGISTRY[key].name: ([held[key]], [loss[key]]) for key in rates}
plots.show(plots.lines(points, title="In a short run the smallest state has the lowest loss", logx=True,
                       xlabel="bytes of state per parameter, as held", ylabel="loss (nats per byte)"),
           alt="Loss against bytes of state for seven optimizers. Adafactor, at 0.24 bytes, is lowest near 2.6; AdamW, "
               "8-bit AdamW, Adam-mini, CAME and momentum lie between 2.7 and 2.9, Lion at 3.0.")
print({key: f"{held[key]:.2f} bytes, {loss[key]:.2f}" for key in rates})
assert abs(loss["adamw8bit"] - loss["adamw"]) < 0.15 and max(loss.values()) < loss["adamw"] + 0.5
assert held["adafactor"] < held["adamw"] / 30 and loss["adafactor"] < loss["adamw"] + 0.1

# %% [markdown]
# Three sober readings. 8 bits change nothing that this run could show. To share $v$ costs nothing visible. And SGD
# with momentum, which has no $v$ at all, is hardly behind: **so this run cannot show that $v$ matters**, let alone rank
# its approximations. Adafactor leads because a step relative to the weights suits a short run from small weights, not
# because its $v$ is better. What is needed is a longer, equally tuned comparison with several seeds. `course compare`
# made it:

# %%
recorded = records.load(records.RECORDED)
print(f"Recorded, not run here: {recorded.head['steps']} steps, on {recorded.sessions[-1]['device']}")
recorded = replace(recorded, runs=tuple(run for run in recorded.runs if run.key in rates))
print(summary.table(recorded))
gap = {row.key: row.difference for row in summary.rows(recorded) if row.key != "adamw"}
assert all(gap[key].mean < gap[key].half for key in ("adamw8bit", "adam_mini", "came")) and gap["adafactor"].mean > 0

# %% [markdown]
# Each optimizer had the same grid of rates, extended until the best lay inside; intervals are over five seeds. 8-bit
# AdamW (only tensors of 4,096 elements or more in 8 bits), Adam-mini and CAME cannot be told from AdamW. Adafactor,
# ahead after 120 steps, is behind: the order of a short run is not that of a longer one. At scale the evidence is thin
# and mixed. Zhao et al. (2024) find a modified Adafactor and Lion on a par with Adam on language models up to 1.2
# billion parameters, when all are tuned, and one rate per layer as well, *but for the last layer and the norms*:
# compare the head in 3.2. PaLM used Adafactor without factoring. Imagen kept Adam where Adafactor hurt.
#
# ### 5.2 What is really saved
#
# Llama 3 8B in mixed precision, one sequence of 8,192 tokens a GPU, blocks recomputed. Per GPU, what an optimizer saves
# of the total:

# %%
small = ("adafactor", "adamw8bit", "lion", "adam_mini")
print(f"{'':22}  AdamW's total " + "".join(f"{REGISTRY[key].name:>14}" for key in small))
saved = {}
for name, setup in {"1 GPU": {}, "8 GPUs, ZeRO-1": dict(zero=1, gpus=8), "64 GPUs, ZeRO-1": dict(zero=1, gpus=64),
                    "64 GPUs, ZeRO-3": dict(zero=3, gpus=64)}.items():
    total = {key: predict(find("llama-3-8b"), optimizer=key, sequence=8192, recompute="full", **setup).total
             for key in ("adamw", *small)}
    saved[name] = {key: 1 - total[key] / total["adamw"] for key in small}
    print(f"{name:22} {total['adamw'] / 1e9:11.1f} GB " + "".join(f"{share:14.1%}" for share in saved[name].values()))
assert saved["1 GPU"]["adafactor"] > 0.4 > 0.1 > saved["64 GPUs, ZeRO-1"]["adafactor"]

# %% [markdown]
# A state a thousand times smaller saves less than half: weights, gradients, master copy and activations stay. And
# **ZeRO saves the same bytes first**: sharded over 64 ranks the state is small whatever the optimizer. DeepSpeed
# measured the like for Muon, which halves the state of most weights: 3 GiB, 9% of the whole, on Qwen2.5 3B. Small state
# is for *few* GPUs: fine-tuning on one card is where 8-bit AdamW is common.
#
# ## 6. Turn the knobs
#
# Predict, then move: blocks from 256 to 2,048 at a spread of two decades; then four decades; then back to 256. (Each
# row of 256 has one scale of its own.) And which optimizer saves least on GPT-2 124M?

# %%
from course_lib import widgets

widgets.explore_small_state()

# %% [markdown]
# A block that holds rows of different scales is what hurts, not the spread itself: at 256 each row has its own. Where
# all are alike, even marks are the better map. Muon saves least on a small model, whose embedding stays with AdamW.
#
# ## 7. How it breaks
#
# Lion hides a NaN. One bad gradient, then a hundred good ones; and an 8-bit state that goes through the
# `load_state_dict` which every torch optimizer inherits:

# %%
bad = np.ones((101, 3))
bad[0, 0] = np.nan
for make in (Lion, torch.optim.AdamW):
    w = torch.ones(3, dtype=torch.float64)
    optimizer = make([w], lr=0.001, weight_decay=0.0)
    for w.grad in torch.from_numpy(bad):
        optimizer.step()
    print(f"{make.__name__:6} weights {w.numpy().round(3)}, m of the first {optimizer.state[w]['exp_avg'][0]}")
w = torch.ones(4096, dtype=torch.bfloat16)
w.grad = torch.ones_like(w)
saver, loader = AdamW8bit([w]), AdamW8bit([w])
saver.step()
torch.optim.Optimizer.load_state_dict(loader, saver.state_dict())
print({name: str(t.dtype).removeprefix("torch.") for name, t in loader.state[w].items() if name != "step"})

# %% [markdown]
# Lion's first weight never moves again, and no loss and no weight says so: `sign(NaN)` is 0. Watch $m$. The codes
# became bf16, which has no 255: a plain `load_state_dict` casts state to the weight's dtype. Ours and bitsandbytes'
# override it.
#
# | mistake | in the log |
# |---|---|
# | AdamW's lr in Lion | update RMS 1 lr instead of 0.2 to 0.4; a noisy, higher loss |
# | Lion's lr lowered, $\lambda$ kept | weight norms grow: decay is 3 to 10 times weaker |
# | AdamW's lr in Adafactor | nothing moves: 50 times less at weights of 0.02 |
# | torch's eps in Adafactor with tiny gradients | rows and columns no longer get their own scale; behaves like SGD |
# | Adafactor on a zero matrix | its norm creeps up from 0, at lr / 1000 a step |
# | CAME without warmup | the first update has an RMS of 11 lr |
# | 8 bits, tensors of mixed scale | single weights run away; `exp_avg_sq` dequantised has zeros where $g\ne0$ |
# | Adam-mini with one block for an embedding or head | rare tokens stall, frequent ones overshoot |
# | 8-bit experiment on a small model | equal to AdamW to the last digit: every tensor is under 4,096 |
#
# ## 8. Your turn
#
# In `exercises/13_small_state.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `lion` | the whole optimizer |
# | `factored_moment` | the second moment from row and column averages |
# | `quantise_blocks` | codes and scales of 8-bit blocks, and back |
# | `small_state_gb` | the bytes of each optimizer for given shapes |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("small-factored")
questions.show("small-adafactor-lr")

# %% tags=["evidence-small-factored", "evidence-small-adafactor-lr"]
v = moments["1.mlp_in"]["exp_avg_sq"]
rebuilt = factored_moment(v.mean(1, keepdim=True), v.mean(0, keepdim=True))
assert torch.allclose(rebuilt.mean(0), v.mean(0)) and torch.allclose(rebuilt.mean(1), v.mean(1))
assert off(v, rebuilt) < 1.5
first = rms(steps_of(torch.optim.Adafactor, torch.ones(1, 8, 8), start=0.02, lr=0.01))[0]
print(f"the means of v are kept; Adafactor's first step at weights of 0.02 and lr 0.01: {first:.4f}")
assert abs(first - 0.0002) < 1e-6

# %%
questions.show("small-v-coarser")
questions.show("small-lost-v")

# %% tags=["evidence-small-v-coarser", "evidence-small-lost-v"]
lost = {name: size[error == 1].max() for name, (size, error) in curves.items()}
assert lost["v, linear map"] > 50 * lost["v, dynamic map"] > 50_000 * lost["m, dynamic map"]
for b in (0.999, 0.95):
    exact = np.sqrt((1 - b ** np.arange(1, 601)) / (1 - b))
    assert np.allclose(drift[f"beta2 = {b}"], exact, rtol=0.25)
    print(f"beta2 = {b}: a lost v takes the step to {1 / np.sqrt(1 - b):.1f} lr")

# %%
questions.show("small-lion-swap")
questions.show("small-as-good")

# %% tags=["evidence-small-lion-swap", "evidence-small-as-good"]
quiet = rms(steps_of(torch.optim.AdamW, noise, weight_decay=0.0)[300:], None)
print(f"on pure noise Lion's step is {1 / quiet:.0f} times AdamW's, on signal alone as long: no one factor is right")
assert loss["adafactor"] < loss["adamw"] + 0.1 and abs(loss["momentum"] - loss["adamw"]) < 0.3
print("recorded, minus AdamW's loss:", {key: str(gap[key]) for key in ("adamw8bit", "adafactor", "momentum")})

# %% [markdown]
# ## 10. Sources
#
# - Shazeer & Stern 2018, *Adafactor* (1804.04235): factors, section 3; clipping, 6; relative steps, 8; Algorithms 4, 5.
# - Luo et al. 2023, CAME (2307.02047): Algorithm 2.
# - Dettmers et al. 2022, *8-bit Optimizers via Block-wise Quantization* (2110.02861): blocks and map, section 2.
# - Zhang et al. 2024, *Adam-mini* (2406.16793); and 2024, *Why Transformers Need Adam* (2402.16788), on the Hessian's
#   blocks.
# - Chen et al. 2023, Lion (2302.06675): Algorithm 2; rates, section 5.
# - Zhao et al. 2024, *Deconstructing What Makes a Good Optimizer for Language Models* (2407.07972).
# - Chowdhery et al. 2022, PaLM (2204.02311), section 5; Saharia et al. 2022, Imagen (2205.11487), section 4.
# - DeepSpeed's report on Muon: repository deepspeedai/DeepSpeed, `blogs/muon-optimizer`.
#
# Where they disagree: Adafactor's lr is relative in torch and in the paper, absolute in Hugging Face's
# `scale_parameter=False`; blocks are 2,048 in the paper on 8 bits and 256 in its package, which quantises embeddings
# unless told not to; Adam-mini's package cuts by heads and rows, pytorch_optimizer's coarser. CAME's paper writes no
# rule for vectors.
