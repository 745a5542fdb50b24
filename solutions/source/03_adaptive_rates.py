# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: adaptive rates
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("rmsprop")` gives one hint at a time.
# From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: adaptive rates
#
# The answers to `exercises/03_adaptive_rates.ipynb`, each with its reasons. Try the exercise first: what you
# have worked out yourself is there in the interview.

# %%
import math

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. AdaGrad
#
# *Level 1, 15 minutes, id `adagrad`.* Write AdaGrad in torch's convention. With $\lambda$ the weight decay (an L2
# penalty, so it enters the gradient) and $G$ the sum of the squares so far:
#
# $$ g \leftarrow g + \lambda\, p, \qquad G \leftarrow G + g^2, \qquad
# p \leftarrow p - \text{lr}\, \frac{g}{\sqrt{G} + \epsilon} $$
#
# $G$ starts at zero. Each parameter has its own, of its own shape.


# %% tags=["exercise:adagrad"]
class Adagrad(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, eps=1e-10, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["sum"] = torch.zeros_like(p)
                g = p.grad + group["weight_decay"] * p
                state["sum"].addcmul_(g, g)
                p -= group["lr"] * g / (state["sum"].sqrt() + group["eps"])
                ### END SOLUTION
        return loss


# %% tags=["check:adagrad"]
check("adagrad", Adagrad)

# %% [markdown] tags=["solution-only"]
# The current gradient is in the sum before the division, so no step is longer than lr, and the first is lr times
# the sign. The order matters for a further reason: divide first, and the first divisor is $\epsilon$ alone. `g` is a
# new tensor; `p.grad += ...` would change what the next reader of `.grad` finds.

# %% tags=["solution-only"]
p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
p.grad = torch.tensor([1e-3, 1.0, -1e3], dtype=torch.float64)
Adagrad([p], lr=1.0).step()
print("first step:", " ".join(f"{-step:+.4f}" for step in p.tolist()), "lr")

# %% [markdown]
# ## 2. AdaGrad on the rows of an embedding
#
# *Level 2, 15 minutes, id `sparse_adagrad`.* A batch touches a few rows of a large table. `table` and `sums` are
# (V, d) arrays: the weights and their sums of squares. `rows` (B,) says which row each occurrence belongs to, and
# repeats where a token occurs more than once; `grads` (B, d) holds one gradient per occurrence. Return
# `(new_table, new_sums)` after one step of AdaGrad. The gradient of a row is the **sum** over its occurrences, and
# *that* is squared. A row that does not occur stays as it is. Leave the arguments unchanged.


# %% tags=["exercise:sparse_adagrad"]
def sparse_adagrad(table, sums, rows, grads, lr, eps):
    ### BEGIN SOLUTION
    touched, where = np.unique(rows, return_inverse=True)
    g = np.zeros((len(touched), table.shape[1]))
    np.add.at(g, where, grads)
    new_table, new_sums = table.copy(), sums.copy()
    new_sums[touched] += g**2
    new_table[touched] -= lr * g / (np.sqrt(new_sums[touched]) + eps)
    return new_table, new_sums
    ### END SOLUTION


# %% tags=["check:sparse_adagrad"]
check("sparse_adagrad", sparse_adagrad)

# %% [markdown] tags=["solution-only"]
# Two traps. `sums[rows] += grads**2` keeps only one of the occurrences of a row, because NumPy reads all rows first
# and then writes each of them once; `np.add.at` adds all of them. And squares do not add: two occurrences with
# gradient 1 make a row's gradient 2 and its square 4, not 2. torch does the same, for a dense gradient by backward's
# own sum, for a sparse one by *coalescing* it before it is squared:

# %% tags=["solution-only"]
table, sums = np.zeros((3, 1)), np.zeros((3, 1))
print(sparse_adagrad(table, sums, np.array([1, 1]), np.ones((2, 1)), 1.0, 1e-10)[1].ravel(), "and not [0. 2. 0.]")
embedding = torch.nn.Embedding.from_pretrained(torch.zeros(3, 1, dtype=torch.float64), freeze=False)
run = torch.optim.Adagrad(embedding.parameters(), lr=1.0)
embedding(torch.tensor([1, 1])).sum().backward()
run.step()
print("torch:", run.state[embedding.weight]["sum"].ravel().numpy())

# %% [markdown] tags=["solution-only"]
# In AdaGrad a row that does not occur needs no special case as long as $\epsilon>0$: a zero gradient adds nothing to the
# sum and moves nothing. (With $\epsilon=0$ a row that never occurred would be $0/0$.) The dense and the sparse version are
# the same algorithm, which is not so for RMSProp or Adam.

# %% [markdown]
# ## 3. When AdaGrad has slowed down
#
# *Level 1, 5 minutes, id `adagrad_step`.* A parameter's gradient is the same at every step. At which step, counted
# from 1, is AdaGrad's step 1% of its first?

# %% tags=["exercise:adagrad_step"]
step = ...
### BEGIN SOLUTION
step = 10_000
### END SOLUTION

# %% tags=["check:adagrad_step"]
check("adagrad_step", step)

# %% [markdown] tags=["solution-only"]
# After $t$ equal gradients $\sqrt{G} = \sqrt{t}\,|g|$, so the step is $\text{lr}/\sqrt t$, and $1/\sqrt t = 0.01$ at
# $t = 10{,}000$. Neither the learning rate nor the size of the gradient enters. How far has the parameter come by then?
# The sum of $1/\sqrt t$ is nearly $2\sqrt t$, without bound: it can still get anywhere, only ever more slowly.

# %% tags=["solution-only"]
t = np.arange(1, step + 1)
way = np.sum(1 / np.sqrt(t))
print(f"step {step}: {1 / math.sqrt(step):.2f} lr; way so far {way:.1f} lr, 2 sqrt(t) = {2 * math.sqrt(step):.0f}")

# %% [markdown]
# ## 4. RMSProp
#
# *Level 1, 15 minutes, id `rmsprop`.* Write RMSProp in torch's convention. With $\alpha$ the decay of the average and
# $\lambda$ the weight decay (an L2 penalty, so it enters the gradient):
#
# $$ g \leftarrow g + \lambda\, p, \qquad v \leftarrow \alpha\, v + (1 - \alpha)\, g^2, \qquad
# p \leftarrow p - \text{lr}\, \frac{g}{\sqrt{v} + \epsilon} $$
#
# $v$ starts at zero and is not corrected for it; $\epsilon$ stands outside the root.


# %% tags=["exercise:rmsprop"]
class RMSprop(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["v"] = torch.zeros_like(p)
                g = p.grad + group["weight_decay"] * p
                state["v"].mul_(group["alpha"]).addcmul_(g, g, value=1 - group["alpha"])
                p -= group["lr"] * g / (state["v"].sqrt() + group["eps"])
                ### END SOLUTION
        return loss


# %% tags=["check:rmsprop"]
check("rmsprop", RMSprop)

# %% [markdown] tags=["solution-only"]
# Without a correction the first step is $\text{lr}/\sqrt{1-\alpha}$ long: ten times lr at $\alpha = 0.99$, as the next
# cell shows. That is one of the two things Adam adds; the other is the average in the numerator.

# %% tags=["solution-only"]
p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
p.grad = torch.ones_like(p)
RMSprop([p], lr=0.01).step()
print(f"first step: {-p.item() / 0.01:.4f} times lr")

# %% [markdown] tags=["solution-only"]
# TensorFlow's RMSProp adds $\epsilon$ inside the root, and some codes start $v$ at $g_1^2$. Both are specifications
# of their own; the check recognises them and tells you that they are not the one asked for here.

# %% [markdown]
# ## 5. The centred divisor
#
# *Level 2, 15 minutes, id `centered_divisor`.* `gradients` has one row per step, shape (T, n). Return what torch's
# `RMSprop(centered=True)` divides by at each step, as an array of the same shape:
#
# $$ v \leftarrow \alpha\, v + (1-\alpha)\, g^2, \qquad m \leftarrow \alpha\, m + (1-\alpha)\, g, \qquad
# \text{divisor} = \sqrt{v - m^2} + \epsilon $$
#
# Both averages start at zero. Where rounding makes $v - m^2$ negative, take 0.


# %% tags=["exercise:centered_divisor"]
def centered_divisor(gradients, alpha, eps):
    ### BEGIN SOLUTION
    v, m = np.zeros(gradients.shape[1]), np.zeros(gradients.shape[1])
    rows = []
    for g in gradients:
        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        rows.append(np.sqrt(np.maximum(v - m**2, 0)) + eps)
    return np.array(rows)
    ### END SOLUTION


# %% tags=["check:centered_divisor"]
check("centered_divisor", centered_divisor)

# %% [markdown] tags=["solution-only"]
# $v - m^2$ estimates the variance, so the divisor is the standard deviation: what is certain gets long steps.
# For a gradient that never varies both averages are $1-\alpha^t$ (times $g^2$ and $g$), the difference is
# $\alpha^t(1-\alpha^t)\,g^2$, and the divisor goes to $\epsilon$. At $\alpha = 0.9$:

# %% tags=["solution-only"]
divisor = centered_divisor(np.ones((100, 1)), 0.9, 1e-8)[:, 0]
for n in (1, 10, 100):
    print(f"step {n:3}: divisor {divisor[n - 1]:.4f}, step {1 / divisor[n - 1]:.1f} lr")

# %% [markdown] tags=["solution-only"]
# torch does not clip: there the root of a difference that rounding has made negative is NaN, and the parameter with it.
# An $\epsilon$ inside the root, as in TensorFlow, covers a small negative difference; outside it comes too late.

# %% [markdown]
# ## 6. Adadelta
#
# *Level 1, 20 minutes, id `adadelta`.* Write Adadelta in torch's convention:
#
# $$ g \leftarrow g + \lambda\, p, \quad v \leftarrow \rho\, v + (1-\rho)\, g^2, \quad
# \Delta = \frac{\sqrt{u + \epsilon}}{\sqrt{v + \epsilon}}\, g, \quad u \leftarrow \rho\, u + (1-\rho)\, \Delta^2, \quad
# p \leftarrow p - \text{lr}\, \Delta $$
#
# $v$ and $u$ start at zero. $\Delta$ uses the new $v$ and the old $u$; $\epsilon$ stands inside both roots.


# %% tags=["exercise:adadelta"]
class Adadelta(torch.optim.Optimizer):
    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rho, eps = group["rho"], group["eps"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["v"], state["u"] = torch.zeros_like(p), torch.zeros_like(p)
                g = p.grad + group["weight_decay"] * p
                state["v"].mul_(rho).addcmul_(g, g, value=1 - rho)
                delta = (state["u"] + eps).sqrt() / (state["v"] + eps).sqrt() * g
                state["u"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
                p -= group["lr"] * delta
                ### END SOLUTION
        return loss


# %% tags=["check:adadelta"]
check("adadelta", Adadelta)

# %% [markdown] tags=["solution-only"]
# $u$ must lag one step behind: the step that is being made cannot scale itself. It averages $\Delta$ before `lr` is
# applied, so that `lr` scales the steps and does not feed back into them. With `eps=0` nothing moves, ever: $u$ starts
# at zero, so every $\Delta$ is zero.

# %% tags=["solution-only"]
for eps in (1e-6, 0.0):
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    run = Adadelta([p], eps=eps)
    for _ in range(100):
        p.grad = torch.ones_like(p)
        run.step()
    print(f"eps = {eps:g}: way after 100 steps {abs(p.item()):.3f}")

# %% [markdown]
# ## 7. Adadelta's first step
#
# *Level 1, 5 minutes, id `adadelta_first_step`.* torch's Adadelta with its defaults (lr = 1, $\rho$ = 0.9,
# $\epsilon$ = 1e-6) meets its first gradient, which is 1. How long is the first step?

# %% tags=["exercise:adadelta_first_step"]
first_step = ...
### BEGIN SOLUTION
first_step = math.sqrt(1e-6) / math.sqrt((1 - 0.9) * 1**2 + 1e-6)
### END SOLUTION

# %% tags=["check:adadelta_first_step"]
check("adadelta_first_step", first_step)

# %% [markdown] tags=["solution-only"]
# $u = 0$, so the numerator is $\sqrt\epsilon$; $v = (1-\rho)\,g^2$. For any gradient well above $\sqrt\epsilon$ the
# step is $\sqrt{\epsilon/(1-\rho)}$, whatever the gradient and the scale of the parameter. Adadelta has no learning
# rate to tune, but $\epsilon$ sets the length of its first steps:

# %% tags=["solution-only"]
for eps in (1e-8, 1e-6, 1e-4):
    print(f"eps = {eps:g}: first step {math.sqrt(eps) / math.sqrt(0.1 + eps):.5f}")
