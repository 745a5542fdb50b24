# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adam
#
# ## 1. The question
#
# > *Derive Adam. Why must each line be there, and what does it cost to train 7 billion parameters with it?*
#
# Afterwards you can rebuild Adam from the failures of simpler rules, say how long its steps are and why, recognise
# eight broken versions by their symptoms, and count its bytes. You need to know what a gradient and a learning rate
# are. Reading takes 45 to 60 minutes; the exercises come on top.
#
# One instrument serves the whole notebook: `steps_of` feeds an optimizer gradients of our choice, with lr = 1, and
# records what it subtracts. All step lengths below are therefore in units of lr.

# %%
from itertools import accumulate

import numpy as np
import torch

from course_lib import plots
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.optim import REGISTRY, TORCH_KEYS, Adam
from course_lib.optim.radam import rectifier


def steps_of(optimizer, gradients, **hyper):
    """What ``optimizer`` subtracts from its parameters at each step, fed gradients (T, n) with lr = 1, in float64."""
    gradients = torch.as_tensor(np.asarray(gradients, dtype=np.float64))
    param = torch.zeros(gradients.shape[1:], dtype=torch.float64)
    run, path = optimizer([param], lr=1.0, **hyper), [param.clone()]
    for gradient in gradients:
        param.grad = gradient
        run.step()
        path.append(param.clone())
    return -torch.stack(path).diff(dim=0).numpy()

# %% [markdown]
# ## 2. The picture
#
# A coach trains an athlete. Test results are noisy, so the coach watches the trend and not yesterday's result. Legs
# move hundreds of kilograms and fingers move grams, so each muscle is judged against its own usual result. A muscle
# whose trend is as large as its usual result gets the full dose. A muscle whose results merely scatter gets little.
#
# The result is the gradient, the muscle a parameter, the trend $m$, the usual size $\sqrt v$, the full dose lr:

# %%
noise = np.random.default_rng(4).standard_normal((60, 3))
gradients = np.array([100.0, 0.01, 1.0]) * (np.array([1.0, 1.0, 0.0]) + np.array([0.3, 0.3, 1.0]) * noise)
names = ["legs: large and steady", "fingers: tiny and steady", "neck: erratic"]
sizes, steps = dict(zip(names, abs(gradients).T)), dict(zip(names, steps_of(torch.optim.Adam, gradients).T))
plots.show(plots.lines_grid([
    dict(series=sizes, title="Gradients differ 10,000-fold ...", xlabel="step", ylabel="|gradient|", logy=True),
    dict(series=steps, title="... the steps follow steadiness only", xlabel="step", ylabel="step (units of lr)")]),
    alt="Left: gradient sizes of three parameters over 60 steps, around 100, 1 and 0.01, on a log axis. Right: Adam's "
        "steps. Both steady parameters move by about one lr per step although their gradients differ ten thousandfold; "
        "the erratic one, of middle size, wanders around zero. Adam's step measures steadiness and not size.")

# %% [markdown]
# ## 3. The derivation
#
# Notebook 03 ended with two debts: a divided gradient scatters, and an average that begins at zero is too small. Both are
# paid here, in 3.2 and 3.4. If you begin the course with this notebook, 3.1 to 3.3 tell what you need of the others.
#
# ### 3.1 One learning rate, two scales
#
# SGD subtracts $\text{lr}\cdot g$. One often reads that SGD updates all parameters by the same size. It is the *rate*
# that is the same; the updates differ as the gradients do. The large gradient limits lr, and the small one waits.
#
# The obvious cure divides each gradient by its own size, which leaves its sign. With noise that can go the wrong way.
# Let one example in ten pull with +10 and nine with $-1$:

# %%
print("SGD:", steps_of(torch.optim.SGD, [[100.0, 0.01]]))
skewed = np.where(np.random.default_rng(0).random(20_000) < 0.1, 10.0, -1.0)
print(f"mean gradient {skewed.mean():+.2f}, mean of its sign {np.sign(skewed).mean():+.2f}")
assert skewed.mean() > 0 > np.sign(skewed).mean()

# %% [markdown]
# On average the loss rises to the right, so we should go left. Nine signs in ten send us right: the rare large gradient
# has lost its weight. So average first, and divide averages.
#
# ### 3.2 The trend: m
#
# A plain mean over all gradients would still contain those from places left long ago. We forget at a fixed rate:
#
# $$m_t=\beta_1 m_{t-1}+(1-\beta_1)\,g_t,\quad m_0=0
# \qquad\Rightarrow\qquad m_t=(1-\beta_1)\sum_{i=1}^{t}\beta_1^{\,t-i}g_i .$$

# %%
def ema(values, beta):
    start = np.zeros_like(values[0])
    return np.array(list(accumulate(values, lambda m, g: beta * m + (1 - beta) * g, initial=start)))[1:]

weights = 0.1 * 0.9 ** np.arange(1000)[::-1]
assert compare("m, unrolled", ema(skewed[:1000], 0.9)[-1], weights @ skewed[:1000])
print(f"weight of the last 10 gradients {weights[-10:].sum():.2f}, of the last 50 {weights[-50:].sum():.3f}")

# %% [markdown]
# With $\beta_1=0.9$ the memory is about $1/(1-\beta_1)=10$ gradients, for the price of one number per parameter.
#
# ### 3.3 The usual size: v
#
# $m$ cannot serve as the size: for a gradient that only flips its sign it is near zero. The root mean square can.
# AdaGrad (2011) sums all squares, so its steps shrink like $1/\sqrt t$ for ever. RMSProp (2012) forgets here too:
#
# $$v_t=\beta_2 v_{t-1}+(1-\beta_2)\,g_t^2,\qquad v_0=0 .$$

# %%
for optimizer in (torch.optim.Adagrad, torch.optim.RMSprop):
    constant = steps_of(optimizer, np.ones((1000, 1)))
    print(f"{optimizer.__name__:8} gradient 1: first step {constant[0, 0]:5.2f}, step 1000 {constant[-1, 0]:.2f}")
curvature, position = np.array([1.0, 100.0]), np.array([1.0, 0.01])
v = ema(np.tile((curvature * position) ** 2, (10, 1)), 0.999)[-1]
assert v[0] == v[1]      # curvatures 1 and 100, equal gradients: equal v

# %% [markdown]
# The forgetting rule keeps moving, but its first step is ten times lr; section 3.4 explains that. The last two lines
# refute a popular sentence: **v is not the second derivative.** It sees only the gradient's square.
#
# Trend over usual size, $m_t/\sqrt{v_t}$, is nearly Adam, short for adaptive moment estimation.
#
# ### 3.4 Zero is a biased start
#
# Suppose the mean of the gradient, $\mathbb E[g]$, does not change. From the unrolled sum and the geometric series
#
# $$\mathbb E[m_t]=\mathbb E[g]\,(1-\beta_1)\sum_{j=0}^{t-1}\beta_1^{\,j}=(1-\beta_1^{\,t})\;\mathbb E[g],
# \qquad \mathbb E[v_t]=(1-\beta_2^{\,t})\;\mathbb E[g^2].$$
#
# Both are too small by a known factor. Divide it out: $\hat m_t=m_t/(1-\beta_1^t)$, $\hat v_t=v_t/(1-\beta_2^t)$. The
# power belongs to $\beta$ alone; some write $(1-\beta)^t$. Without correction the step is wrong by
# $(1-\beta_1^t)/\sqrt{1-\beta_2^t}$: too long or too short, depending on $\beta_2$.

# %%
t = np.arange(1, 1001)
assert compare("bias of m", ema(np.ones(1000), 0.9), 1 - 0.9**t)
assert compare("bias of v", ema(np.ones(1000), 0.999), 1 - 0.999**t)
print(f"t = 10: 1 - beta2^t = {1 - 0.999**10:.5f}, (1 - beta2)^t = {0.001**10:.0e}")
error = {f"beta2 = {beta2}": (1 - 0.9**t) / np.sqrt(1 - beta2**t) for beta2 in (0.999, 0.99, 0.95)}
for name, wrong in error.items():
    print(f"{name:13} t = 1: {wrong[0]:.3f}   largest {wrong.max():.2f} at t = {wrong.argmax() + 1}")
plots.show(plots.lines(error, title="The defaults overshoot sixfold, beta2 = 0.95 starts too short", logx=True,
                       xlabel="step t", ylabel="step without / with correction", hlines={"correct": 1}),
           alt="For 0.999 the ratio peaks at 6.6 and exceeds 1 even at t = 1000; 0.95 starts at 0.45 and soon nears 1.")

# %% [markdown]
# "Warmup is needed because $\hat v$ is too small at first" is therefore wrong: the raw $v$ is too small and $\hat v$
# is not. What correction cannot remove is the *scatter* of an estimate from few gradients (Liu et al. 2020). For
# gradients of unit variance:

# %%
z = np.random.default_rng(1).standard_normal((1000, 5000))
v_hat = ema(z**2, 0.999) / (1 - 0.999**t)[:, None]
for step in (1, 10, 100, 1000):
    low, high = np.quantile(1 / np.sqrt(v_hat[step - 1]), [0.05, 0.95])
    print(f"t = {step:4}: mean of v_hat {v_hat[step - 1].mean():.2f}, 90% of 1/sqrt(v_hat) in {low:.2f} .. {high:.2f}")
assert np.allclose(v_hat[[0, 9, 99, 999]].mean(axis=1), 1, atol=0.05)

# %% [markdown]
# The mean is right from the first step. The scale of a single parameter is not: at $t=1$ one in twenty is more than
# seventeen times too large. (There the step is still lr, since $\hat m$ scatters along with it; a few steps later it
# need not be.) Warmup may answer that; bias correction does not. Both are Adam's; AdamW inherits them.
#
# ### 3.5 The first step is lr times the sign
#
# At $t=1$, $\hat m_1=g_1$ and $\hat v_1=g_1^2$, so $\hat m_1/\sqrt{\hat v_1}=g_1/|g_1|$:

# %%
first = steps_of(torch.optim.Adam, [[1000.0, 0.001, -0.001]])
assert np.allclose(first, [[1, 1, -1]], atol=1e-4)
print(first)

# %% [markdown]
# A gradient a million times larger makes no longer step: here it is Adam, not SGD, whose updates are all of one
# size. (The 0.99999 is epsilon, section 3.7.)
#
# ### 3.6 Afterwards the step measures signal against noise
#
# Let the gradient have mean $\mu$ and standard deviation $\sigma$. The noise left in $m$ has variance
# $(1-\beta_1)^2\sum_j\beta_1^{2j}\sigma^2=\frac{1-\beta_1}{1+\beta_1}\sigma^2$, and $v\approx\mu^2+\sigma^2$. So
#
# $$\mathrm{RMS}\Big(\frac{m}{\sqrt v}\Big)\approx
# \sqrt{\frac{\mu^2+\frac{1-\beta_1}{1+\beta_1}\sigma^2}{\mu^2+\sigma^2}} .$$

# %%
ratio = np.repeat([0.0, 0.1, 0.3, 1.0, 10.0], 100)      # mean over standard deviation
last = steps_of(torch.optim.Adam, ratio + np.random.default_rng(2).standard_normal((2000, 500)))[-500:]
seen = np.sqrt((last**2).mean(axis=0).reshape(5, 100).mean(axis=1))
formula = np.sqrt((ratio**2 + 0.1 / 1.9) / (ratio**2 + 1))[::100]
print("mean / deviation", ratio[::100], "\nRMS step        ", seen.round(2))
assert compare("formula", seen, formula, tol=0.02)

# %% [markdown]
# Pure noise still moves a parameter by 0.23 lr per step. Adam does not "push stubborn parameters harder": it never
# measures progress, only whether gradients agree. Multiply the loss by $c$ and $m$ and $\sqrt v$ both grow by $c$; the
# step stays. That is why Adam's lr is a step length and SGD's is not, and why the two cannot be compared.
#
# **How long can a step get?** Write $m=\sum_j a_jb_j$ with
# $a_j=(1-\beta_1)\beta_1^{\,j}/\sqrt{(1-\beta_2)\beta_2^{\,j}}$ and $b_j=\sqrt{(1-\beta_2)\beta_2^{\,j}}\;g_{t-j}$.
# Then $\sum_j b_j^2=v$, and Cauchy-Schwarz gives, if $\beta_1^2<\beta_2$,
#
# $$\frac{|m|}{\sqrt v}\le\sqrt{\textstyle\sum_j a_j^2}=\frac{1-\beta_1}{\sqrt{(1-\beta_2)(1-\beta_1^2/\beta_2)}},$$
#
# with equality for $b_j\propto a_j$: gradients that grow by the factor $\beta_2/\beta_1$ per step.

# %%
j, beta1, beta2 = np.arange(3000), 0.9, 0.999
bound = (1 - beta1) / np.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
growing = (beta1 / beta2) ** j      # the gradient j steps ago
reached = (1 - beta1) * beta1**j @ growing / np.sqrt((1 - beta2) * beta2**j @ growing**2)
print(f"bound {bound:.2f}, reached {reached:.2f}; a lone gradient after silence {(1 - beta1) / np.sqrt(1 - beta2):.2f}")
print("one infinite gradient:", steps_of(torch.optim.Adam, [[1.0], [np.inf], [1.0], [1.0]]).ravel().round(2))

# %% [markdown]
# The paper gives the second number, 3.16, as the largest effective step. Growing gradients exceed it (our
# derivation). So "Adam's denominator tames exploding gradients" is half true: finite ones cost up to 7.27 lr per
# step, and one infinite gradient destroys the parameter for good.
#
# ### 3.7 Epsilon
#
# "It only prevents division by zero." No: it sets the gradient size below which Adam stops normalising. The step is
# $|g|/(|g|+\epsilon)$, half of lr at $|g|=\epsilon$; far below it is $\text{lr}\cdot g/\epsilon$, plain SGD. *Where*
# epsilon stands moves that point. At the first step:

# %%
g, eps = np.logspace(-11, -1, 101), 1e-8
placed = {"sqrt(v_hat) + eps": g / (g + eps),
          "sqrt(v) + eps, then corrected": g / (g + eps / np.sqrt(1 - 0.999)),
          "sqrt(v_hat + eps)": g / np.sqrt(g**2 + eps)}
assert compare("torch.optim.Adam", steps_of(torch.optim.Adam, [g])[0], placed["sqrt(v_hat) + eps"])
for name, step in placed.items():
    print(f"{name:30} half a step at |g| = {np.interp(0.5, step, g):.1e}")
print("1e-8 in float16:", torch.tensor(1e-8, dtype=torch.float16).item())
chart = plots.lines({name: (g, step) for name, step in placed.items()}, logx=True,
                    title="The same eps = 1e-8 in three places: the threshold moves by almost four decades",
                    xlabel="|gradient|", ylabel="first step (units of lr)")
plots.show(chart, alt="First step against gradient size, three curves from 0 to 1. They pass one half at 1e-8 (outside "
           "the root, after correction), 3e-7 (before correction) and 6e-5 (inside): below that, no normalisation.")

# %% [markdown]
# The paper and torch use the first form. The paper's remark on efficiency, TensorFlow and Keras use the second, with
# $\hat\epsilon$. It equals the first only if $\hat\epsilon=\epsilon\sqrt{1-\beta_2^t}$. In float16 the default is
# exactly zero. Gradient sizes fall as models grow and can come down to 1e-8 (Wortsman et al. 2023b).
#
# ### 3.8 beta2 and shocks
#
# $v$ remembers about $1/(1-\beta_2)$ steps. After 4,000 steps of unit noise, let the gradient jump 100-fold for good,
# or spike 1000-fold once:

# %%
g = np.random.default_rng(0).standard_normal((4300, 400))
g[4000:, :200] *= 100
g[4000, 200:] *= 1000
rms = {}
for beta2 in (0.999, 0.99, 0.95):
    squares = steps_of(torch.optim.Adam, g, betas=(0.9, beta2)) ** 2
    r = rms[f"beta2 = {beta2}"] = np.sqrt(squares.reshape(4300, 2, 200).mean(axis=2))
    print(f"beta2 = {beta2:5}: RMS step before {r[3500:4000].mean():.2f}; jump: at most {r[4000:, 0].max():.2f}; "
          f"spike: at most {r[4000:, 1].max():.2f}, after 100 steps {r[4100, 1]:.2f}, after 300 {r[-1, 1]:.2f}")
jump, spike = ({name: (np.arange(-20, 300), r[3980:, column]) for name, r in rms.items()} for column in (0, 1))
axes = dict(xlabel="steps after the shock", ylabel="RMS step (units of lr)", logy=True)
plots.show(plots.lines_grid([dict(series=jump, title="Jump x100: long memory overshoots", **axes),
                             dict(series=spike, title="Spike x1000: overshoot, then frozen", **axes)]),
           alt="RMS of Adam's step around a shock, log axis, for three values of beta2. Left, a lasting jump: 0.999 "
               "rises from 0.23 to about 3 and is at twice its old value 300 steps later; 0.95 rises to about 0.45. "
               "Right, a single spike: all rise, then fall far below their old value; only 0.95 recovers in 300 steps.")

# %% [markdown]
# A long memory is surprised more and recovers later. That is one reason for 0.95 in language models (GPT-3, Llama 2).
# It is no free lunch: a shorter memory is a noisier $v$, and PaLM lets $\beta_2$ *grow* for the sake of rare tokens.
#
# ### 3.9 Sparse gradients
#
# An embedding row that is absent from the batch has gradient zero. Does it rest?

# %%
def absent_row(optimizer, sparse):
    table = torch.nn.Embedding.from_pretrained(torch.zeros(2, 1), freeze=False, sparse=sparse)
    run, where = optimizer(table.parameters(), lr=1.0), []
    for batch in [[0, 1]] + 50 * [[0]]:      # row 1 occurs in the first batch only
        run.zero_grad()
        table(torch.tensor(batch)).sum().backward()
        run.step()
        where.append(table.weight[1].item())
    return f"row 1 at {where[0]:.2f} after its only batch, at {where[-1]:.2f} fifty batches later"

print("Adam:      ", absent_row(torch.optim.Adam, sparse=False))
print("SparseAdam:", absent_row(torch.optim.SparseAdam, sparse=True))
try:
    absent_row(torch.optim.Adam, sparse=True)
except RuntimeError as refusal:
    print("Adam on a sparse gradient:", refusal)

# %% [markdown]
# Under Adam the row moves five more lr without a gradient, as $m$ fades faster than $\sqrt v$. `SparseAdam` leaves
# both moments of absent rows alone; it is another algorithm. "Adam makes large updates to rare parameters" is
# AdaGrad's story. In Adam, rarity acts only through $\sqrt v$.
#
# ### 3.10 Where Adam fails
#
# Section 3.1 returns. On $[-1,1]$ let the gradient be 3, $-1$, $-1$, and again. Its mean is positive, so $x=-1$ is
# optimal. If $\beta_2$ forgets within three steps, the 3 is divided by about 3 and each $-1$ by about 1, and Adam
# walks to the worst point (Reddi et al. 2018, Theorem 1). AMSGrad divides by the largest $v$ so far:

# %%
def walk(**hyper):
    x = torch.zeros(1, dtype=torch.float64)
    run, path = torch.optim.Adam([x], **hyper), []
    for t in range(1, 1501):
        run.param_groups[0]["lr"] = 0.5 / t**0.5
        x.grad = torch.full_like(x, 3.0 if t % 3 == 1 else -1.0)
        run.step()
        path.append(x.clamp_(-1, 1).item())
    return path

paths = {"Adam, betas (0, 0.1)": walk(betas=(0.0, 0.1)),
         "AMSGrad, betas (0, 0.1)": walk(betas=(0.0, 0.1), amsgrad=True),
         "Adam, betas (0.9, 0.999)": walk()}
print({name: round(path[-1], 2) for name, path in paths.items()})
plots.show(plots.lines(paths, title="With a short memory Adam settles at the worst point",
                       xlabel="step", ylabel="x", logx=True, hlines={"best": -1.0, "worst": 1.0}),
           alt="Position x against the step. Adam with betas 0 and 0.1 goes to +1, the worst point, and stays there. "
               "AMSGrad with the same betas and Adam with default betas go to -1, the best point.")

# %% [markdown]
# The order matters: choose the betas first and a failing problem exists; fix the problem and a large enough $\beta_2$
# converges (Zhang et al. 2022). AMSGrad costs a third state.
#
# Paper and torch differ. The paper has no bias correction. torch takes the maximum of the *uncorrected* $v$ and
# corrects afterwards, so its denominator can shrink:

# %%
g = np.r_[10.0, np.full(999, 0.01)]
largest = np.sqrt(np.maximum.accumulate(ema(g**2, 0.999)))
divisor = ema(g, 0.9) / (1 - 0.9**t) / steps_of(torch.optim.Adam, g[:, None], amsgrad=True)[:, 0]      # m_hat / step
for step in (1, 1000):
    print(f"t = {step:4}: the paper divides by {largest[step - 1]:.2f}, torch by {divisor[step - 1]:.2f}")
assert np.ptp(largest) == 0 and divisor[0] > 20 * divisor[-1]

# %% [markdown]
# ### 3.11 Three relatives
#
# **Adamax** (same paper) averages $|g|^p$ and takes the $p$-th root. For $p\to\infty$ that is the largest recent
# gradient: $u_t=\max(\beta_2u_{t-1},|g_t|)$. **NAdam** (Dozat 2016) puts notebook 02's look-ahead into the numerator:
# $\mu_{t+1}m_t$ instead of $\beta_1m_{t-1}$, where $\mu_t$ rises from $\beta_1/2$ to $\beta_1$. **RAdam** answers the
# scatter of section 3.4. It counts the gradients behind $\hat v$,
#
# $$\rho_t=\rho_\infty-\frac{2t\beta_2^t}{1-\beta_2^t},\quad\rho_\infty=\frac{2}{1-\beta_2}-1,\qquad
# r_t=\sqrt{\frac{(\rho_t-4)(\rho_t-2)\,\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\,\rho_t}},$$
#
# and multiplies the step by $r_t$. While $\rho_t\le5$ (the paper: 4) it does not divide at all. On a gradient of 10:

# %%
for entry in (REGISTRY[key] for key in ("adamax", "nadam", "radam")):
    mine, theirs = (steps_of(make, np.full((8, 1), 10.0))[:, 0] for make in (entry.make, entry.production))
    assert compare(entry.name, mine, theirs)
    print("                ", theirs.round(2))
r = np.array([rectifier(step, 0.999) for step in range(1, 9)])      # 0 where rho is at most 5; you build it
assert compare("r, from step 6", theirs, np.where(r > 0, r, 10))

# %% [markdown]
# RAdam's first five steps are SGD's, ten times lr long. NAdam's soon fall short of lr: torch averages with $\beta_1$
# but corrects by the product of the $\mu_i$. The paper has $\mu_t$ in both.
#
# ## 4. The whole
#
# Fifteen lines, in the paper's order:

# %%
class TinyAdam:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.lr, self.betas, self.eps, self.t = lr, betas, eps, 0
        self.state = {p: dict(exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)) for p in params}

    @torch.no_grad()
    def step(self):
        self.t += 1
        beta1, beta2 = self.betas
        for p, state in self.state.items():
            m, v = state["exp_avg"], state["exp_avg_sq"]
            m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            m_hat = m / (1 - beta1**self.t)
            v_hat = v / (1 - beta2**self.t)
            p.sub_(self.lr * m_hat / (v_hat.sqrt() + self.eps))

# %% [markdown]
# Three Adams now take 100 steps on the same float32 gradients, of sizes 1e-5 to 1: ours, the library's
# (`course_lib.optim.Adam`, which adds parameter groups, AMSGrad and the like) and torch's. We keep $m$, $v$ and the
# parameter.

# %%
scales = 10.0 ** np.arange(-5, 1)
gradients = torch.tensor(np.random.default_rng(3).standard_normal((100, 4, 6)) * scales, dtype=torch.float32)
params = [torch.zeros(4, 6) for _ in range(3)]
runs = [make([p], lr=0.01) for make, p in zip((TinyAdam, Adam, torch.optim.Adam), params)]
log = []
for gradient in gradients:
    for p, run in zip(params, runs):
        p.grad = gradient
        run.step()
        log.append(torch.stack([run.state[p]["exp_avg"], run.state[p]["exp_avg_sq"], p]))
tiny, library, production = torch.stack(log).reshape(100, 3, 3, 4, 6).permute(1, 2, 0, 3, 4)
print("Adam, quantity, step, row, column:", tuple(torch.stack([tiny, library, production]).shape))

# %% [markdown]
# torch computes $\frac{\text{lr}}{1-\beta_1^t}\cdot m\big/\big(\sqrt v/\sqrt{1-\beta_2^t}+\epsilon\big)$, the same
# formula in another order. The *efficient form* folds both corrections into one number,
# $\text{lr}\sqrt{1-\beta_2^t}/(1-\beta_1^t)$; a widespread version of it is upside down.

# %%
(m, v, p), (exp_avg, exp_avg_sq, param) = tiny, production
c1, c2 = (1 - beta ** torch.arange(1, 101, dtype=torch.float64).view(-1, 1, 1) for beta in (0.9, 0.999))
denominator, torch_denominator = (v / c2).sqrt() + 1e-8, exp_avg_sq.sqrt() / c2.sqrt() + 1e-8
step, torch_step = 0.01 * (m / c1) / denominator, -param.double().diff(dim=0)
efficient = 0.01 * (c2.sqrt() / c1) * m / (v.sqrt() + 1e-8 * c2.sqrt())
assert compare("m", m, exp_avg) and compare("v", v, exp_avg_sq) and compare("m_hat", m / c1, exp_avg / c1)
assert compare("v_hat", v / c2, (exp_avg_sq.sqrt() / c2.sqrt()) ** 2)
assert compare("denominator", denominator, torch_denominator)
assert compare("step", step[1:], torch_step) and compare("step, efficient", efficient[1:], torch_step)
assert compare("parameter", p, param) and compare("library, all", library, production)
upside_down = (c1**2 / c2).flatten()
print(f"upside down: {upside_down[0]:.1f} times too long at t = 1, {upside_down[9]:.1f} times at t = 10")

# %% [markdown]
# ## 5. Against production
#
# One step must read $p,g,m,v$ and write $p,m,v$: seven numbers, $7\cdot4=28$ bytes per float32 parameter. The
# arithmetic is a dozen operations, so memory sets the time. A for-loop moves more than 28 bytes, since each operation
# reads and writes its operands again; `foreach` runs each operation over all tensors at once, which saves launches on
# a GPU; `fused` makes one pass. For 7 billion parameters a step must move $28\cdot7=196$ GB.

# %% tags=["nbval-ignore-output"]
shapes = 8 * [(512, 512)]
variants = bench.step_variants(shapes, optimizer_class=torch.optim.Adam, own=Adam)
count = sum(a * b for a, b in shapes)
ends = [variant.__self__.param_groups[0]["params"][0] for variant in variants.values()]
source, target = torch.zeros(2, count, device=ends[0].device)
times = bench.step_times(variants | {"plain copy": lambda: target.copy_(source)}, repeats=5, warmup=1)
assert all(torch.allclose(end, ends[0], atol=1e-6) for end in ends)
print(bench.describe_device())
print(bench.ratio_table(times, base="for-loop"))
for name, seconds in times.items():
    print(f"{name:12} {(8 if name == 'plain copy' else 28) * count / seconds / 1e9:8.1f} GB/s of necessary traffic")

# %% [markdown]
# The copy shows what the memory can do. Compare `fused` with it, not with a data sheet. All four end at the same
# parameters.
#
# Memory, counted from the real optimizers' `state`:

# %%
def state_bytes(optimizer, n=1000):
    param = torch.zeros(n)
    param.grad = torch.ones(n)
    run = optimizer([param], lr=1e-3)
    run.step()
    kept = [s for s in run.state[param].values() if torch.is_tensor(s) and s.shape == param.shape]
    return sum(s.numel() * s.element_size() for s in kept) / n

for entry in (REGISTRY[key] for key in TORCH_KEYS):
    measured = state_bytes(entry.production)
    assert measured == state_bytes(entry.make) == entry.state_bytes_per_param
    print(f"{entry.name:18} {measured:3.0f} bytes per parameter, {7 * measured:3.0f} GB for 7 billion")
mixed = dict(weights=2, gradients=2, master_weights=4, m=4, v=4)
print(f"all of mixed precision: {sum(mixed.values())} bytes per parameter, {7 * sum(mixed.values())} GB for 7 billion")
assert sum(mixed.values()) == 16 == sum(dict(weights=4, gradients=4, m=4, v=4).values())

# %% [markdown]
# So $m$ and $v$ cost 56 GB and the whole model state 112 GB, before any activation. Pure float32 needs 16 bytes too.
# Notebook 10 derives all of it.
#
# ## 6. Turn the knobs
#
# Adam's first hundred steps on one parameter whose gradient is always 1, but for one shock. In section 3.8 a spike
# lengthened the step. Predict before you run: does it here? Then move one slider at a time: a shock at step 1; beta2
# at 0.95; both betas at 0; epsilon at 1.

# %%
from course_lib import widgets

widgets.explore_first_steps(shock=100.0, shock_at=50)

# %% [markdown]
# It shortens it. After 50 steps $\hat v$ is nearly the plain mean of 50 squares, so that the shock counts for a
# fiftieth; after 4,000 steps it counts for a thousandth, $1-\beta_2$, and $\hat v$ is taken by surprise.
#
# ## 7. How it breaks
#
# Six formulas with one mistake each, on a gradient of 1e-5 that turns around after 100 steps:

# %%
b1, b2, eps, n = 0.9, 0.95, 1e-8, np.arange(1, 141)
g = np.where(n <= 100, 1e-5, -1e-5)
m, v = ema(g, b1), ema(g**2, b2)
m_hat, v_hat = m / (1 - b1**n), v / (1 - b2**n)
broken = {
    "correct": m_hat / (np.sqrt(v_hat) + eps),
    "eps inside the root": m_hat / np.sqrt(v_hat + eps),
    "step counter stuck at 1": m / (1 - b1) / (np.sqrt(v / (1 - b2)) + eps),
    "(1 - beta)^t": m / (1 - b1) ** n / (np.sqrt(v / (1 - b2) ** n) + eps),
    "no bias correction": m / (np.sqrt(v) + eps),
    "betas swapped": ema(g, b2) / (1 - b2**n) / (np.sqrt(ema(g**2, b1) / (1 - b1**n)) + eps),
    "moments not stored": (1 - b1) * g / (1 - b1**n) / (np.sqrt((1 - b2) * g**2 / (1 - b2**n)) + eps),
}
print(f"{'step (units of lr) at':24}    t = 1    t = 10   t = 100   steps until it turns")
for name, s in broken.items():
    print(f"{name:24} {s[0]:8.3g}  {s[9]:8.3g}  {s[99]:8.3g}   {np.argmax(s[100:] < 0) + 1:8d}")

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | eps inside the root | update norm below lr for small gradients, while large ones look normal |
# | step counter stuck | perfect first step, then lr is in effect 2.24 ($\sqrt5$) times too large, for good |
# | $(1-\beta)^t$ | perfect first step, then steps a thousand times too long, soon NaN |
# | no correction | short at t = 1 here; with (0.9, 0.999) a loss jump around step 12 |
# | betas swapped | early curve normal; slow to turn, so the loss swings |
# | moments not stored (`m = ...` inside a function) | sign descent: turns at once, noise goes unfiltered |
#
# Two more are mistakes of programming: one tensor shared by all parameters, and a gradient overwritten in place.

# %%
a, b = torch.zeros(1), torch.zeros(1)
a.grad, b.grad = torch.ones(1), -torch.ones(1)
run = TinyAdam([a, b], lr=1.0)
run.state[b] = run.state[a]
run.step()
print(f"shared state: first steps {-a.item():+.2f} and {-b.item():+.2f}, expected +1.00 and -1.00")

p = torch.ones(1)
p.grad = torch.ones(1)
for micro_batch in range(3):
    gradient = p.grad
    gradient.add_(p, alpha=0.1)      # L2 penalty in place: .grad itself has changed
print(f"in place: the norm logged after three uses is {p.grad.norm():.1f}, backward() computed 1.0")

# %% [markdown]
# Shared state: first steps differ from lr, the more the later the parameter. In place: the logged norm depends on
# whether you log before or after `step()`, and accumulated gradients carry the penalty several times.
#
# ## 8. Your turn
#
# In `exercises/04_adam.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `bias_corrected_moment` | one moment, corrected |
# | `efficient_step` | the folded form, with the right epsilon |
# | `adam` | the whole optimizer, guided |
# | `adam_blank` | the same on an empty page, with groups, closures and resume |
# | `adam_state_bytes` | a number: the bytes of a model's optimizer state |
# | `rectifier` | RAdam's $r_t$, and 0 where the step is not adapted |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell after each pair
# proves both.

# %%
from course_lib import questions

questions.show("adam-first-step")
questions.show("adam-uncorrected-peak")

# %% tags=["evidence-adam-first-step", "evidence-adam-uncorrected-peak"]
first = steps_of(torch.optim.Adam, [[1e-6, 1e3]])[0]
assert np.allclose(first, [100 / 101, 1], rtol=1e-9)
k = np.arange(1, 1001)
ratio = (1 - 0.9**k) / np.sqrt(1 - 0.999**k)
assert ratio.argmax() + 1 == 12
print("first steps", first.round(3), "uncorrected at steps 1, 12, 1000:", ratio[[0, 11, 999]].round(2))

# %%
questions.show("adam-warmup-reason")
questions.show("adam-beta2-shock")

# %% tags=["evidence-adam-warmup-reason", "evidence-adam-beta2-shock"]
for beta2 in (0.999, 0.95):
    jump = steps_of(torch.optim.Adam, np.r_[np.ones(6000), np.full(60, 100.0)][:, None], betas=(0.9, beta2))
    assert np.allclose(jump[:6000], 1, atol=1e-6)
    print(f"beta2 = {beta2}: first step {jump[0, 0]:.2f} lr, longest after the jump {jump.max():.1f} lr")

# %%
questions.show("adam-epsilon")
questions.show("adam-step-stuck")

# %% tags=["evidence-adam-epsilon", "evidence-adam-step-stuck"]
steady = steps_of(torch.optim.Adam, np.tile([1e-10, 1e-8, 1e-6, 1e-2], (50, 1)))[-1]
assert np.allclose(steady, [1 / 101, 1 / 2, 100 / 101, 1], rtol=1e-5)
stuck = {beta2: round((1 - beta2) ** 0.5 / 0.1, 3) for beta2 in (0.95, 0.999)}
questions.prove("adam-step-stuck")      # asserts these factors on the code above, and lr on the repaired code
print("steady steps", steady.round(3), "with t stuck at 1:", stuck)

# %% [markdown]
# ## 10. Sources
#
# - Kingma & Ba 2015, *Adam* (1412.6980): Algorithm 1; efficient form and step bound, section 2; correction, section 3;
#   Adamax, section 7.1. Dozat 2016, *Incorporating Nesterov Momentum into Adam* (ICLR workshop).
# - Duchi et al. 2011, AdaGrad (JMLR 12); Tieleman & Hinton 2012, RMSProp (lecture 6e).
# - Reddi et al. 2018, *On the Convergence of Adam and Beyond* (1904.09237).
# - Zhang et al. 2022, *Adam Can Converge Without Any Modification On Update Rules* (2208.09632).
# - Liu et al. 2020, RAdam (1908.03265).
# - Wortsman et al. 2023a on spikes and $\beta_2$ (2304.13013); 2023b on epsilon and scale (2309.14322).
# - beta2 in practice: Brown et al. 2020, GPT-3 (2005.14165); Touvron et al. 2023, Llama 2 (2307.09288); Chowdhery et
#   al. 2022, PaLM (2204.02311).
#
# Contested: why Adam beats SGD on language models (notebook 06); whether the failing example matters in practice; why
# warmup helps (scatter of $\hat v$, or curvature: 2406.09405); small or large $\beta_2$.
