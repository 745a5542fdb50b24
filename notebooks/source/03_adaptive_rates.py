# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adaptive rates
#
# ## 1. The question
#
# > *Why should each parameter have its own learning rate, and what was wrong with AdaGrad?*
#
# Afterwards you can say which valleys a rate per parameter mends and which not, derive AdaGrad from a regret bound,
# name the price of RMSProp's forgetting, put Adadelta's "no learning rate" on trial, and carry all three from
# TensorFlow to torch and back.
#
# Know first: notebooks 01 (largest stable step, noise floor) and 02 (momentum). Time: 45 to 60 minutes.
#
# Two instruments: `walk` lets an optimizer follow a gradient of our choice; `steps_of` feeds it a given list of
# gradients with lr = 1, so that what it subtracts comes in units of lr.

# %%
import numpy as np
import torch
from torch.optim import SGD, Adadelta, Adagrad, RMSprop

from course_lib import optim, plots
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.problems import sparse


def walk(optimizer, gradient, steps, start, **hyper):
    """Positions (steps + 1, n) in float64; ``gradient(x, t)`` is asked at t = 0, 1, ..."""
    x = torch.tensor(np.array(start, dtype=np.float64))
    run, path = optimizer([x], **hyper), [x.numpy().copy()]
    for t in range(steps):
        x.grad = torch.from_numpy(np.array(gradient(x.numpy(), t), dtype=np.float64))
        run.step()
        path.append(x.numpy().copy())
    return np.stack(path)


def steps_of(optimizer, gradients, **hyper):
    """What is subtracted at each step (T, n), fed gradients (T, n), with lr = 1."""
    path = walk(optimizer, lambda x, t: gradients[t], len(gradients), np.zeros(len(gradients[0])), lr=1.0, **hyper)
    return -np.diff(path, axis=0)

# %% [markdown]
# ## 2. The picture
#
# A spam filter reads messages. "the" is in every second one, "refinance" in one of a thousand. When "refinance" turns
# up for the fifth time, the filter knows little about it and should listen. A rate that falls with the clock on the
# wall has stopped listening. A constant rate must be small, since the frequent words are noisy. What each word
# needs is a clock of its own, which ticks when the word occurs.
#
# We draw 6,000 messages over 2,000 words; the k-th is present with probability $\min(\frac12,\frac2k)$ and pulls the
# label one way or the other, all equally strongly (true weights $\pm2$). Logistic regression sees each message once
# and is tested on it first. AdaGrad, derived below, is the rule with the clocks:

# %%
problem = sparse.rare_features(examples=6000)

def best_run(rule, lrs, schedule=None):
    runs = {lr: sparse.online(problem, lambda p: rule(p, lr=lr), schedule) for lr in lrs}
    print(f"{rule.__name__:8} online loss by lr:", {lr: round(run.mean_loss, 3) for lr, run in runs.items()})
    best = min(runs, key=lambda lr: runs[lr].mean_loss)
    assert min(lrs) < best < max(lrs)      # the best rate lies inside the grid
    return runs[best]

runs = {"SGD, lr / sqrt(t)": best_run(SGD, (1, 3, 10), lambda t: (t + 1) ** -0.5),
        "SGD, constant lr": best_run(SGD, (0.03, 0.1, 0.3)), "AdaGrad": best_run(Adagrad, (0.1, 0.3, 1, 3))}

# %%
learned = {name: run.weights * np.sign(problem.weights) for name, run in runs.items()}
heights = {f"{group} ({len(members)} words)": {name: right[members].mean() for name, right in learned.items()}
           for group, members in problem.classes.items()}
assert heights["rare (1800 words)"]["AdaGrad"] > 2 * heights["rare (1800 words)"]["SGD, constant lr"]
plots.show(plots.bars(heights, title="Frequent words come equally far; rare ones need rates of their own", fmt=".2f",
                      ylabel="mean weight towards the true 2"), alt=(
    "Bars of the mean weight in the right direction after one pass, for three rules at their best rates. Frequent "
    "words: about 0.75 for all three. Middle: 0.50, 0.56 and 0.65. Rare: 0.12 and 0.13 for SGD, 0.33 for AdaGrad."))

# %% [markdown]
# All three treat "the" alike. Of "refinance" AdaGrad has learned more than twice as much, and its loss is the lowest.
#
# ## 3. The derivation
#
# ### 3.1 What a rate per coordinate can mend
#
# Notebook 01: the steepest direction limits lr, the flattest one waits. If these directions are coordinates, a rate per
# coordinate ends the quarrel: divide the gradient of $\tfrac12\sum_i h_ix_i^2$ by $h_i$, and the condition number is 1.
# Turn the same valley by 45 degrees, and both coordinates see the same mixture:

# %%
turn = {0: np.eye(2), 45: np.array([[1, -1], [1, 1]]) / np.sqrt(2)}
for degrees, q in turn.items():
    hessian = q @ np.diag([1.0, 100.0]) @ q.T
    scaled = hessian / np.sqrt(np.outer(np.diag(hessian), np.diag(hessian)))
    print(f"turned by {degrees:2}: condition number {np.linalg.cond(hessian):.0f}, scaled {np.linalg.cond(scaled):.0f}")

# %% [markdown]
# AdaGrad knows no Hessian, only gradients, but meets the same limit. SGD has its best rate, $2/(L+\mu)$; AdaGrad has
# lr = 3, which beats 1 and 10 in the turned valley:

# %%
def distance(rule, lr, condition, degrees):
    q = turn[degrees]
    hessian = q @ np.diag([1.0, condition]) @ q.T
    return np.linalg.norm(walk(rule, lambda x, t: hessian @ x, 400, q @ [-7, 2], lr=lr), axis=1)

for condition in (10, 100, 1000):
    far = [distance(*rule, condition, d)[-1] for rule in ((SGD, 2 / (1 + condition)), (Adagrad, 3.0)) for d in turn]
    print("condition {:4}, left: SGD {:.0e}, turned {:.0e}; AdaGrad {:.0e}, turned {:.0e}".format(condition, *far))
assert np.allclose(distance(Adagrad, 3.0, 10, 0), distance(Adagrad, 3.0, 1000, 0))
assert distance(Adagrad, 3.0, 100, 45)[-1] < min(distance(Adagrad, lr, 100, 45)[-1] for lr in (1.0, 10.0))
axes = dict(xlabel="step", ylabel="distance to the minimum", logy=True, ylim=(1e-6, 20))
titles = {0: "Valley along an axis: AdaGrad wins", 45: "The same valley turned: it loses"}
panels = [dict(series={"SGD": distance(SGD, 2 / 101, 100, d), "AdaGrad": distance(Adagrad, 3.0, 100, d)},
               title=title, **axes) for d, title in titles.items()]
plots.show(plots.lines_grid(panels), alt=(
    "Distance to the minimum against the step, log axis, condition number 100. Left, valley along an axis: AdaGrad "
    "falls below 1e-6 within 50 steps, SGD needs hundreds. Right, turned by 45 degrees: SGD's curve is the same, "
    "AdaGrad has lost its lead and stays above SGD."))

# %% [markdown]
# Along the axes AdaGrad's path is the same for every condition number. Turned, its lead is gone: a rule with a rate
# per coordinate is not rotation invariant, gradient descent is. So such a rate is a bet that scales differ *by
# coordinate*. In networks it pays, since layers, biases and embedding rows do differ.
#
# ### 3.2 AdaGrad: the rate one would have chosen in hindsight
#
# Follow one coordinate for $T$ steps. If losses are convex and $x$ never leaves a range of width $D$, a constant
# rate $\eta$ loses, against the best fixed $x$, at most (Zinkevich 2003)
#
# $$\frac{D^2}{2\eta}+\frac{\eta}{2}\sum_{t=1}^{T} g_t^2,\qquad\text{least at}\quad \eta=\frac{D}{\sqrt{S_T}},
# \quad S_t=\sum_{i\le t}g_i^2 .$$
#
# That rate needs gradients that have not come yet. AdaGrad (2011) puts $S_t$ for $S_T$. What does it cost not to know
# the future? Since $g_t^2=S_t-S_{t-1}=(\sqrt{S_t}-\sqrt{S_{t-1}})(\sqrt{S_t}+\sqrt{S_{t-1}})$,
#
# $$\frac{g_t^2}{\sqrt{S_t}}\le 2\left(\sqrt{S_t}-\sqrt{S_{t-1}}\right)\quad\Rightarrow\quad
# \sum_{t=1}^{T}\frac{g_t^2}{\sqrt{S_t}}\le 2\sqrt{S_T},$$
#
# so with the rate $D/\sqrt{S_t}$ the second term is at most twice that of hindsight. The first one is the same (with
# falling rates it telescopes). Together: at most one and a half times the best bound, whatever the gradients are.

# %%
rng = np.random.default_rng(0)
for name, g in {"constant": np.ones(10_000), "heavy tails": rng.standard_cauchy(10_000),
                "one in a thousand": np.r_[1.0, rng.random(9_999) < 0.001]}.items():
    sums = np.cumsum(g**2)
    print(f"{name:18} {(g**2 / np.sqrt(sums)).sum() / np.sqrt(sums[-1]):.2f}, at most 2")

# %% [markdown]
# The argument holds for each coordinate with its own $S$, and the losses add up. A coordinate that is mostly silent
# has a small $S$: it costs little *and* gets a large rate. A common rate cannot do that.
#
# $S$ is a plain sum of squares. One reads that it is a variance; it is none. Two consequences:

# %%
constant = steps_of(Adagrad, np.ones((10_000, 1)))[:, 0]
assert compare("1 / sqrt(t)", constant, 1 / np.sqrt(np.arange(1, 10_001)))
print("gradient without variance, steps at t = 1, 100, 10,000:", constant[[0, 99, 9999]].round(4))
noise = np.random.default_rng(1).standard_normal((100, 3))
assert compare("rescaled", steps_of(Adagrad, noise * [1, 1e4, 1e-4]), steps_of(Adagrad, noise), tol=1e-5)

# %% [markdown]
# The step falls like $1/\sqrt t$, and the scale of the gradients cancels in each coordinate (down to $\epsilon$).
#
# ### 3.3 The decay: a feature, then a fault
#
# In convex online learning the decay is the point: under noise no constant rate settles (notebook 01's floor). But
# the sum never forgets. A hundred noisy copies sit in a bowl for 100, 1,000 or 10,000 steps; then the bowl moves by 10.
# RMSProp comes next; here it is the contrast.

# %%
noise = np.random.default_rng(1).standard_normal((10_300, 100))

def follow(rule, lr, moves_at):
    """RMS distance of the copies to the minimum, until 300 steps after it has moved; gradient: distance plus noise."""
    path = walk(rule, lambda x, t: x - 10 * (t >= moves_at) + noise[t], moves_at + 300, np.zeros(100), lr=lr)
    return np.sqrt(((path[1:] - 10 * (np.arange(moves_at + 300) >= moves_at)[:, None]) ** 2).mean(axis=1))

bowls = {n: {"AdaGrad": follow(Adagrad, 3.0, n), "RMSProp": follow(RMSprop, 0.1, n)} for n in (100, 1000, 10_000)}
for n, bowl in bowls.items():
    print(f"moved after {n:6}; steps to be within 1:", ", ".join(
        f"{name} {np.argmax(path[n:] < 1) + 1}" for name, path in bowl.items()))

# %%
at = np.unique(np.geomspace(1, 10_000, 60).astype(int))
still = {name: (at, path[at - 1]) for name, path in bowls[10_000].items()}
after = {f"AdaGrad, moved after {n:,}": bowl["AdaGrad"][n : n + 150] for n, bowl in bowls.items()}
after["RMSProp"] = bowls[10_000]["RMSProp"][10_000:10_150]
plots.show(plots.lines_grid([
    dict(series=still, title="AdaGrad settles, RMSProp has a floor", logx=True, logy=True, xlabel="step",
         ylabel="RMS distance"),
    dict(series=after, title="AdaGrad's price grows with its age", logy=True, xlabel="steps after the bowl moved",
         ylabel="RMS distance")]), alt=(
    "RMS distance to the minimum, log axes. Left, 10,000 steps in a noisy bowl: AdaGrad's keeps falling, to about "
    "0.11; RMSProp's stays between 0.2 and 0.25. Right, the bowl moves by 10. AdaGrad comes back quickly if that is "
    "after 100 steps, more slowly after 1,000, and more slowly than RMSProp after 10,000."))

# %% [markdown]
# The longer AdaGrad has run, the more slowly it follows; RMSProp is always as quick, and never settles. In a network
# the landscape moves all the time, since every layer sees the others change. That is the charge against AdaGrad: not
# the decay, but that nothing ever undoes it.
#
# ### 3.4 RMSProp: forget
#
# Replace the sum by an average that forgets: $v_t=\alpha v_{t-1}+(1-\alpha)g_t^2$, step
# $\text{lr}\;g_t/(\sqrt{v_t}+\epsilon)$. Tieleman and Hinton showed it on slides in 2012 (lecture 6e), with
# $\alpha=0.9$, as Rprop (steps by the sign alone) made fit for mini-batches. There never was a paper. torch's default
# is 0.99.
#
# $v$ starts at zero, so $t$ equal gradients make $v_t=(1-\alpha^t)g^2$:

# %%
t = np.arange(1, 2001)
for alpha in (0.9, 0.99, 0.999):
    steady = steps_of(RMSprop, np.ones((2000, 1)), alpha=alpha)[:, 0]
    assert np.allclose(steady, 1 / np.sqrt(1 - alpha**t), rtol=1e-4)
    print(f"alpha {alpha:5}: first {steady[0]:4.1f}, last {steady[-1]:.2f}; {(steady > 2).sum():3} steps exceed 2 lr")

# %% [markdown]
# A steady gradient of any size ends in steps of lr. The start is the first price: the better the memory, the
# longer the first steps. The second: memory and forgetting both have a length. A shock, and a silence:

# %%
for size, then, count in ((1, 1, 0), (100, 1, 0), (100, 1, 1000), (1, 0, 100), (1, 0, 1000)):
    past = np.r_[np.full(100, size), np.full(count, then), 1.0][:, None]
    last = [steps_of(rule, past)[-1, 0] for rule in (Adagrad, RMSprop)]
    print(f"100 gradients of {size:3}, {count:4} of {then}, then 1:", "AdaGrad {:.4f}, RMSProp {:7.4f}".format(*last))

# %% [markdown]
# One violent start freezes AdaGrad for good, and RMSProp for up to a thousand steps. And after a silence a rare feature
# is as new to RMSProp, every time. Back to the spam filter:

# %%
runs["RMSProp"] = best_run(RMSprop, (0.003, 0.01, 0.03))
signs = {name: round(problem.sign_recovery(run.weights)["rare"], 2) for name, run in runs.items()}
print("share of rare words with the right sign:", signs)
assert min(signs, key=signs.get) == "RMSProp"

# %% [markdown]
# RMSProp's steps for rare words are long and never shrink, so their weights wander: the loss is above AdaGrad's, and
# fewer signs are right than under SGD. Rare features are AdaGrad's cure, not RMSProp's. (Signs alone say little:
# constant SGD has as many right as AdaGrad, with weights less than half as large.)
#
# ### 3.5 One name, several rules
#
# **Centred** (Graves 2013): divide by the standard deviation, $\sqrt{v-m^2}$ with $m$ the average of $g$, so that a
# trustworthy gradient gets long steps. But a *steady* one has no deviation: $v_t-m_t^2=\alpha^t(1-\alpha^t)g^2$ goes
# to zero. **Momentum** (off by default, though one reads that RMSProp "is usually used with momentum"): torch sums
# past ratios, $b\leftarrow\mu b+g/(\sqrt v+\epsilon)$, with lr outside; TensorFlow has it inside the sum (notebook
# 02).

# %%
variants = {"plain": {}, "centred": dict(centered=True), "momentum": dict(momentum=0.9)}
wobble = 1 + 0.01 * np.random.default_rng(0).standard_normal((1000, 1))
for name, g in {"constant gradient": np.ones((1000, 1)), "gradient 1 +- 1%": wobble}.items():
    for variant, hyper in variants.items():
        step = steps_of(RMSprop, g, **hyper)[:, 0]
        print(f"{name:17} {variant:8}: step 1 {step[0]:5.2f}, mean of the last hundred {step[900:].mean():6.2f}")

# %% [markdown]
# A gradient that varies by 1% makes centred steps of nearly $1/0.01$ lr; without any variation they grow until
# $\epsilon$ or rounding stops them. Where rounding makes $v-m^2$ negative, torch's step is NaN.
#
# **Ports.** First steps again, $\alpha=0.9$, in the dialects that differ:

# %%
g = np.array([1e-3, 0.1, 10.0])
dialects = {"RMSProp, torch": steps_of(RMSprop, g[None], alpha=0.9)[0],
            "RMSProp, eps = 1e-3 outside": steps_of(RMSprop, g[None], alpha=0.9, eps=1e-3)[0],
            "RMSProp, eps = 1e-3 inside": g / np.sqrt(0.1 * g**2 + 1e-3),
            "RMSProp, v starts at 1": g / np.sqrt(0.9 + 0.1 * g**2),
            "AdaGrad, torch": steps_of(Adagrad, g[None])[0],
            "AdaGrad, sum starts at 0.1": steps_of(Adagrad, g[None], initial_accumulator_value=0.1)[0]}
for name, step in dialects.items():
    print(f"{name:28}", *(f"{s:8.3f}" for s in step))

# %% [markdown]
# The columns are gradients of 0.001, 0.1 and 10. TensorFlow 1 and Keras 3 put RMSProp's $\epsilon$ inside the root,
# torch outside; inside, $\epsilon$ acts like its *root* outside: EfficientNet's 1e-3 like 0.03. TensorFlow 1 starts
# $v$ at 1, Keras AdaGrad's sum at 0.1: small gradients then start with short steps, a warmup nobody asked for. A port
# that keeps the number and moves its place is another optimizer.
#
# ### 3.6 Adadelta: a question of units
#
# Let $x$ be in metres and the loss in nats. A gradient is in nats per metre, and SGD subtracts it from metres: its lr
# must be in square metres per nat. $g/\sqrt v$ has no unit, so the lr of AdaGrad and RMSProp is in metres. Newton's
# $f'/f''$ is in metres by itself. Zeiler (2012) wants that without $f''$: since $\Delta x\approx f'/f''$, put
# $1/f''\approx\Delta x/f'$, with root mean squares (RMS) of past steps and gradients:
#
# $$\Delta_t=\frac{\sqrt{u_{t-1}+\epsilon}}{\sqrt{v_t+\epsilon}}\;g_t,\qquad u_t=\rho\,u_{t-1}+(1-\rho)\,\Delta_t^2 .$$
#
# (A constant in the numerator would make it RMSProp; the two were found independently, and neither is a variant of the
# other.) No learning rate is left. On trial: the steps until $\tfrac12(x/\text{unit})^2$ has halved its distance; as it
# is, with a tenth of the loss, and with a unit ten times smaller, so that all numbers are ten times larger:

# %%
def steps_to_half(rule, hyper, loss, size):
    return np.argmax(walk(rule, lambda x, t: loss * x / size**2, 1000, [size], **hyper)[:, 0] <= size / 2)

for rule, hyper in ((SGD, {"lr": 0.1}), (RMSprop, {"lr": 0.01}), (Adadelta, {"eps": 1e-6}), (Adadelta, {"eps": 1e-4})):
    counts = [steps_to_half(rule, hyper, *change) for change in ((1, 1), (0.1, 1), (1, 10))]
    print("{:8} {}: {} steps, {} with a tenth of the loss, {} in small units".format(rule.__name__, hyper, *counts))

# %% [markdown]
# The scale of the loss cancels. The unit does not: numbers ten times larger take six to eight times the steps, where
# Newton takes the same. The leak is $\epsilon$, which has units too, and with which Adadelta starts, as $u_0=0$:

# %%
for eps in (1e-8, 1e-6, 1e-4):
    first = steps_of(Adadelta, np.array([[1.0, 1000.0]]), eps=eps)[0]
    assert np.isclose(first[0], np.sqrt(eps) / np.sqrt((1 - 0.9) + eps))
    print(f"eps = {eps:g}: first step {first.round(5)} for gradients 1 and 1000")
grown = steps_of(Adadelta, np.ones((4000, 1)))[999::1000, 0]
assert compare("growth", grown, np.sqrt(1e-6 * 0.1 * np.array([1000, 2000, 3000, 4000])), tol=0.01)

# %% [markdown]
# The first step is $\sqrt{\epsilon/(1-\rho)}$. While the gradient is steady, $v\approx g^2$ and $u$ gains
# $(1-\rho)\epsilon$ per step, so the steps grow like $\sqrt{\epsilon(1-\rho)\,t}$. **$\epsilon$ is the learning rate
# of the start**: a hundredfold $\epsilon$ cut the counts above to less than a fifth. "Adadelta is fast early" is the
# opposite of what runs here. torch multiplies the step by lr = 1.0, the paper's rule; Keras's default is 0.001.
#
# ### 3.7 What each cured, and what is left
#
# One run for all: steady gradients of 1 and 1000, and a noisy one with mean 0.3 and deviation 1, that is, with a
# scatter of 3.3 times its mean.

# %%
steady, noisy = np.tile([1.0, 1000.0], (1000, 1)), 0.3 + np.random.default_rng(2).standard_normal((1000, 400))
print("                    1000 : 1    first  longest  step 1000  scatter / mean")
for rule, hyper in ((SGD, {}), (Adagrad, {}), (RMSprop, {}), (RMSprop, dict(momentum=0.9)), (Adadelta, {})):
    s, rough = steps_of(rule, steady, **hyper), steps_of(rule, noisy, **hyper)[-1]
    name, ratio, scatter = rule.__name__ + " + momentum" * bool(hyper), s[-1, 1] / s[-1, 0], rough.std() / rough.mean()
    print(f"{name:19} {ratio:8.0f} {s[0, 0]:8.3f} {s[:, 0].max():8.2f} {s[-1, 0]:10.3f} {scatter:15.1f}")

# %% [markdown]
# | rule | cures | leaves |
# |---|---|---|
# | AdaGrad | the scale of each coordinate; rare features | steps that fade for ever |
# | RMSProp | the fading | first steps ten times lr; scatter; rare features |
# | RMSProp with momentum | the scatter, to a quarter | lr times ten, the start times thirty |
# | Adadelta | the unit of lr, in part | a start set by $\epsilon$; the scatter |
#
# Two debts are left. *Scatter*: a division averages nothing; momentum does, but as a sum, which multiplies lr. *The
# start*: averages that begin at zero are too small. Adam averages the numerator too, and divides each average by what
# its start has withheld. Notebook 04 goes on from here.
#
# ## 4. The whole
#
# Three rules, one function each. `state` is what is remembered; what is returned is subtracted:

# %%
def adagrad(g, state, lr=0.01, eps=1e-10):
    state["sum"] += g * g
    return lr * g / (state["sum"].sqrt() + eps)


def rmsprop(g, state, lr=0.01, alpha=0.99, eps=1e-8):
    state["square_avg"].lerp_(g * g, 1 - alpha)
    return lr * g / (state["square_avg"].sqrt() + eps)


def adadelta(g, state, lr=1.0, rho=0.9, eps=1e-6):
    state["square_avg"].lerp_(g * g, 1 - rho)
    delta = (state["acc_delta"] + eps).sqrt() / (state["square_avg"] + eps).sqrt() * g
    state["acc_delta"].lerp_(delta * delta, 1 - rho)
    return lr * delta

# %% [markdown]
# Ours, torch's and the library's (`course_lib.optim`) take a hundred steps on the same float32 gradients, of sizes 1e-5
# to 1. After each we keep every tensor of the state, and the parameter:

# %%
scales = 10.0 ** np.arange(-5, 1)
gradients = torch.tensor(np.random.default_rng(3).standard_normal((100, 4, 6)) * scales, dtype=torch.float32)

def trace(rule, keys):
    p, log = torch.zeros(4, 6), []
    run = rule([p]) if isinstance(rule, type) else None
    state = run.state[p] if run else {key: torch.zeros(4, 6) for key in keys}
    for p.grad in gradients:
        if run:
            run.step()
        else:
            p -= rule(p.grad, state)
        log.append(torch.stack([*(state[key] for key in keys), p]))
    return torch.stack(log)

for rule, theirs, keys in ((adagrad, Adagrad, ["sum"]), (rmsprop, RMSprop, ["square_avg"]),
                           (adadelta, Adadelta, ["square_avg", "acc_delta"])):
    mine, torchs, library = (trace(r, keys) for r in (rule, theirs, getattr(optim, theirs.__name__)))
    for index, name in enumerate([*keys, "parameter"]):
        assert compare(f"{theirs.__name__} {name}", mine[:, index], torchs[:, index])
    assert compare("  library, all", library, torchs)

# %% [markdown]
# ## 5. Against production
#
# AdaGrad and RMSProp read $p,g,v$ and write $p,v$: five numbers, 20 bytes per float32 parameter. Adadelta moves seven,
# as Adam does. The arithmetic is small, so memory sets the time.

# %% tags=["nbval-ignore-output"]
shapes, count = 8 * [(512, 512)], 8 * 512 * 512
print(bench.describe_device(), "| GB/s of necessary traffic")
for theirs, traffic in ((Adagrad, 20), (RMSprop, 20), (Adadelta, 28)):
    variants = bench.step_variants(shapes, optimizer_class=theirs, own=getattr(optim, theirs.__name__))
    variants.pop("fused", None)      # AdaGrad alone has it, and on CUDA only in recent versions
    ends = [variant.__self__.param_groups[0]["params"][0] for variant in variants.values()]
    source, target = torch.zeros(2, count, device=ends[0].device)
    times = bench.step_times(variants | {"plain copy": lambda: target.copy_(source)}, repeats=5, warmup=1)
    assert all(torch.allclose(end, ends[0], atol=1e-6) for end in ends)
    print(f"{theirs.__name__:8}", ", ".join(f"{name} {(8 if name == 'plain copy' else traffic) * count / s / 1e9:.1f}"
                                            for name, s in times.items()))

# %% [markdown]
# Every way of a rule ends at the same parameters. What is missing to the copy's rate goes into operations that read and
# write their operands again. torch has fused kernels for neither RMSProp nor Adadelta (notebook 12 writes such ones).
#
# The state, counted from torch's optimizers, and for a recommender's embedding table of 100 million rows by 128:

# %%
for entry in (optim.REGISTRY[key] for key in ("sgd", "adagrad", "rmsprop", "adadelta", "adam")):
    param = torch.ones(1000, requires_grad=True)
    run = entry.production([param], lr=0.1)
    param.grad = torch.ones(1000)
    run.step()
    kept = sum(s.nbytes for s in run.state[param].values() if torch.is_tensor(s) and s.shape == param.shape) / 1000
    assert kept == entry.state_bytes_per_param
    print(f"{entry.name:9} {kept:2.0f} bytes per parameter, {kept * 12.8:6.1f} GB for the table")
print(f"AdaGrad with one sum per row: {4 * 100e6 / 1e9:.1f} GB")

# %% [markdown]
# "AdaGrad is obsolete" holds for language models. Recommenders train such tables with it to this day, in the *row-wise*
# form of the last line (DLRM's code): one sum for all of a row.
#
# ## 6. Turn the knobs
#
# This valley lies along the axes. Predict first: whose path changes with the condition number? Adadelta starts here
# with lr = 100: what does the paper's lr = 1 reach in 60 steps?

# %%
from course_lib import widgets

widgets.explore_valley(["adagrad", "rmsprop", "adadelta", "sgd"])

# %% [markdown]
# ## 7. How it breaks
#
# Six RMSProps, five with one mistake each, on noisy gradients of sizes 1 and 1e-5. The steps in units of lr:

# %%
def ema(values, beta):
    rows = [np.zeros_like(values[0])]
    for value in values:
        rows.append(beta * rows[-1] + (1 - beta) * value)
    return np.array(rows)

g = (0.3 + np.random.default_rng(5).standard_normal((2000, 2))) * [1.0, 1e-5]
v, m, eps = ema(g**2, 0.99), ema(g, 0.99)[1:], 1e-8
broken = {"correct": np.sqrt(v[1:]) + eps, "eps inside the root": np.sqrt(v[1:] + eps), "no root": v[1:] + eps,
          "average of g, not g^2": abs(m) + eps, "one v for all": np.sqrt(v[1:].mean(axis=1, keepdims=True)) + eps,
          "divided before v has g": np.sqrt(v[:-1]) + eps}
print(f"{'':23} first: loud      quiet    later, RMS: loud      quiet")
for name, divisor in broken.items():
    first, later = abs(g / divisor)[0], np.sqrt(((g / divisor)[1000:] ** 2).mean(axis=0))
    print("{:23} {:11.3g} {:10.3g} {:17.2g} {:10.2g}".format(name, *first, *later))

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | eps inside the root | layers with small gradients learn ten times too slowly; the rest looks normal |
# | no root | quiet layers explode, with steps of $1/g$; a layer with gradients near 1 looks normal |
# | average of $g$ | a first step of 100 lr; later, long steps wherever the average passes zero: near the minimum |
# | one $v$ for all tensors | it trains, like SGD: the quiet parameter stands still |
# | divided too early | a first step of $g/\epsilon$: the loss is ruined or NaN at step 2, in every run |
#
# Four mistakes of use: a checkpoint that lost the sums, `eps=0`, SGD's learning rate, and weight decay inside the
# gradient.

# %%
path = walk(Adagrad, lambda x, t: x + noise[t], 4000, np.zeros(100), lr=3.0)
lost = walk(Adagrad, lambda x, t: x + noise[3000 + t], 1000, path[3000], lr=3.0)
for name, resumed in {"sums kept": path[3000:], "sums lost": lost}.items():
    rms = np.sqrt((resumed**2).mean(axis=1))
    print(f"{name}: RMS distance after 0, 1, 10, 100 steps:", rms[[0, 1, 10, 100]].round(2))
assert np.isnan(steps_of(Adagrad, np.zeros((1, 1)), eps=0.0))      # a feature that has not occurred yet: 0 / 0
pairs = np.hstack([noise[:2000], -noise[:2000]])      # both signs, so that the noise cancels in the mean
for size in (0.01, 10.0):
    weights = walk(Adagrad, lambda x, t: size * pairs[t], 2000, np.ones(200), lr=0.05, weight_decay=0.1)[-1]
    print(f"useless weights with gradient noise {size:5}: weight_decay = 0.1 leaves {abs(weights.mean()):.2f} of 1")

# %% [markdown]
# Lost sums: the loss jumps at the step of the restart, since every parameter moves by a full lr again, and comes back
# over hundreds of steps. `eps=0`: NaN, once a feature is absent. SGD's lr: its gradients were small, and AdaGrad
# moves by lr whatever they are; in the picture's sweep lr = 3, the best for SGD with $1/\sqrt t$, leaves AdaGrad worse
# than weights of zero (0.693). Weight decay: the decay is divided too, so loud weights escape it and quiet ones vanish.
# Notebook 05 is about that.
#
# ## 8. Your turn
#
# In `exercises/03_adaptive_rates.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `adagrad` | the whole optimizer |
# | `sparse_adagrad` | one step on the rows of an embedding, with repeated rows |
# | `adagrad_step` | a number: when the step is down to 1% |
# | `rmsprop` | the whole optimizer |
# | `centered_divisor` | what the centred variant divides by |
# | `adadelta` | the whole optimizer |
# | `adadelta_first_step` | a number: its first step |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("diagonal-rotation")
questions.show("diagonal-best-scaling")

# %% tags=["evidence-diagonal-rotation", "evidence-diagonal-best-scaling"]
along, turned = (distance(Adagrad, 3.0, 100, d)[-1] / distance(SGD, 2 / 101, 100, d)[-1] for d in turn)
hessian = np.array([[1, 6], [6, 100]])
scaled = hessian / np.sqrt(np.outer(np.diag(hessian), np.diag(hessian)))
assert along < 1e-9 and turned > 10 and np.isclose(np.linalg.cond(scaled), 4)
print(f"turned, AdaGrad ends {turned:.0f} times as far off as SGD; [[1, 6], [6, 100]] scaled: {scaled.tolist()}, "
      f"condition number {np.linalg.cond(hessian):.0f}, then {np.linalg.cond(scaled):.0f}")

# %%
questions.show("adagrad-rare-features")
questions.show("rmsprop-long-start")

# %% tags=["evidence-adagrad-rare-features", "evidence-rmsprop-long-start"]
words = np.stack([np.ones(10_000), np.arange(1, 10_001) % 100 == 0], axis=1)      # every message, every hundredth
clocks = steps_of(Adagrad, words)[-1]
silence = steps_of(RMSprop, np.r_[np.ones(100), np.zeros(1000), 1.0][:, None])[-1, 0]
long = [(steps_of(RMSprop, np.ones((400, 1)), alpha=alpha) > 2).sum() for alpha in (0.99, 0.999)]
assert np.allclose(clocks, [0.01, 0.1]) and round(silence, 2) == 9.99 and long == [28, 287]
print("AdaGrad:", clocks.round(3), f"RMSProp after a silence: {silence:.2f}, steps above 2 lr: {long[0]} and {long[1]}")

# %%
questions.show("rmsprop-eps-port")
questions.show("adadelta-eps-is-lr")

# %% tags=["evidence-rmsprop-eps-port", "evidence-adadelta-eps-is-lr"]
outside, inside = (dialects[f"RMSProp, eps = 1e-3 {place}"][0] for place in ("outside", "inside"))
questions.prove("rmsprop-eps-port")      # asserts these two on the code above and on the repaired code
grown = steps_of(Adadelta, np.ones((10_000, 1)))[:, 0]
assert np.isclose(grown[-1], np.sqrt(1e-6 * 0.1 * 10_000), rtol=0.02) and np.isclose(outside / inside, 24, rtol=0.01)
print(f"gradient 0.001: {outside:.2f} lr, should be {inside:.3f}; Adadelta: {grown[0]:.4f}, step 10,000 {grown[-1]:.4f}")

# %% [markdown]
# ## 10. Sources
#
# - Duchi, Hazan & Singer 2011, *Adaptive Subgradient Methods* (JMLR 12), and Streeter & McMahan 2010, *Less Regret via
#   Online Conditioning* (1002.4862), the same rule at the same time; Zinkevich 2003 (ICML), online gradient descent.
# - Tieleman & Hinton 2012, *Neural Networks for Machine Learning*, lecture 6e; Graves 2013 (1308.0850), eq. 38-45.
# - Zeiler 2012, *ADADELTA* (1212.5701), sections 3.1 and 3.2. On who was first: Ruder 2016 (1609.04747), section 4.
# - Ports: Keras 3's source; `RMSpropTF` in timm; EfficientNet, Tan & Le 2019 (1905.11946), and its code.
# - Row-wise AdaGrad: Naumov et al. 2019, DLRM (1906.00091), and its code.
#
# Contested: whether scales by coordinate are why such rules win on language models (notebook 06); how much of what is
# told of them is in truth their hidden schedule of step lengths (Agarwal et al. 2020, 2002.11803).
