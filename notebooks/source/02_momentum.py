# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Momentum
#
# ## 1. The question
#
# > *What does momentum do, what does 0.9 mean, and how does Nesterov differ?*
#
# Afterwards you can give 0.9 three meanings and derive each, pick momentum and learning rate for a condition number,
# say when momentum buys nothing, translate between the conventions of torch and Keras, and tell what is true of four
# popular sentences about Nesterov.
#
# Know first: notebook 01, the largest stable step $2/\lambda$, the condition number and the noise floor. Time: 45 to
# 60 minutes.
#
# One instrument serves throughout: `walk` hands an optimizer gradients of our choice and records where it goes.

# %%
from itertools import accumulate

import numpy as np
import torch
from torch.optim import SGD

from course_lib import optim, plots
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.problems import valleys


def walk(optimizer, gradient, steps, start=(0.0,), **hyper):
    """Positions (steps + 1, n) in float64; ``gradient(x, t)`` is asked at t = 0, 1, ..."""
    x = torch.tensor(np.array(start, dtype=np.float64))
    run, path = optimizer([x], **hyper), [x.numpy().copy()]
    for t in range(steps):
        x.grad = torch.from_numpy(np.array(gradient(x.numpy(), t), dtype=np.float64))
        run.step()
        path.append(x.numpy().copy())
    return np.stack(path)

# %% [markdown]
# ## 2. The picture
#
# Gradient descent is a walker without memory: at each step it goes down the steepest slope under its feet. In a narrow
# valley that slope points at the opposite wall, and the walker crosses the valley again and again while making little
# way along it. A heavy ball keeps its speed. Pushes to the left and to the right cancel in it; the small push down the
# valley is always the same, and adds up.

# %%
valley = valleys.quadratic(condition=50)
routes = {name: valleys.descend(valley, lambda p: SGD(p, lr=0.038, momentum=mu), 40)
          for name, mu in (("SGD", 0.0), ("SGD with momentum", 0.7))}
plots.show(plots.paths(valley, routes, title="Same learning rate, 40 steps: memory turns zigzag into travel"),
           alt="Contours of a long valley. SGD zigzags across it and ends short of the minimum, a fifth of the way. "
               "With momentum the path swings less and less, runs along the floor and reaches the minimum.")

# %% [markdown]
# ## 3. The derivation
#
# ### 3.1 A sum of gradients
#
# Keep what you summed so far, fade it by $\mu$, add the new gradient, and walk along the result:
#
# $$b_t=\mu\,b_{t-1}+g_t,\qquad x_t=x_{t-1}-\text{lr}\;b_t
# \qquad\Rightarrow\qquad b_t=\sum_{i=1}^{t}\mu^{\,t-i}g_i .$$

# %%
g, weights = np.random.default_rng(0).standard_normal(200), 0.9 ** np.arange(200)[::-1]
steps = -np.diff(walk(SGD, lambda x, t: [g[t]], 200, lr=1.0, momentum=0.9)[:, 0])
assert compare("buffer, unrolled", steps[-1], weights @ g, tol=1e-12)
share, age = weights[-10:].sum() / weights.sum(), weights @ np.arange(200)[::-1] / weights.sum()
print(f"all weights sum to {weights.sum():.3f}; the last 10 gradients hold {share:.0%}; mean age {age:.1f} steps")

# %% [markdown]
# That is what 0.9 means. **Memory**: about $1/(1-\mu)=10$ gradients. **Gain**: a gradient that stays is counted
# $1/(1-\mu)=10$ times. "The buffer is a weighted average of the gradients" forgets the second: in torch it is a
# sum, ten times an average. So on a steady slope lr = 0.01 with momentum 0.9 is lr = 0.1 without, only later:

# %%
plain = walk(SGD, lambda x, t: [1.0], 100, lr=0.1)
heavy = walk(SGD, lambda x, t: [1.0], 100, lr=0.01, momentum=0.9)
print(f"after 100 steps: plain lr 0.1 at {plain[-1, 0]:.2f}, lr 0.01 with momentum 0.9 at {heavy[-1, 0]:.2f}")
assert np.isclose(heavy[-1, 0] - plain[-1, 0], 9 * 0.1, atol=1e-3)      # nine steps behind: the mean age

# %% [markdown]
# $\text{lr}/(1-\mu)$ is the *effective learning rate*. Raise 0.9 to 0.99 with lr left alone, and you have raised it
# tenfold.
#
# ### 3.2 A ball with friction
#
# The other reading is Newton's: mass times acceleration is force minus friction, $m\ddot x=-\nabla f-\gamma\dot x$.
# With time step $h$, and velocities from backward differences,
#
# $$\frac{m}{h^2}\,(x_{t+1}-2x_t+x_{t-1})=-\nabla f(x_t)-\frac{\gamma}{h}\,(x_t-x_{t-1}),$$
#
# and solved for $x_{t+1}$ this is momentum with $\mu=1-\gamma h/m$ and $\text{lr}=h^2/m$ (Qian 1999). One minus
# momentum is friction. On $f=x^2/2$, with mass 4, friction 0.4 and time step 0.2:

# %%
x = [1.0, 0.99]      # at rest, then pushed once
for _ in range(299):
    force = -x[-1] - 0.4 * (x[-1] - x[-2]) / 0.2
    x.append(2 * x[-1] - x[-2] + 0.2**2 / 4 * force)
ball = walk(SGD, lambda x, t: x, 300, start=[1.0], lr=0.2**2 / 4, momentum=1 - 0.4 * 0.2 / 4)
assert compare("ball and SGD", x, ball[:, 0], tol=1e-10)

# %% [markdown]
# A ball overshoots, and with little friction it rings. Physics knows the border case, critical damping; section 3.4
# finds it as $\mu=(1-\sqrt{\text{lr}\,\lambda})^2$, here 0.81:

# %%
rings = {f"momentum {mu}": walk(SGD, lambda x, t: x, 300, start=[1.0], lr=0.01, momentum=mu)[:, 0]
         for mu in (0.0, 0.81, 0.98)}
plots.show(plots.lines(rings, title="No memory creeps, too much rings; in between one value settles fastest",
                       xlabel="step", ylabel="distance x from the minimum", hlines={"minimum": 0}),
           alt="Distance from the minimum against step, lr 0.01, curvature 1. Momentum 0 decays slowly over 300 steps. "
               "0.81 falls to zero within 50 steps without swinging. 0.98 swings through zero several times.")

# %% [markdown]
# In a log, ringing is a loss that falls and rises again and again; a larger $\mu$ makes it last longer. The curve for
# 0.98 comes by the same $x$ again and again, each time with another velocity. "Momentum is memoryless, the state
# depends only on the previous one" is true of the pair $(x,b)$, not of $x$. And when the gradient vanishes, the ball
# rolls on; how far is an exercise.
#
# ### 3.3 Where the learning rate stands
#
# Three conventions are in use:
#
# | | buffer | step | who |
# |---|---|---|---|
# | outside | $b=\mu b+g$ | $\text{lr}\,b$ | torch, TensorFlow 1's MomentumOptimizer |
# | inside | $v=\mu v+\text{lr}\,g$ | $v$ | Polyak 1964, Sutskever et al. 2013, Keras |
# | average | $m=\mu m+(1-\mu)g$ | $\text{lr}'m$ | torch with `dampening` = momentum; the $m$ of Adam |
#
# The third is the first with $\text{lr}'=\text{lr}/(1-\mu)$, up to its start. torch starts the buffer *at* the first
# gradient, not at zero, so dampening begins with the second:

# %%
impulse = -np.diff(walk(SGD, lambda x, t: [float(t == 0)], 5, lr=1.0, momentum=0.9, dampening=0.9)[:, 0])
steady = -np.diff(walk(SGD, lambda x, t: [1.0], 5, lr=1.0, momentum=0.9, dampening=0.9)[:, 0])
print("constant gradient 1:", steady.round(3), "  from zero it would be", (1 - 0.9 ** np.arange(1, 6)).round(3))
print("first gradient only:", impulse.round(3), "  from zero it would be", (0.1 * 0.9 ** np.arange(5)).round(3))
assert np.allclose(steady, 1) and np.allclose(impulse, 0.9 ** np.arange(5))

# %% [markdown]
# That start keeps the average unbiased, without Adam's correction (notebook 04). The price is in the second line: the
# first gradient has ten times the weight that any other has at its age.
#
# Outside and inside give the same path as long as lr is constant. Let lr change, and outside applies today's lr to all
# past gradients, while inside keeps each gradient at the lr of its own day:
#
# $$\text{outside: }\ \text{lr}_t\sum_i\mu^{t-i}g_i\qquad\qquad\text{inside: }\ \sum_i\mu^{t-i}\,\text{lr}_i\,g_i .$$

# %%
t = np.arange(200)
lrs = {"drop": np.where(t < 100, 0.1, 0.01), "warmup": np.minimum(t, 50) * 0.002}
panels, travelled = [], {}
for name, lr in lrs.items():      # constant gradient 1
    outside = lr * np.array(list(accumulate(np.ones(200), lambda b, g: 0.9 * b + g)))
    inside = np.array(list(accumulate(lr, lambda v, rate: 0.9 * v + rate)))
    travelled[name] = np.array([outside[100 * (name == "drop"):].sum(), inside[100 * (name == "drop"):].sum()])
    panels.append(dict(series={"lr outside (torch)": outside, "lr inside (Keras)": inside}, xlabel="step",
                       ylabel="step length", title={"drop": "Drop by 10: the old lr coasts on",
                                                    "warmup": "Warmup: inside lags behind"}[name]))
print(f"after the drop: outside travels {travelled['drop'][0]:.1f}, inside {travelled['drop'][1]:.1f}")
assert np.isclose(np.diff(travelled["drop"])[0], (0.1 - 0.01) * 0.9 / 0.1**2, rtol=1e-3)
plots.show(plots.lines_grid(panels), alt=(
    "Step length for a constant gradient. Left: when lr drops tenfold at step 100, torch's step drops at once and the "
    "inside form decays over some thirty steps. Right: under linear warmup the inside form follows torch's about nine "
    "steps later."))

# %% [markdown]
# After a drop the inside form travels $(\text{lr}_\text{old}-\text{lr}_\text{new})\,\mu/(1-\mu)^2$ further, here 81 new
# steps' worth. The loss curve after a drop therefore bends at once in torch and rounded in Keras. Goyal et al. (2017)
# rescale the inside buffer by $\text{lr}_\text{new}/\text{lr}_\text{old}$ to get torch's behaviour.
#
# ### 3.4 The best momentum for a condition number
#
# On a quadratic each eigenvector of the Hessian goes its own way. With curvature $\lambda$ the gradient is $\lambda x$:
#
# $$\begin{pmatrix}x\\b\end{pmatrix}_{t+1}=\begin{pmatrix}1-\text{lr}\lambda&-\text{lr}\,\mu\\ \lambda&\mu\end{pmatrix}
# \begin{pmatrix}x\\b\end{pmatrix}_{t},\qquad z^2-(1+\mu-\text{lr}\lambda)\,z+\mu=0 .$$
#
# The eigenvalues $z$ have the product $\mu$. While they are complex they are conjugate, so *both* have modulus
# $\sqrt\mu$, whatever the curvature. That holds for $(1-\sqrt\mu)^2<\text{lr}\lambda<(1+\sqrt\mu)^2$:

# %%
def heavy_ball(a, mu):
    """Modulus of the larger root, a = lr * curvature."""
    return max(abs(np.linalg.eigvals([[1 - a, -mu], [a, mu]])))      # b counted in units of 1 / lr

a = np.linspace(0.002, 4, 600)
factor = {f"momentum {mu}": [heavy_ball(one, mu) for one in a] for mu in (0.0, 0.5, 0.9)}
plateau = (a > (1 - 0.9**0.5) ** 2 + 0.01) & (a < (1 + 0.9**0.5) ** 2 - 0.01)
assert np.allclose(np.array(factor["momentum 0.9"])[plateau], 0.9**0.5)
assert heavy_ball(3.79, 0.9) < 1 < heavy_ball(3.81, 0.9)
series = {name: (a, values) for name, values in factor.items()}
plots.show(plots.lines(series, title="With momentum one rate serves many curvatures",
                       xlabel="lr times curvature", ylabel="factor per step", ylim=(0, 1.3), hlines={"limit": 1}),
           alt="Factor per step against lr times curvature. Without momentum a V with its tip at 1, crossing the limit "
               "at 2. With 0.5 a plateau at 0.71, limit at 3. With 0.9 a plateau at 0.95 from nearly 0 to nearly 3.8.")

# %% [markdown]
# A root reaches $-1$ at $\text{lr}\lambda=2(1+\mu)$: the limit rises from 2 to 3.8. Now lay the plateau exactly over
# all curvatures, its left end on $\lambda_{\min}$ and its right end on $\lambda_{\max}$. With
# $\kappa=\lambda_{\max}/\lambda_{\min}$
#
# $$\sqrt\mu=\frac{\sqrt\kappa-1}{\sqrt\kappa+1},\qquad
# \text{lr}=\Big(\frac{2}{\sqrt{\lambda_{\max}}+\sqrt{\lambda_{\min}}}\Big)^2,\qquad\text{error}\sim\sqrt\mu^{\;t}
# \quad\text{(Polyak 1964).}$$
#
# (Here $\mu$ is momentum, so notebook 01's $L$ and $\mu$ are $\lambda_{\max}$ and $\lambda_{\min}$.)
# Notebook 01's best plain step has the factor $(\kappa-1)/(\kappa+1)$. Nearly the same formula, with $\sqrt\kappa$ for
# $\kappa$. Steps to a thousandth of the distance:

# %%
def steps_to(lr, mu, curvatures, target=1e-3):
    x, b, t = np.ones_like(curvatures), 0.0, 0
    while abs(x).max() > target:
        b = mu * b + curvatures * x
        x, t = x - lr * b, t + 1
    return t

for kappa in (1e2, 1e3, 1e4):
    curvatures, root = np.geomspace(1, kappa, 20), kappa**0.5
    plain, best = steps_to(2 / (1 + kappa), 0.0, curvatures), ((root - 1) / (root + 1)) ** 2
    heavy = steps_to((2 / (root + 1)) ** 2, best, curvatures)
    print(f"condition {kappa:6.0f}: {plain:6d} plain, {heavy:3d} with momentum {best:.3f}, ratio {plain / heavy:.0f}")
    assert 0.4 < plain / heavy / root < 0.8

# %% [markdown]
# Momentum mends the condition number, but only to its root. Away from quadratics even that promise fails. Lessard et
# al. (2016) give a function in one variable, strongly convex with curvature between 1 and 25, on which the optimal
# heavy ball circles for ever:

# %%
def slope(x, t=None):
    return np.where(x < 1, 25 * x, np.where(x < 2, x + 24, 25 * x - 24))

circle = walk(SGD, slope, 300, start=[3.3], lr=1 / 9, momentum=4 / 9)[:, 0]      # the optimum for 1 and 25
plain, ahead = (walk(SGD, slope, 300, start=[3.3], lr=1 / 25, momentum=mu, nesterov=mu > 0) for mu in (0.0, 4 / 6))
print("heavy ball ends with", circle[-6:].round(3))
assert np.allclose(circle[-3:], circle[-6:-3]) and abs(circle[-1]) > 0.5 and plain[-1]**2 + ahead[-1]**2 < 1e-18

# %% [markdown]
# Plain descent and Nesterov's rule (section 3.6) arrive; the assertion says so. No tuning of a fixed heavy ball is
# accelerated on all smooth strongly convex functions (Goujaud et al. 2023).
#
# ### 3.5 Momentum and noise
#
# "Momentum damps the noise" is often said. Average the gradients and the *step* is indeed steadier. But is the
# *position*? On $f=\lambda x^2/2$ with gradient noise of standard deviation $\sigma$, $x$ is an autoregression of
# second order, whose variance is known:
#
# $$\operatorname{Var}x=\frac{\text{lr}\,\sigma^2}{\lambda\,(1-\mu)}\cdot\frac{1+\mu}{2(1+\mu)-\text{lr}\lambda}
# \;\approx\;\frac{\text{lr}}{1-\mu}\cdot\frac{\sigma^2}{2\lambda}.$$
#
# For a small lr this is plain SGD's floor at the effective rate. Measured, within 10%:

# %%
noise = np.random.default_rng(1).standard_normal((900, 2000))      # 2,000 runs side by side
loss = {}
for lr, mu in [(0.01, 0.0), (0.1, 0.0), (0.01, 0.9)]:
    x = walk(SGD, lambda x, t: x + noise[t], 900, start=np.full(2000, 5.0), lr=lr, momentum=mu)
    seen = loss[f"lr {lr}, momentum {mu}"] = (x**2).mean(axis=1) / 2
    floor = lr * (1 + mu) / (1 - mu) / (2 * (1 + mu) - lr) / 2
    print(f"lr {lr:4}, momentum {mu}: floor of the loss {floor:.4f}")
    assert abs(seen[-200:].mean() / floor - 1) < 0.1
plots.show(plots.lines(loss, title="Momentum is as fast and as noisy as a ten times larger lr",
                       xlabel="step", ylabel="mean loss", logy=True),
           alt="Mean loss of 2,000 noisy runs, log axis. lr 0.1 and lr 0.01 with momentum 0.9 fall quickly to the same "
               "floor near 0.026; the second oscillates once on the way. Plain lr 0.01 falls ten times more slowly, to "
               "a floor ten times lower.")

# %% [markdown]
# At the same lr momentum *raises* the floor tenfold; at the same effective rate it leaves it where it is. What the
# average saves in noise per step it loses because errors of successive steps now agree.
#
# So momentum is worth something where curvature limits lr, and nothing where noise does. The batch size decides. Let
# twelve curvatures from 0.001 to 1 contribute equally to the loss, with gradient noise of variance
# $4\lambda/\text{batch}$, and follow the exact means of $x^2$, $xb$ and $b^2$ (the noisy quadratic model of Zhang et
# al. 2019). Steps to a tenth of the loss, each with the best of 30 learning rates:

# %%
curvature, batch = np.geomspace(1e-3, 1, 12), 4.0 ** np.arange(8)

def steps_needed(mu):
    lr = 2 * (1 + mu) * np.geomspace(1e-4, 0.98, 30)[:, None]
    xx, xb, bb, needed = np.ones((8, 30, 12)) / curvature, 0.0, 0.0, np.full((8, 30), np.inf)
    for t in range(1, 4000):
        bb = mu**2 * bb + 2 * mu * curvature * xb + curvature**2 * xx + 4 * curvature / batch[:, None, None]
        new = mu * xb + curvature * xx      # E[x b] with the old x and the new b
        xx, xb = xx - 2 * lr * new + lr**2 * bb, new - lr * bb
        needed[((curvature * xx).mean(axis=-1) <= 0.1) & np.isinf(needed)] = t
        if np.isfinite(needed.min(axis=1)).all():
            return needed.min(axis=1)

needed = {f"momentum {mu}": (batch, steps_needed(mu)) for mu in (0.0, 0.9, 0.99)}
gain = needed["momentum 0.0"][1] / needed["momentum 0.9"][1]
print(f"plain steps over steps with momentum 0.9: {gain[0]:.2f} at batch 1, {gain[-1]:.1f} at batch {batch[-1]:.0f}")
assert gain[0] < 1.1 and gain[-1] > 5
plots.show(plots.lines(needed, title="Small batches gain nothing from momentum, large ones a factor", logx=True,
                       logy=True, xlabel="batch size", ylabel="steps to a tenth of the loss"),
           alt="Steps against batch size, both log. At batch 1 the three momenta need about the same 3,400 steps. "
               "Plain SGD then levels off near 130 and momentum 0.99 near 125; momentum 0.9 goes down to about 20.")

# %% [markdown]
# At batch 1 the step is limited by noise and any momentum will do. At large batches the plateau of 3.4 pays, if its
# width fits the condition number: 0.9 suits the 1,000 of this model, 0.99 is far too heavy for it and rings. That is
# the grain of truth in "raise momentum to 0.95 or 0.99 when the batch grows": a larger batch makes it *possible* to use
# a better one. The measured networks of Shallue et al. (2019) follow the same pattern, and Kidambi et al. (2018) prove
# for simple stochastic problems that neither heavy ball nor Nesterov beats plain SGD.
#
# ### 3.6 Nesterov: look first
#
# The ball will coast by $\mu v$ anyway. So take the gradient there, where it is about to be, and not where it stands:
#
# $$v_t=\mu v_{t-1}-\text{lr}\,\nabla f(\theta_{t-1}+\mu v_{t-1}),\qquad \theta_t=\theta_{t-1}+v_t .$$
#
# A training loop computes the gradient at the parameters. torch therefore stores the look-ahead point
# $y_t=\theta_t+\mu v_t$ as the parameter. With $v=-\text{lr}\,b$
#
# $$b_t=\mu b_{t-1}+g_t,\qquad y_t=y_{t-1}-\text{lr}\,(g_t+\mu b_t),\qquad g_t=\nabla f(y_{t-1}):$$
#
# torch's `nesterov=True`. On a function that is not quadratic:

# %%
def bent(x, t=None):      # gradient of log cosh(3 x1) + log cosh(x2)
    return np.array([3.0, 1.0]) * np.tanh(np.array([3.0, 1.0]) * x)

theta, v, thetas, ahead = np.array([1.0, 2.0]), 0.0, [], [np.array([1.0, 2.0])]
for _ in range(60):
    v = 0.9 * v - 0.02 * bent(theta + 0.9 * v)
    theta = theta + v
    thetas.append(theta)
    ahead.append(theta + 0.9 * v)
hyper = dict(start=[1.0, 2.0], lr=0.02, momentum=0.9)
torch_path = walk(SGD, bent, 60, nesterov=True, **hyper)
assert compare("torch, look-ahead", torch_path, ahead, tol=1e-12)
x = torch.tensor([1.0, 2.0], dtype=torch.float64)
run = optim.Nesterov([x], lr=0.02, momentum=0.9)
for wanted in thetas:
    x.grad = torch.from_numpy(bent(x.numpy()))
    run.step()
    assert np.allclose(run.iterate(x), wanted, rtol=0, atol=1e-12)
print("course_lib's iterate() gives theta back at every step: True")

# %% [markdown]
# Two consequences. The loss you log with `nesterov=True` is that of $y$, not of $\theta$. And the equality needs a
# constant lr, as in 3.3.
#
# What does looking ahead change? On a quadratic the equation for $z$ becomes
# $z^2-(1+\mu)(1-\text{lr}\lambda)\,z+\mu(1-\text{lr}\lambda)=0$: the product of the roots is $\mu(1-\text{lr}\lambda)$.
# Friction grows with curvature, so steep directions stop ringing while flat ones keep their momentum. The price is the
# limit: a root reaches $-1$ at $\text{lr}\lambda=(2+2\mu)/(1+2\mu)$.

# %%
def nesterov(a, mu):
    return max(abs(np.roots([1.0, -(1 + mu) * (1 - a), mu * (1 - a)])))

rules = {"plain": (a, abs(1 - a)), "heavy ball, 0.9": (a, factor["momentum 0.9"]),
         "Nesterov, 0.9": (a, [nesterov(one, 0.9) for one in a])}
for name, (_, values) in rules.items():
    print(f"{name:16} largest stable lr times curvature {a[np.flatnonzero(np.array(values) < 1)[-1]]:.2f}")
assert nesterov(3.8 / 2.8 - 1e-6, 0.9) < 1 < nesterov(3.8 / 2.8 + 1e-6, 0.9)
plots.show(plots.lines(rules, title="Nesterov damps steep directions and has the lowest limit",
                       xlabel="lr times curvature", ylabel="factor per step", ylim=(0, 1.3), hlines={"limit": 1}),
           alt="Factor per step against lr times curvature. Heavy ball: a plateau at 0.95 up to 3.8. Nesterov: begins "
               "at the same height, falls to 0 at 1 and shoots up, crossing the limit at 1.36. Plain: a V, limit 2.")

# %% [markdown]
# Nesterov with lr $=1/\lambda_{\max}$ and $\mu=(\sqrt\kappa-1)/(\sqrt\kappa+1)$ shrinks the error in the loss of
# *every* smooth strongly convex function by $1-1/\sqrt\kappa$ per step (Nesterov 2004), where heavy ball may circle.
# One reads "from $O(1/T)$ to $O(1/T^2)$ on strongly convex functions". That is the rate for merely convex ones.
#
# ### 3.7 Nesterov and the difference of gradients
#
# Also popular: "Nesterov corrects momentum by the difference of the last two gradients, since a gradient that grew will
# keep growing." The first half is an identity, if you put the difference in the right place. Let $d_t=g_t+\mu b_t$ be
# torch's step. From $b_t=\mu b_{t-1}+g_t$
#
# $$d_t=b_t+\mu\,(b_t-b_{t-1})\qquad\text{and}\qquad d_t=\mu\,d_{t-1}+\big[g_t+\mu\,(g_t-g_{t-1})\big],\quad g_0=0 .$$
#
# It extrapolates the *buffer* (as TensorFlow 1's documentation says, which calls that an approximation; at constant lr
# it is none); or it is a heavy ball *fed with* extrapolated gradients. Both hold for any sequence of gradients on any
# function, for they are sums and nothing else. Put elsewhere, the difference makes another algorithm:

# %%
def difference_rule(place, gradient):
    x, b, old, path = np.array([1.0, 2.0]), 0.0, 0.0, [np.array([1.0, 2.0])]
    for _ in range(60):
        g = gradient(x)
        b = 0.9 * b + g + (0.9 * (g - old) if place == "fed into the buffer" else 0.0)
        d = {"fed into the buffer": b, "added after the buffer": b + 0.9 * (g - old), "no buffer": g + 0.9 * (g - old)}
        x, old = x - 0.02 * d[place], g
        path.append(x)
    return np.array(path)

def quadratic(x, t=None):
    return np.array([9.0, 1.0]) * x

for place in ("fed into the buffer", "added after the buffer", "no buffer"):
    gaps = [abs(difference_rule(place, f) - walk(SGD, f, 60, nesterov=True, **hyper)).max() for f in (quadratic, bent)]
    print(f"difference {place:23} is Nesterov: {gaps[0] < 1e-12} on the quadratic, {gaps[1] < 1e-12} on log cosh")

# %% [markdown]
# The second half is wrong: nothing is forecast. These $g_t$ are gradients at look-ahead points already. A forecast
# would be to stand at $\theta$ and *replace* the look-ahead gradient by
# $g(\theta_t)+\mu\,(g(\theta_t)-g(\theta_{t-1}))$. As $\theta_t-\theta_{t-1}=v_t$, that prolongs the gradient linearly
# along $v$, which is right where the gradient is linear:

# %%
for name, f in {"quadratic": quadratic, "log cosh": bent}.items():
    y = walk(SGD, f, 60, nesterov=True, **hyper)
    theta = np.vstack([y[:1], y[:-1] - 0.02 * f(y[:-1])])      # theta_t = y_{t-1} - lr g_t
    error = abs(f(theta[1:]) + 0.9 * np.diff(f(theta), axis=0) - f(y[1:])).max()
    print(f"{name:9} the forecast is the look-ahead gradient: {error < 1e-12}")
    assert error < 1e-12 if name == "quadratic" else error > 0.3

# %% [markdown]
# One formula, then: exact bookkeeping at $y$, and at $\theta$ a forecast that holds on quadratics only. Adan (Xie et
# al. 2022) starts from the identity; the sequence it rewrites is $y$. With a changing $\mu$, as in NAdam, the identity
# needs another coefficient.
#
# ### 3.8 What momentum does not do
#
# "Momentum escapes local minima and finds the global one." A ball rolls over small barriers in either direction. Two
# wells, the left one deeper, 401 starting points; which end do they reach?

# %%
wells = dict(gradient=lambda x, t: x**3 - x + 0.1, start=np.linspace(-2, 2, 401))      # (x^2 - 1)^2 / 4 + x / 10
plain, heavy = (walk(SGD, steps=1500, lr=0.05, momentum=mu, **wells)[-1] < 0 for mu in (0.0, 0.9))
print(f"momentum turns better to worse {(plain & ~heavy).sum()} times, worse to better {(~plain & heavy).sum()} times")
steps = -np.diff(walk(SGD, lambda x, t: [1.0, 0.01], 100, start=[0.0, 0.0], lr=1.0, momentum=0.9), axis=0)
print(f"gradients 1 and 0.01: steps {steps[-1].round(3)}, ratio {steps[-1, 0] / steps[-1, 1]:.0f}")
assert min((plain & ~heavy).sum(), (~plain & heavy).sum()) > 10

# %% [markdown]
# Some gain, some lose; no theorem favours the better well. What is proved is speed on ill-conditioned functions, and
# that perturbed descent leaves saddle points (Jin et al. 2017).
#
# The last line is what momentum leaves unsolved. All coordinates share one lr, and a gradient a hundred times smaller
# still means a step a hundred times smaller: $\sqrt\kappa$ instead of $\kappa$ is a better price and not another
# currency. A feature that occurs in one batch of a thousand has its gradient summed with 999 zeros. Its rate should be
# its own. That is notebook 03.
#
# ## 4. The whole
#
# All of torch's SGD, in its order: penalty, buffer, Nesterov, step.

# %%
class TinySGD:
    def __init__(self, params, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        self.params, self.lr, self.weight_decay = list(params), lr, weight_decay
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        self.buffers = {}

    @torch.no_grad()
    def step(self):
        for p in self.params:
            g = p.grad + self.weight_decay * p
            if p not in self.buffers:
                self.buffers[p] = g.clone()      # the first gradient, not dampened
            else:
                self.buffers[p].mul_(self.momentum).add_(g, alpha=1 - self.dampening)
            b = self.buffers[p]
            p.sub_(self.lr * (g + self.momentum * b if self.nesterov else b))

# %% [markdown]
# One hundred steps beside torch's and the library's, in float32; buffer and parameter of every step are kept:

# %%
gradients = torch.tensor(np.random.default_rng(3).standard_normal((100, 4, 6)), dtype=torch.float32)
cases = {"momentum": dict(momentum=0.9), "dampening": dict(momentum=0.9, dampening=0.9),
         "penalty": dict(momentum=0.9, weight_decay=0.1), "nesterov": dict(momentum=0.9, nesterov=True)}
for name, hyper in cases.items():
    params = [torch.ones(4, 6) for _ in range(3)]
    runs = [make([p], lr=0.1, **hyper) for make, p in zip((TinySGD, optim.SGD, SGD), params)]
    log = []
    for gradient in gradients:
        for p, run in zip(params, runs):
            p.grad = gradient
            run.step()
        others = [run.state[p]["momentum_buffer"] for p, run in zip(params[1:], runs[1:])]
        log.append(torch.stack([runs[0].buffers[params[0]], *others, *params]))
    tiny_b, library_b, torch_b, tiny_p, library_p, torch_p = torch.stack(log).unbind(1)
    assert compare(f"{name}: b", tiny_b, torch_b) and compare(f"{name}: p", tiny_p, torch_p)
    assert compare("library: b, p", torch.stack([library_b, library_p]), torch.stack([torch_b, torch_p]))

# %% [markdown]
# ## 5. Against production
#
# A step reads $p,b,g$ and writes $p,b$: five numbers, 20 bytes per float32 parameter, where Adam moves 28. The state is
# the buffer, 4 bytes per parameter, whatever the flags; plain SGD has none and Adam has 8. A table with "Adam 12,
# momentum 4" counts a float32 master copy for one and not for the other; with it they are 12 and 8.

# %% tags=["nbval-ignore-output"]
shapes = 8 * [(512, 512)]
variants = bench.step_variants(shapes, optimizer_class=SGD, own=optim.SGD, lr=1e-3, momentum=0.9)
count = sum(a * b for a, b in shapes)
assert optim.REGISTRY["momentum"].state_bytes_per_param == optim.REGISTRY["nesterov"].state_bytes_per_param == 4
ends = [variant.__self__.param_groups[0]["params"][0] for variant in variants.values()]
source, target = torch.zeros(2, count, device=ends[0].device)
times = bench.step_times(variants | {"plain copy": lambda: target.copy_(source)}, repeats=10, warmup=2)
assert all(torch.allclose(end, ends[0], atol=1e-6) for end in ends)
print(bench.describe_device())
print(bench.ratio_table(times, base="for-loop"))
for name, seconds in times.items():
    print(f"{name:12} {(8 if name == 'plain copy' else 20) * count / seconds / 1e9:8.1f} GB/s of necessary traffic")

# %% [markdown]
# The copy shows what the memory can do; compare `fused` with it. The other ways move more than the necessary 20 bytes.
#
# ## 6. Turn the knobs
#
# Predict first: which momentum is best for condition number 100 (3.4)? At which lr does each rule leave the picture?

# %%
from course_lib import widgets

widgets.explore_valley(["momentum", "nesterov", "sgd"], lr=0.018, momentum=0.7, condition=100.0, steps=60)

# %% [markdown]
# ## 7. How it breaks
#
# **The buffer is the gradient.** Without `clone()` the first buffer *is* `p.grad`. If gradients are zeroed in place,
# the next `backward()` writes into it, and memory is lost. With `set_to_none=True`, torch's default, each gradient is a
# new tensor and the bug sleeps:

# %%
def aliased(set_to_none):
    p, buffer, seen = torch.zeros(1, requires_grad=True), None, []
    for _ in range(5):
        SGD([p]).zero_grad(set_to_none)
        p.sum().backward()
        with torch.no_grad():
            buffer = p.grad if buffer is None else buffer.mul_(0.9).add_(p.grad)
        seen.append(round(buffer.item(), 3))
    return seen

print("set_to_none=True: ", aliased(True))
print("set_to_none=False:", aliased(False))

# %% [markdown]
# Stuck at 1.8 times the gradient for ever, where 10 would be right. Five mistakes of use:

# %%
ratio = {mu: (walk(SGD, lambda x, t: x + noise[t], 900, start=np.zeros(2000), lr=0.01, momentum=mu)[-200:] ** 2).mean()
         for mu in (0.9, 0.99)}
print(f"0.9 to 0.99, lr kept:    noise floor between 8 and 12 times higher: {8 < ratio[0.99] / ratio[0.9] < 12}")
ends = [abs(walk(SGD, lambda x, t: x, 200, start=[1.0], lr=3.0, momentum=0.9, nesterov=flag)[-1, 0])
        for flag in (False, True)]
print(f"lr * curvature = 3:      heavy ball within 0.01: {ends[0] < 0.01}; nesterov=True beyond 1e9: {ends[1] > 1e9}")
left = [walk(SGD, lambda x, t: 0 * x, 1000, start=[1.0], lr=0.1, momentum=mu, weight_decay=1e-3)[-1, 0]
        for mu in (0.0, 0.9)]
print(f"penalty in the gradient: of a weight {left[0]:.2f} is left without momentum, {left[1]:.2f} with 0.9")
steps = -np.diff(walk(SGD, lambda x, t: [1.0], 30, lr=1.0, momentum=0.9)[:, 0])
print(f"buffer lost on resume:   step 1: {steps[0]:.0f}, step 10: {steps[9]:.1f}; {(10 - steps).sum():.0f} lr lost")
turned = -np.diff(walk(SGD, lambda x, t: [-1.0 if t < 200 else 1.0], 260, lr=1.0, momentum=0.9)[:, 0])[200:]
print(f"old buffer, new task:    {np.argmax(turned > 0)} steps the wrong way, {-turned[turned < 0].sum():.0f} lr far")
assert 8 < ratio[0.99] / ratio[0.9] < 12 and ends[0] < 0.01 and ends[1] > 1e9 and left[1] < 0.4 < 0.9 < left[0]

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | buffer aliases `p.grad` | first step right, update norm then constant; momentum has no effect beyond a larger lr |
# | momentum raised, lr kept | loss a plateau higher or NaN, as after a tenfold lr |
# | `nesterov=True` at the heavy ball's limit | loss alternates and explodes within tens of steps |
# | penalty with momentum | weights shrink as if `weight_decay` were divided by $1-\mu$; notebook 05 decouples |
# | buffer lost on resume | update norm drops tenfold and recovers over tens of steps: harmless once, not at every restart |
# | old buffer, new task or larger lr | loss rises in the first steps of fine-tuning |
# | average form with a sum's lr | ten times too slow; a tenfold lr "fixes" it |
#
# So a resumed run restores the buffer, and a new task starts without one.
#
# ## 8. Your turn
#
# In `exercises/02_momentum.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `momentum` | SGD with momentum, dampening and penalty, guided |
# | `nesterov` | torch's form of Nesterov |
# | `nesterov_lookahead` | the original form, from its formula |
# | `optimal_momentum` | lr, momentum and factor for given curvatures |
# | `two_conventions` | lr outside and inside, under any schedule |
# | `momentum_bug` | what is wrong in a colleague's SGD |
# | `coasting_distance` | a number: how far the ball rolls on |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("momentum-meaning")
questions.show("momentum-conventions")

# %% tags=["evidence-momentum-meaning", "evidence-momentum-conventions"]
settled = -np.diff(walk(SGD, lambda x, t: [1.0], 300, lr=0.01, momentum=0.9)[:, 0])[-1]
share = (0.9 ** np.arange(10)).sum() / 10
further = travelled["drop"][1] - travelled["drop"][0]
assert np.isclose(settled, 0.1) and round(share, 2) == 0.65 and np.isclose(further, 8.1, rtol=1e-3)
print(f"step {settled:.2f} at lr 0.01; last ten: {share:.0%}; after a drop the inside form goes {further:.1f} further")

# %%
questions.show("momentum-optimal")
questions.show("momentum-noise")

# %% tags=["evidence-momentum-optimal", "evidence-momentum-noise"]
h, lr, mu = np.geomspace(1, 100, 50), (2 / 11) ** 2, (9 / 11) ** 2
assert np.allclose([heavy_ball(lr * one, mu) for one in h], 9 / 11, atol=1e-6)
floors = [loss[f"lr {rate}, momentum {m}"][-200:].mean() for rate, m in ((0.01, 0.0), (0.01, 0.9), (0.1, 0.0))]
assert np.allclose(floors, [0.0025, 0.0251, 0.0263], rtol=0.1)
print(f"steps to a thousandth: {steps_to(2 / 101, 0.0, h)} plain, {steps_to(lr, mu, h)} with momentum {mu:.3f}")

# %%
questions.show("momentum-nesterov-torch")
questions.show("momentum-nesterov-difference")

# %% tags=["evidence-momentum-nesterov-torch", "evidence-momentum-nesterov-difference"]
noise = np.random.default_rng(5).standard_normal(501) * (np.arange(501) > 0)      # g_0 = 0, then pure noise
fed = noise[1:] + 0.9 * np.diff(noise)
d = -np.diff(walk(SGD, lambda x, t: [noise[t + 1]], 500, lr=1.0, momentum=0.9, nesterov=True)[:, 0])
ball = -np.diff(walk(SGD, lambda x, t: [fed[t]], 500, lr=1.0, momentum=0.9)[:, 0])
assert np.allclose(d, ball, atol=1e-10) and np.allclose(torch_path, ahead, atol=1e-12)
print("the identity holds on pure noise, where nothing can be forecast; torch's path is that of the look-ahead point")

# %% [markdown]
# ## 10. Sources
#
# - Polyak 1964, *Some methods of speeding up the convergence of iteration methods*: heavy ball and its best tuning.
# - Nesterov 1983; Nesterov 2004, *Introductory Lectures on Convex Optimization*, section 2.2.
# - Qian 1999, *On the momentum term in gradient descent learning algorithms*: the discretised ball.
# - Sutskever et al. 2013 (ICML), equations 3 and 4; Bengio et al. 2012, section 3.5, change of variables (1212.0901).
# - Lessard et al. 2016 (1408.3595); the circling heavy ball; Goujaud et al. 2023 (2307.11291).
# - Goyal et al. 2017, momentum correction (1706.02677), section 3.
# - Kidambi et al. 2018 (1803.05591); Zhang et al. 2019, the noisy quadratic model (1907.04164); Shallue et al. 2019
#   (1811.03600).
# - Xie et al. 2022, Adan (2208.06677). Jin et al. 2017 (1703.00887).
# - Documentation: `torch.optim.SGD`, `keras.optimizers.SGD`, `tf.compat.v1.train.MomentumOptimizer`.
#
# Contested: whether momentum helps generalisation or only speed; whether it helps stochastic training beyond what a
# larger batch allows. Our batch figure is a model with known curvatures, not a network.
