# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradient descent
#
# ## 1. The question
#
# > *What sets the learning rate of gradient descent, and why does mini-batch SGD work at all?*
#
# Afterwards you can derive the largest stable step and the best one, say how many steps a badly conditioned problem
# takes, predict the floor at which noise stops you and what lowers it, and accumulate gradients without the mistake
# that production code made until 2024. You need derivatives, eigenvalues and a little PyTorch. Reading takes 45 to 60
# minutes; the exercises come on top.
#
# One instrument serves the first half: `descend` runs torch's SGD on a loss and records where it goes.

# %%
import numpy as np
import torch
import torch.nn.functional as F

from course_lib import plots
from course_lib.compare import compare
from course_lib.kernels import bench
from course_lib.optim import SGD
from course_lib.problems import digits
from course_lib.problems.chebyshev import tanh_fit
from course_lib.problems.sharpness import sharpness
from course_lib.problems.valleys import quadratic


def descend(loss, start, lr, steps, every=1):
    """The points that torch.optim.SGD visits, every so many steps: float64 (steps // every + 1, n)."""
    point = torch.as_tensor(start, dtype=torch.float64).clone().requires_grad_()
    run, path = torch.optim.SGD([point], lr=lr), [point.detach().clone()]
    for step in range(1, steps + 1):
        run.zero_grad()
        loss(point).backward()
        run.step()
        if step % every == 0:
            path.append(point.detach().clone())
    return torch.stack(path).numpy()

# %% [markdown]
# ## 2. The picture
#
# A hiker in fog wants to reach the lowest point of a gorge. All she feels is the slope under her feet, and her rule is
# simple: step downhill, the farther the steeper. The walls are steep and the floor is nearly level. The walls forbid
# long strides, since she would land higher on the other side. The floor, where she must actually go, then moves her by
# inches:

# %%
gorge = quadratic(20.0)      # curvature 1 along the floor, 20 across it
strides = {f"lr = {lr:g}": descend(gorge.function, gorge.start, lr, 25) for lr in (0.02, 0.095, 0.105)}
plots.show(plots.paths(gorge, strides, title="The walls limit the stride, the floor sets the time"), alt=(
    "Three paths of 25 steps in a long valley. lr 0.02 slides to the floor and then covers two fifths of it. lr 0.095 "
    "jumps from wall to wall, ever closer, and nearly arrives. lr 0.105 lands higher at each jump and leaves."))
assert strides["lr = 0.02"][-1, 0] < -5 < -1 < strides["lr = 0.095"][-1, 0] and abs(strides["lr = 0.105"][-1, 1]) > 3

# %% [markdown]
# How long may a stride be, how long should it be, and what if the slope is only an estimate from a few measurements?
# These three are the whole notebook.
#
# ## 3. The derivation
#
# ### 3.1 What stops a step
#
# Write $g$ for the gradient and $H$ for the Hessian, the matrix of second derivatives. After
# $x\leftarrow x-\text{lr}\,g$,
#
# $$f(x-\text{lr}\,g)\approx f(x)-\text{lr}\,\lVert g\rVert^2+\tfrac12\,\text{lr}^2\,g^\top Hg .$$
#
# The first-order term says: the larger lr, the better. Only curvature objects. If no curvature exceeds $L$, that is, if
# no eigenvalue of $H$ does, anywhere, then $g^\top Hg\le L\lVert g\rVert^2$ and
#
# $$f(x-\text{lr}\,g)\le f(x)-\text{lr}\left(1-\tfrac12\,\text{lr}\,L\right)\lVert g\rVert^2 .$$
#
# This *descent lemma* guarantees progress for every $\text{lr}<2/L$, convex or not, and most of it at $1/L$. On one
# parabola $f=\tfrac12hx^2$ it is exact: $x\leftarrow(1-\text{lr}\,h)\,x$. Twenty steps from $x=1$ with $h=4$:

# %%
for share in (0.5, 1.0, 1.5, 1.9, 2.0, 2.1):
    end = descend(lambda x: 2 * x.square().sum(), [1.0], share / 4, 20)[-1, 0]
    print(f"lr * h = {share}: factor per step {1 - share:+.1f}, after 20 steps {end:+.4f}")
    assert np.isclose(end, (1 - share) ** 20)

# %% [markdown]
# Up to 1 it creeps in from one side; between 1 and 2 it jumps across and still gets closer; at 2 it jumps to and fro
# for ever; beyond 2 it grows.
#
# ### 3.2 Eigenvalue by eigenvalue
#
# In many dimensions, near a minimum at 0, $f=\tfrac12x^\top Hx$ and $x_t=(I-\text{lr}\,H)^t\,x_0$. Along the
# eigenvectors of $H$ the components do not know of each other. Each is a parabola of its own:
#
# $$c_i\leftarrow(1-\text{lr}\,h_i)\,c_i .$$

# %%
h = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
axes = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]      # eigenvectors in its columns
H = torch.from_numpy(axes * h @ axes.T)
t, lr = np.arange(41)[:, None], 0.15
path = descend(lambda x: x @ H @ x / 2, axes.sum(axis=1), lr, 40)             # starts with every component 1
assert compare("components", path @ axes, (1 - lr * h) ** t, tol=1e-12)

# %% [markdown]
# All of them shrink if $|1-\text{lr}\,h_i|<1$ for every $i$, so if $\text{lr}<2/L$ with $L$ the *largest* eigenvalue.
# One direction out of five, or out of seven billion, sets the limit for all. Just below, at and above:

# %%
paths = {f"{x} x 2/L": descend(lambda c: c @ H @ c / 2, axes.sum(axis=1), x * 2 / 10, 300) for x in (0.98, 1.0, 1.02)}
distance = {name: np.linalg.norm(path, axis=1) for name, path in paths.items()}
below, at, above = (distance[name] for name in paths)
u, v = np.diff(paths["1.02 x 2/L"][-3:], axis=0)
print(f"at the end: {below[-1]:.4f}, {at[-1]:.4f}, {above[-1]:,.0f}; the third fell to {above.min():.2f} first")
print(f"above 2/L, each step undoes the last: cosine {u @ v / np.linalg.norm(u) / np.linalg.norm(v):.2f}")

# %%
plots.show(plots.lines(distance, title="Two per cent decide between convergence and divergence", logy=True,
                       xlabel="step", ylabel="distance to the minimum"), alt=(
    "Distance to the minimum over 300 steps, logarithmic. Two per cent below 2/L it falls below 0.01, at 2/L it stays "
    "at 1, two per cent above it falls for a few steps and then grows exponentially past 100,000."))
assert below[-1] < 0.01 and abs(at[-1] - 1) < 0.01 and above[-1] > 1e5 and above.min() < above[0]

# %% [markdown]
# Two common sentences fail here. *"In flat regions SGD oscillates"*: oscillation belongs to the steep directions, where
# $\text{lr}\,h>1$; flat ones are merely slow. *"The loss fell at first, so the rate is fine"*: above $2/L$ it falls
# too, until the one unstable component, small at first, has outgrown the others.
#
# ### 3.3 Conditioning
#
# Let the eigenvalues lie between $\mu$ and $L$. The slowest component shrinks by $\max_i|1-\text{lr}\,h_i|$, and only
# the two ends matter. A larger lr helps the flat end and hurts the steep one, so the best constant lr makes them equal,
# $1-\text{lr}\,\mu=\text{lr}\,L-1$:
#
# $$\text{lr}^*=\frac{2}{L+\mu},\qquad\text{factor per step}=\frac{L-\mu}{L+\mu}=\frac{\kappa-1}{\kappa+1},
# \qquad\kappa=\frac L\mu .$$
#
# For large $\kappa$ the factor is about $1-2/\kappa$, so the number of steps is proportional to the condition number
# $\kappa$. We measure both:

# %%
paths = {k: descend(quadratic(k).function, (1.0, 1.0), 2 / (k + 1), 7 * k) for k in (10, 30, 100, 300)}
steps = {k: int(np.argmax(abs(path).max(axis=1) < 1e-6)) for k, path in paths.items()}
for kappa, count in steps.items():
    print(f"kappa = {kappa:3}: {count:4} steps to a millionth, {count / kappa:.2f} kappa")

# %%
lrs = np.linspace(0.01, 0.22, 211)
ends = {"flat end, curvature 1": abs(1 - lrs), "steep end, curvature 10": abs(1 - 10 * lrs)}
worst = np.maximum(*ends.values())
assert compare("best lr, factor", [lrs[worst.argmin()], worst.min()], [2 / 11, 9 / 11], tol=2e-3)
plots.show(plots.lines_grid([
    dict(series={name: (lrs, y) for name, y in ends.items()}, title="The best lr balances the two ends", xlabel="lr",
         ylabel="|factor per step|", ylim=(0, 1.2), vlines={"2/(L+mu)": 2 / 11}, hlines={"1": 1.0}),
    dict(series={"steps": (list(steps), list(steps.values()))}, title="Steps grow like kappa", logx=True, logy=True,
         xlabel="condition number kappa", ylabel="steps to a millionth")]), alt=(
    "Left: |factor per step| against lr. The flat end falls slowly from 1; the steep end falls to 0 at lr 0.1 and "
    "rises again; they cross at 2/11, at 0.82, just before the steep end passes 1 at lr 0.2. Right: steps to a "
    "millionth against the condition number, both logarithmic: a straight line of slope one."))

# %% [markdown]
# The best constant step lies *just below the cliff*: $2/(L+\mu)$ against $2/L$. Nobody knows $\mu$, which is why
# practice says "raise lr until it breaks, then take a little less". How bad is real data? For least squares,
# $H=X^\top X/n$. On 1,797 images of digits from scikit-learn, with pixels between 0 and 1 and a constant feature:

# %%
data = digits.load(torch.float64, held_out=0)
pixels, labels, n = data.images.numpy(), data.labels.numpy(), len(data.labels)
Y, lit = np.eye(10)[labels], pixels[:, pixels.any(axis=0)]      # three pixels are dark in every image
X, Z = (np.hstack([A, np.ones((n, 1))]) for A in (lit, (lit - lit.mean(axis=0)) / lit.std(axis=0)))
for name, A in {"pixels": X, "standardised": Z}.items():      # H has A's singular values squared, over n
    print(f"{name:12} {A.shape}: L = {np.linalg.norm(A, 2) ** 2 / n:5.2f}, kappa = {np.linalg.cond(A) ** 2:.3g}")

# %% [markdown]
# Millions of steps, if one wanted all 62 directions. (One rarely does: flat directions move the loss little.) Nearly
# all of it was scale: some pixels at the edge are hardly ever lit. Subtract each pixel's mean, divide by its standard
# deviation, and $\kappa$ is 146. That is why one standardises inputs. Inside a network one cannot, and two other ways
# remain: get along better with a large $\kappa$ (notebook 02), or scale each parameter's step (notebook 03).
#
# ### 3.4 A network's L is not given
#
# "Then compute $L$ and choose $\text{lr}<2/L$." For a network, $H$ changes as it trains. We can watch its largest
# eigenvalue, called *sharpness*, without writing $H$ down: `sharpness` needs only products $Hv$, at the price of two
# gradients each (you build it in the exercises). A tanh network with 5,251 parameters, all data in every step, so that
# nothing is random; two learning rates:

# %%
loss, start = tanh_fit()
assert len(start) == 5251
watched, runs = range(0, 3001, 250), {lr: descend(loss, start, lr, 3000, every=10) for lr in (0.1, 0.05)}
ratio, losses = {}, {}
for lr, points in runs.items():
    points = torch.from_numpy(points)
    ratio[f"lr = {lr:g}"] = [sharpness(loss, points[step // 10]) * lr / 2 for step in watched]
    losses[f"lr = {lr:g}"] = [loss(point).item() for point in points]
for name, r in ratio.items():
    print(f"{name}: sharpness * lr / 2 starts below 0.7: {r[0] < 0.7}; stays within 0.95 .. 1.05 in the last third: "
          f"{all(abs(x - 1) < 0.05 for x in r[-5:])}; loss falls 20-fold: {losses[name][-1] < losses[name][0] / 20}")
    assert r[0] < 0.7 and all(abs(x - 1) < 0.05 for x in r[-5:]) and losses[name][-1] < losses[name][0] / 20

# %%
steps = np.arange(0, 3001, 10)
plots.show(plots.lines_grid([
    dict(series={name: (list(watched), r) for name, r in ratio.items()}, title="Sharpness climbs to 2/lr and stays",
         xlabel="step", ylabel="sharpness x lr / 2", hlines={"1": 1.0}, ylim=(0, 1.4)),
    dict(series={name: (steps, y) for name, y in losses.items()}, title="The loss falls all the same",
         logy=True, xlabel="step", ylabel="loss")]),
    alt="Left: sharpness times lr over two, for two learning rates. Both rise from below 0.7, the larger rate beyond 1 "
        "for a while, and from step 2,000 on both stay at 1. Right: both losses fall more than 20-fold in 3,000 steps, "
        "with spikes on the way. Each run moves to where its own lr is just about stable.")

# %% [markdown]
# This is the *edge of stability* (Cohen et al. 2021). The curvature at the start would have allowed a larger lr; it
# grew until $\text{lr}=2/L$ held, for *both* rates, and stayed. Beyond the edge the steep component grows as in 3.2,
# but here growth leads to places of lower curvature, which stops it (Damian et al. 2023). So $\text{lr}<2/L$ tells you
# why a run oscillates; it is no recipe for choosing lr, for lr chooses $L$. A loss that rises now and then while it
# falls over long stretches is no bug here. It is seen in full-batch training of small and middle-sized networks.
# Mini-batches bring noise of their own and keep the sharpness of the full loss lower (Andreyev & Beneventano 2024).
#
# ### 3.5 Batch, stochastic, mini-batch
#
# The loss is a mean over $n$ examples, and so is the gradient. *Batch* gradient descent uses all $n$, *stochastic*
# gradient descent one, *mini-batch* a random $B$. In practice "SGD" means the last. (`torch.optim.SGD` itself contains
# nothing random: it takes whatever gradient you give it.) A random mini-batch has the right gradient *on average*. For
# $B$ drawn with replacement, the variance of a mean is that of one over $B$; without replacement it is smaller still:
#
# $$\mathbb E[g_B]=g,\qquad \mathbb E\lVert g_B-g\rVert^2=\frac{\operatorname{tr}\Sigma}{B}
# \quad\Big(\times\,\frac{n-B}{n-1}\ \text{without replacement}\Big).$$
#
# We measure it for softmax regression on the digits, where the gradient of an example is simply $x\,(p-y)^\top$:

# %%
def probabilities(W, X):
    e = np.exp(X @ W - (X @ W).max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def example_gradients(W):
    return (X[:, :, None] * (probabilities(W, X) - Y)[:, None, :]).reshape(len(X), -1)

G, rng = example_gradients(np.zeros((62, 10))), np.random.default_rng(1)
g, trace = G.mean(axis=0), ((G - G.mean(axis=0)) ** 2).sum(axis=1).mean()
print("one gradient per example:", G.shape, "\n     B   with: B * error / trace   without   (n - B) / (n - 1)")
for B in (1, 8, 64, 512, n):
    picks = [(rng.integers(n, size=B), rng.permutation(n)[:B]) for _ in range(300)]
    seen = np.array([[((G[rows].mean(axis=0) - g) ** 2).sum() for rows in pair] for pair in picks]).mean(axis=0)
    print(f"{B:6} {B * seen[0] / trace:22.2f} {B * seen[1] / trace:9.2f} {(n - B) / (n - 1):14.2f}")
    assert abs(B * seen[0] / trace - 1) < 0.15 and abs(B * seen[1] / trace - (n - B) / (n - 1)) < 0.15

# %% [markdown]
# The error is the *root* of the variance: a gradient ten times as exact costs a hundred times as many examples. That is
# the economic case for small batches: the first examples of a batch tell the most, every further one less. For $B\ll n$
# the two ways of drawing do not differ *within* a step. They do differ over an epoch: without replacement (a fresh
# shuffle per epoch) the errors of its steps largely cancel, and it converges faster (Mishchenko et al. 2020). It is
# what data loaders do.
#
# ### 3.6 The floor
#
# Now let every gradient carry noise: $x\leftarrow x-\text{lr}\,(hx+\sigma z)$, $z$ of mean 0 and variance 1, fresh each
# step. Noise and $x$ are independent, so their variances add, and in the long run $V_{t+1}=V_t=V$:
#
# $$V=(1-\text{lr}\,h)^2V+\text{lr}^2\sigma^2\qquad\Rightarrow\qquad
# V=\frac{\text{lr}\;\sigma^2}{h\,(2-\text{lr}\,h)}\approx\frac{\text{lr}\,\sigma^2}{2h}.$$

# %%
def noisy_descent(lrs, h=2.0, sigma=1.0, start=3.0, chains=4000, seed=2):
    """Mean squared distance from the minimum after each step, over independent chains; one lr per step."""
    rng, x, squares = np.random.default_rng(seed), np.full(chains, start), []
    for lr in lrs:
        x = x - lr * (h * x + sigma * rng.standard_normal(chains))
        squares.append((x**2).mean())
    return np.array(squares)

def floor(lr, h=2.0, sigma=1.0):
    return lr * sigma**2 / (h * (2 - lr * h))

for lr in (0.05, 0.2, 0.8):
    measured = noisy_descent(np.full(1000, lr))[300:].mean()
    print(f"lr = {lr:4}: variance {measured:.4f}, formula {floor(lr):.4f}")
    assert np.isclose(measured, floor(lr), rtol=0.02)

# %% [markdown]
# So constant-rate SGD does not converge. It falls quickly to a floor and rattles there. *"With a small enough learning
# rate SGD converges like batch gradient descent"* is not true of any constant rate: smaller means lower, later. There
# are two ways down. Halve lr, or double the batch, which halves $\sigma^2$:

# %%
ways = {"lr 0.1": (0.1, 1.0), "lr 0.05": (0.05, 1.0), "lr 0.1, batch x 2": (0.1, 0.5**0.5)}
curves = {name: noisy_descent(np.full(120, lr), sigma=sigma, start=10) for name, (lr, sigma) in ways.items()}
floors = [floor(lr, sigma=sigma) for lr, sigma in ways.values()]
plots.show(plots.lines(curves, title="Half the rate or twice the batch: one floor, two ways down", logy=True,
                       xlabel="step", ylabel="mean squared distance", hlines={"floor of lr 0.1": floors[0]}),
           alt="Mean squared distance over 120 steps, from 100. lr 0.1 falls within 20 steps to 0.03 and stays. lr "
               "0.05 takes twice as long and ends at half of that. lr 0.1 with twice the batch falls as fast as the "
               "first and ends as low as the second.")
arrival = {name: int(np.argmax(y < 2 * floors[0])) for name, y in curves.items()}
print("steps until twice the first floor:", arrival, "\nfloors:", np.round(floors, 4))
assert all(np.isclose(y[60:].mean(), f, rtol=0.15) for y, f in zip(curves.values(), floors))

# %% [markdown]
# The batch buys the floor without the wait, but every step costs twice as much. Small lr and large batch are two
# currencies for one thing, $\text{lr}\,\sigma^2/B$.
#
# ### 3.7 Letting lr decay
#
# Begin with a large lr and lower it: fast first, exact later. How fast may it fall? Robbins & Monro (1951) ask for
#
# $$\sum_t\text{lr}_t=\infty\quad\text{(you can reach any place)},\qquad
# \sum_t\text{lr}_t^2<\infty\quad\text{(the noise dies out)}.$$
#
# On the parabola with $h=1$, $\sigma=1$, starting at 10:

# %%
k = np.arange(1, 3001)
rates = {"constant 0.5": 0.5 * k**0, "1/t": 1 / k, "0.5/sqrt(t)": 0.5 / k**0.5, "0.2/t": 0.2 / k, "0.5/t^2": 0.5 / k**2}
rms = {name: np.sqrt(noisy_descent(lrs, h=1.0, start=10, chains=500)) for name, lrs in rates.items()}
print("after 3,000 steps:", {name: round(float(y[-1]), 2) for name, y in rms.items()})
plots.show(plots.lines(rms, title="Constant stays on its floor, 1/t converges, 1/t^2 never arrives", logx=True,
                       logy=True, xlabel="step", ylabel="RMS distance to the minimum"), alt=(
    "Root mean square distance over 3,000 steps, both axes logarithmic, for five schedules. Constant 0.5 falls to "
    "about 0.6 and stays. 1/t falls on a straight line to 0.02, 0.5 over root t more slowly to 0.07. 0.2/t is still "
    "at 1.7. 0.5 over t squared stops at 3.6 after ten steps."))
assert rms["1/t"][-1] < 0.03 < rms["0.5/sqrt(t)"][-1] < 0.1 and rms["0.2/t"][-1] > 1 and rms["0.5/t^2"][-1] > 3

# %% [markdown]
# $1/t^2$ breaks the first condition: all its steps together do not span the distance, and it stops short with the
# gradient still large. $1/\sqrt t$ breaks the second and converges all the same, since its floor sinks with it; the
# conditions are sufficient here, not necessary. $1/t$ gives the best possible order, but only with the right constant:
# $c/t$ with $c\,h<\tfrac12$ is far slower (0.2/t). You do not know $h$, so recipes hold a constant rate long and then
# lower it (notebook 07).
#
# ### 3.8 What a mini-batch costs and what it buys
#
# The fair comparison gives each method the same number of *examples*. Softmax regression, four passes over the digits,
# four rates each, a factor of two apart:

# %%
def fit(B, lr, epochs=4, seed=0):
    """Mini-batch SGD on the digits from zero weights, shuffled every epoch; returns the weights and the loss."""
    W, rng = np.zeros((62, 10)), np.random.default_rng(seed)
    for rows in (order[i : i + B] for order in (rng.permutation(n) for _ in range(epochs)) for i in range(0, n, B)):
        W = W - lr * X[rows].T @ (probabilities(W, X[rows]) - Y[rows]) / len(rows)
    return W, -np.log(probabilities(W, X)[np.arange(n), labels]).mean()

grids = {1: (0.05, 0.1, 0.2, 0.4), 32: (1.6, 3.2, 6.4, 12.8), n: (0.5, 1.0, 2.0, 4.0)}
table = {B: {lr: fit(B, lr)[1] for lr in grids[B]} for B in grids}
for B, row in table.items():
    cells = [f"lr {lr:g}: {row[lr]:.3f}" for lr in grids[B][:3]] + [f"lr {grids[B][3]:g}: worse"]
    print(f"B = {B:4}, {4 * -(-n // B):4} steps:", "  ".join(cells))
    assert row[grids[B][2]] == min(row.values())      # so the best rate is not at the end of its grid
print(f"2/L of the full loss at the start: {20 * n / np.linalg.norm(X, 2) ** 2:.2f}")      # L/10, as all p are 1/10
assert min(table[1].values()) < 0.12 > min(table[32].values()) and min(table[n].values()) > 1
assert np.allclose([table[1][0.05], table[1][0.1]], [table[32][1.6], table[32][3.2]], atol=0.005)

# %% [markdown]
# Two things to read here. In the first two columns 32 examples at 32 times the rate do what 32 single steps do: many
# small steps of lr are about one step of $B\,\text{lr}$ (the *linear scaling rule*, Goyal et al. 2017). By that rule
# the full batch would need a rate of $0.05\cdot1797\approx90$ to keep up, but curvature stops it near 2. That is why
# mini-batches work: a full batch spends $n$ examples on *one* step, whose length is limited by $L$ and not by the
# accuracy of the gradient. And since 32 gradients at once take hardly longer than one (section 5), the middle row wins
# on the clock.
#
# How large should $B$ be? McCandlish et al. (2018) compare noise with signal in the *gradient noise scale*
# $\operatorname{tr}\Sigma/\lVert g\rVert^2$: well below it, twice the batch saves half of the steps; well above, hardly
# any.

# %%
for name, W in {"at the start": np.zeros((62, 10)), "after 4 epochs": fit(32, 3.2)[0]}.items():
    G = example_gradients(W)
    noise, signal = ((G - G.mean(axis=0)) ** 2).sum(axis=1).mean(), (G.mean(axis=0) ** 2).sum()
    print(f"{name}: noise scale {noise / signal:.0f} examples")

# %% [markdown]
# It grows as the gradient shrinks, so large batches pay late in training (notebook 09). One more sentence to drop:
# *"batch gradient descent gets caught in local minima and noise frees it"*. As a general rule it has no source; section
# 3.4 ran without noise, and in high dimension critical points are mostly saddles (Dauphin et al. 2014).
#
# ### 3.9 Accumulating a batch that does not fit
#
# `backward()` adds into `.grad`. So a large batch can be fed in pieces, with one `step()` at the end. The textbook
# divides the mean loss of each of $k$ pieces by $k$. That is the mean of *means*; it is the mean over examples only if
# all pieces are equally large. With text they are not, since padding does not count. Six pieces of 2 to 64 examples:

# %%
inputs, targets = torch.from_numpy(X), data.labels
pieces = torch.from_numpy(rng.permutation(n)[:126]).split([2, 4, 8, 16, 32, 64])
weights = torch.from_numpy(fit(32, 1.6)[0])

def accumulated(pieces, reduction, scale):
    W, total = weights.clone().requires_grad_(), 0.0
    for rows in pieces:
        loss = F.cross_entropy(inputs[rows] @ W, targets[rows], reduction=reduction) * scale
        loss.backward()
        total += loss.item()
    return W.grad, total

whole, naive = accumulated([torch.cat(pieces)], "mean", 1), accumulated(pieces, "mean", 1 / 6)
summed = accumulated(pieces, "sum", 1 / 126)
error = (naive[0] - whole[0]).norm() / whole[0].norm()
print(f"mean of means: loss {naive[1]:.3f} for {whole[1]:.3f}, gradient wrong by {error:.0%}")
assert compare("sum over total", summed[0], whole[0], tol=1e-12) and error > 0.3

# %% [markdown]
# Each example of the smallest piece counts 32 times as much as one of the largest. Sum the losses and divide by the
# *total* count. Hugging Face's trainer and others had the mean of means until October 2024 (transformers, pull request
# 34191), and a loss curve hardly shows it. Across GPUs it is the same mistake again.
#
# ### 3.10 What is left
#
# Plain descent has two wounds. A flat direction takes $\kappa$ steps, because it forgets at each step that it has long
# been going the same way: notebook 02 gives it memory. And *one* lr serves all parameters, however different their
# curvatures; 3.3 showed what rescaling each is worth. Notebook 03 gives each its own.
#
# ## 4. The whole
#
# The algorithm is one line:

# %%
class TinySGD:
    def __init__(self, params, lr):
        self.params, self.lr = list(params), lr

    @torch.no_grad()
    def step(self):
        for p in self.params:
            p -= self.lr * p.grad

# %% [markdown]
# One epoch on the digits with three optimizers, on the batches that `fit` drew in NumPy. The gradient by hand is
# compared with autograd's, and the weights at the end with each other:

# %%
def train(make):
    W = torch.zeros(62, 10, dtype=torch.float64, requires_grad=True)
    run = make([W], lr=1.6)
    for rows in torch.from_numpy(np.random.default_rng(0).permutation(n)).split(32):
        (W.grad,) = torch.autograd.grad(F.cross_entropy(inputs[rows] @ W, targets[rows]), W)
        run.step()
    return W, run

(tiny, _), (library, _), (production, run) = (train(make) for make in (TinySGD, SGD, torch.optim.SGD))
(gradient,) = torch.autograd.grad(F.cross_entropy(inputs @ production, targets), production)
by_hand = example_gradients(production.detach().numpy()).mean(axis=0).reshape(62, 10)
assert compare("gradient", by_hand, gradient, tol=1e-12) and compare("NumPy", fit(32, 1.6, 1)[0], production, tol=1e-12)
assert compare("TinySGD", tiny, production, tol=1e-12) and compare("course_lib", library, production, tol=1e-12)
print("what torch's SGD remembers:", [value for state in run.state.values() for value in state.values()])

# %% [markdown]
# ## 5. Against production
#
# A step reads $p$ and $g$ and writes $p$: three numbers, 12 bytes per float32 parameter, with two operations on them.
# So memory sets the time, as it does for a plain copy (8 bytes). For 7 billion parameters a step must move
# $12\cdot7=84$ GB. The last line times the gradients of section 3.8:

# %% tags=["nbval-ignore-output"]
variants = bench.step_variants(8 * [(512, 512)], optimizer_class=torch.optim.SGD, own=SGD, lr=1e-3)
count, ends = 8 * 512 * 512, [variant.__self__.param_groups[0]["params"][0] for variant in variants.values()]
source, target = torch.zeros(2, count, device=ends[0].device)
times = bench.step_times(variants | {"plain copy": lambda: target.copy_(source)}, repeats=10, warmup=2)
assert all(torch.allclose(end, ends[0], atol=1e-6) for end in ends)
print(bench.describe_device(), bench.ratio_table(times, base="for-loop"), sep="\n")
for name, seconds in times.items():
    print(f"{name:12} {(8 if name == 'plain copy' else 12) * count / seconds / 1e9:6.1f} GB/s of necessary traffic")
gradients = {B: lambda B=B: accumulated([torch.arange(B)], "mean", 1) for B in (1, 32, n)}
times = bench.step_times(gradients, repeats=20)
print({f"gradient, B = {B}": f"{1e6 * seconds:.0f} us" for B, seconds in times.items()})
assert times[32] < 16 * times[1]

# %% [markdown]
# All ways end at the same parameters. The rule *is* one operation, $p\leftarrow p-\text{lr}\,g$, so a fused kernel has
# little to save here. And plain SGD remembers nothing, as section 4 printed: no byte of state. Notebook 04 counts
# what others keep.
#
# ## 6. Turn the knobs
#
# Predict before you move: at `condition = 100`, which lr is the best, where is the cliff, and how many steps does $x$
# need to halve? At `condition = 10`?

# %%
from course_lib import widgets

widgets.explore_valley(["sgd"], lr=0.0196, condition=100.0)

# %% [markdown]
# ## 7. How it breaks
#
# Four mistakes on the digits, each a change of one word, 32 examples per step at lr = 1.6. We log what a training loop
# would, the loss of the batch, and beside it the loss over all data:

# %%
def log_of(mistake, B=32, lr=1.6, epochs=4):
    """(steps, 2): loss of the batch before the step, loss over all data after it."""
    W, total, log, rng = np.zeros((62, 10)), 0, [], np.random.default_rng(0)
    for epoch in range(epochs):
        order = np.argsort(labels, kind="stable") if mistake == "sorted data" else rng.permutation(n)
        for rows in (order[i : i + B] for i in range(0, n, B)):
            p = probabilities(W, X[rows])
            g = X[rows].T @ (p - Y[rows]) / (1 if mistake == "sum, not mean" else len(rows))
            total = total + g if mistake == "zero_grad forgotten" else g
            decay = 1 / (len(log) + 1) ** 2 if mistake == "decay too fast" else 1
            W = W - decay * lr * total
            full = -np.log(np.maximum(probabilities(W, X)[np.arange(n), labels], 1e-300)).mean()
            log.append((-np.log(np.maximum(p[Y[rows] == 1], 1e-300)).mean(), full))
    return np.array(log)

names = ("correct", "zero_grad forgotten", "sum, not mean", "sorted data", "decay too fast")
logs = {name: log_of(name) for name in names}
for name, log in logs.items():
    batch, full = log[-50:].mean(axis=0)
    seen = f"{batch:.2f} on the batch, {full:.2f} over all data" if name != "sum, not mean" else "left out"
    print(f"{name:20} mean loss in the last 50 steps: {seen}")
axes = dict(xlabel="step", ylabel="loss over all data", logy=True, ylim=(0.1, 300))
panels = [dict(series={name: logs[name][:, 1] for name in ("correct", *chosen)}, title=title, **axes)
          for title, chosen in {"The loss swings": names[1:3], "It forgets, or it stops": names[3:]}.items()]
plots.show(plots.lines_grid(panels), alt=(
    "Loss over all data in 228 steps, logarithmic. The correct loop falls to 0.15. Left: without zero_grad the loss "
    "swings in slow waves that grow to 8; with a sum it starts near 200 and keeps jumping by factors of ten. Right: on "
    "sorted data it stays above 2, in plateaus as long as a class; with decay too fast it is flat at 1.9."))
assert logs["sum, not mean"][:10, 1].max() > 100 and logs["sorted data"][:, 1].min() > 2

# %% [markdown]
# The sum's last losses are left out because at that rate even rounding errors grow: each machine gets other numbers. A
# fifth mistake does not get that far. The update must not be recorded by autograd:

# %%
W = torch.ones(3, requires_grad=True)
W.sum().backward()
try:
    W -= 0.1 * W.grad
except RuntimeError as refusal:
    print("in place:", refusal, "\na new tensor: is_leaf =", (W - 0.1 * W.grad).is_leaf)

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | lr just above $2/L$ | falls first, then grows by a fixed factor; successive steps are opposite (cosine $-1$, 3.2) |
# | sorted data | loss of the batch looks splendid, loss over all data does not; plateaus with the order of the file |
# | `zero_grad` forgotten | the loss swings in slow waves that do not die out |
# | sum, not mean | the best lr depends on the batch size; the last, smaller batch takes a shorter step |
# | decay too fast | smooth, flat, and the gradient norm is as large as before (3.7) |
# | mean of means | nothing to see; results change with the number of pieces (3.9) |
# | update recorded by autograd | an error; or, with `W = W - ...`, a `.grad` that is `None` at the second step |
#
# Without `zero_grad` each step follows the *sum* of all gradients so far. Hold on to that waving curve: it is momentum
# with nothing to damp it (notebook 02).
#
# ## 8. Your turn
#
# In `exercises/01_gradient_descent.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `gradient_descent` | the loop, and the points it visits |
# | `largest_lr` | a number: the cliff of a given quadratic |
# | `best_step` | the best constant lr and its factor |
# | `sharpness` | the largest eigenvalue, from products $Hv$ alone |
# | `noise_floor` | the variance at which noise stops you |
# | `accumulated_gradient` | one gradient from unequal pieces |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("gd-largest-lr")
questions.show("gd-edge-of-stability")

# %% tags=["evidence-gd-largest-lr", "evidence-gd-edge-of-stability"]
ends = [abs(descend(lambda x: x @ H @ x / 2, np.ones(5), x * 2 / 10, 1000)[-1]).max() for x in (0.99, 1.01)]
assert ends[0] < 1e-3 and ends[1] > 1e6
edge = {name: all(abs(x - 1) < 0.05 for x in r[-5:]) for name, r in ratio.items()}
assert all(edge.values())
print("1% below 2/L it converges, 1% above it does not; sharpness * lr / 2 ends within 5% of 1:", edge)

# %%
questions.show("gd-noise-floor")
questions.show("gd-linear-scaling")

# %% tags=["evidence-gd-noise-floor", "evidence-gd-linear-scaling"]
measured = {lr: noisy_descent(np.full(1000, lr))[300:].mean() for lr in (0.2, 0.8)}
assert all(np.isclose(variance, floor(lr), rtol=0.02) for lr, variance in measured.items())
alike = [fit(B, 0.05 * B)[1] for B in (1, 8, 32)]
assert np.ptp(alike) < 0.005 and min(table[n].values()) > 1
print(f"floors {[round(floor(lr), 4) for lr in measured]}; loss at lr = 0.05 B, B = 1, 8, 32:", np.round(alike, 3))

# %%
questions.show("gd-mean-of-means")
questions.show("gd-slow-waves")

# %% tags=["evidence-gd-mean-of-means", "evidence-gd-slow-waves"]
questions.prove("gd-mean-of-means")      # asserts that the code above is wrong, and right with its line repaired
questions.prove("gd-slow-waves")         # asserts the undamped wave on torch's SGD without zero_grad
z = np.roots([1, -(2 - 0.01), 1])        # x_{t+1} - x_t = x_t - x_{t-1} - lr h x_t, for lr h = 0.01
assert np.allclose(abs(z), 1) and error > 0.7
wave = 2 * np.pi / abs(np.angle(z[0]))
print(f"mean of means: gradient wrong by {error:.0%}; no zero_grad: a wave of {wave:.0f} steps")

# %% [markdown]
# ## 10. Sources
#
# - Robbins & Monro 1951, *A Stochastic Approximation Method*: decaying rates. Bottou, Curtis & Nocedal 2018
#   (1606.04838): a review of SGD, with the floor (section 4).
# - Boyd & Vandenberghe 2004, *Convex Optimization*, section 9.3: conditioning.
# - Cohen et al. 2021 (2103.00065), edge of stability; Damian, Nichani & Lee 2023 (2209.15594), why it holds; Andreyev &
#   Beneventano 2024 (2412.20553), with mini-batches.
# - McCandlish et al. 2018 (1812.06162), gradient noise scale; Goyal et al. 2017 (1706.02677), linear scaling rule.
# - Mishchenko, Khaled & Richtárik 2020 (2006.05988), shuffling every epoch.
# - Dauphin et al. 2014 (1406.2572), saddle points.
#
# Contested: whether the noise of small batches helps a network *generalise*, or merely costs accuracy; what, if
# anything, replaces $2/L$ under mini-batches; how far the linear scaling rule carries (notebook 09).
