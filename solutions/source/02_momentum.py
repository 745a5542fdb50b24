# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: momentum
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("momentum")` gives one hint at a time.
# From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: momentum
#
# The answers to `exercises/02_momentum.ipynb`, each with its reasons. Try the exercise first: what you
# have worked out yourself is there in the interview.

# %%
import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. SGD with momentum
#
# *Level 1, 15 minutes, id `momentum`.* Write SGD with momentum in torch's convention. With $g_t$ the gradient, $\mu$ the
# momentum, $d$ the dampening and $\lambda$ the weight decay (an L2 penalty, so it enters the gradient):
#
# $$ g_t \leftarrow g_t + \lambda\, p, \qquad b_1 = g_1, \qquad b_t = \mu\, b_{t-1} + (1 - d)\, g_t, \qquad p \leftarrow p - \text{lr}\; b_t $$
#
# The first buffer is the gradient itself, not dampened. `step` walks over groups and parameters already;
# a parameter whose gradient is missing is left alone. Leave `p.grad` as it is, and update `p` in place.


# %% tags=["exercise:momentum"]
class SGD(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay))

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
                g = p.grad + group["weight_decay"] * p
                if "buffer" not in state:
                    state["buffer"] = g.clone()
                else:
                    state["buffer"].mul_(group["momentum"]).add_(g, alpha=1 - group["dampening"])
                p -= group["lr"] * state["buffer"]
                ### END SOLUTION
        return loss


# %% tags=["check:momentum"]
check("momentum", SGD)

# %% [markdown] tags=["solution-only"]
# `p.grad + ...` makes a new tensor; `p.grad.add_(...)` would change what gradient clipping, logging or a second
# optimizer still reads. With `momentum=0` the buffer is just the last gradient, so the same lines cover plain SGD; torch saves
# the memory and keeps none. The buffer is a sum with gain $1/(1-\mu)$: at $\mu = 0.9$ a constant gradient moves the
# parameter ten times as far per step as plain SGD does.
#
# In Sutskever et al. (2013) the learning rate stands inside the buffer, $b_t = \mu b_{t-1} + \text{lr}\, g_t$. As long as lr is
# constant the two are the same; when a schedule changes it, torch's form takes the new rate at once and the other
# one carries the old rate on in its buffer. The check knows both and says so.

# %% [markdown]
# ## 2. Nesterov, torch's form
#
# *Level 1, 15 minutes, id `nesterov`.* The same walk, another step. With $\mu$ the momentum and $\lambda$ the weight decay:
#
# $$ g_t \leftarrow g_t + \lambda\, p, \qquad b_1 = g_1, \qquad b_t = \mu\, b_{t-1} + g_t, \qquad p \leftarrow p - \text{lr}\,(g_t + \mu\, b_t) $$
#
# There is no dampening. Numbers are those of `torch.optim.SGD(..., nesterov=True)`.


# %% tags=["exercise:nesterov"]
class Nesterov(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.9, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

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
                g = p.grad + group["weight_decay"] * p
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                b = state["buffer"].mul_(group["momentum"]).add_(g)
                p -= group["lr"] * (g + group["momentum"] * b)
                ### END SOLUTION
        return loss


# %% tags=["check:nesterov"]
check("nesterov", Nesterov)

# %% [markdown] tags=["solution-only"]
# Without dampening a buffer that starts at zero is $g_1$ after the first step, so `zeros_like` and `g.clone()` are one. The
# buffer in the step is the *new* one. With the old one the rule would read $g_t + \mu\, b_{t-1} = b_t$: plain heavy ball. Under
# a constant gradient the new buffer makes the first step longer and the last one no different:

# %% tags=["solution-only"]
b = np.cumsum(0.9 ** np.arange(500))  # the buffer after each step of a constant gradient 1
print(f"first step: heavy ball {b[0]:.1f}, Nesterov {1 + 0.9 * b[0]:.1f}; last: {b[-1]:.1f} and {1 + 0.9 * b[-1]:.1f}")
assert abs(b[-1] - (1 + 0.9 * b[-1])) < 1e-9

# %% [markdown]
# ## 3. Nesterov, the look-ahead
#
# *Level 1, 10 minutes, id `nesterov_lookahead`.* The form of Sutskever et al. (2013). From $\theta_0$ = `start` and $v_0 = 0$,
#
# $$ v_t = \mu\, v_{t-1} - \text{lr}\; \nabla f(\theta_{t-1} + \mu\, v_{t-1}), \qquad \theta_t = \theta_{t-1} + v_t . $$
#
# `gradient(x)` maps an array (n,) to an array (n,). Return $\theta_0, \ldots, \theta_T$ as an array (steps + 1, n); leave `start` as
# it is.


# %% tags=["exercise:nesterov_lookahead"]
def nesterov_lookahead(gradient, start, lr, momentum, steps):
    ### BEGIN SOLUTION
    theta = np.array(start, dtype=np.float64)
    v = np.zeros_like(theta)
    path = [theta]
    for _ in range(steps):
        v = momentum * v - lr * gradient(theta + momentum * v)
        theta = theta + v
        path.append(theta)
    return np.stack(path)
    ### END SOLUTION


# %% tags=["check:nesterov_lookahead"]
check("nesterov_lookahead", nesterov_lookahead)

# %% [markdown] tags=["solution-only"]
# `theta = theta + v` makes a new array; `theta += v` would change every point that the list already holds. These are the
# iterates $\theta$. torch's parameter is the point ahead, $\theta + \mu v$, where the next gradient is taken. Both forms on one
# function, $\log\cosh$:

# %% tags=["solution-only"]
theta = nesterov_lookahead(np.tanh, [1.0, 3.0], lr=0.1, momentum=0.9, steps=50)
p = torch.tensor([1.0, 3.0], dtype=torch.float64)
run = torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True)
for t in range(1, 51):
    p.grad = torch.tanh(p)
    run.step()
    assert np.allclose(p.numpy(), theta[t] + 0.9 * (theta[t] - theta[t - 1]), rtol=0, atol=1e-12)
print("torch's parameter is theta + momentum * v at each of 50 steps: True")

# %% [markdown]
# ## 4. The best heavy ball
#
# *Level 2, 15 minutes, id `optimal_momentum`.* `curvatures` holds the eigenvalues of a quadratic's Hessian, all positive, in any
# order. Return `(lr, momentum, factor)`: the constant pair with which heavy ball in torch's convention converges fastest on the
# worst of them, and the factor by which the error then shrinks per step, in the long run. Derive it: while the two roots of
# $z^2 - (1 + \mu - \text{lr}\,\lambda)\, z + \mu$ are complex, both have modulus $\sqrt\mu$. For which $\text{lr}\,\lambda$ are they?


# %% tags=["exercise:optimal_momentum"]
def optimal_momentum(curvatures):
    ### BEGIN SOLUTION
    low, high = np.sqrt(np.min(curvatures)), np.sqrt(np.max(curvatures))
    lr = (2 / (high + low)) ** 2
    factor = (high - low) / (high + low)
    return lr, factor**2, factor
    ### END SOLUTION


# %% tags=["check:optimal_momentum"]
check("optimal_momentum", optimal_momentum)

# %% [markdown] tags=["solution-only"]
# The roots are complex for $(1-\sqrt\mu)^2 < \text{lr}\,\lambda < (1+\sqrt\mu)^2$. A smaller $\mu$ is better as long as this interval
# covers all curvatures, so let its ends be the smallest and the largest: $\sqrt{\text{lr}\,\lambda_{\min}} = 1 - \sqrt\mu$ and
# $\sqrt{\text{lr}\,\lambda_{\max}} = 1 + \sqrt\mu$. Their sum gives lr, their difference $\sqrt\mu$. Only the two extremes count. The
# largest modulus over all curvatures, on a grid of pairs around the answer, is nowhere smaller:

# %% tags=["solution-only"]
curvatures = np.array([9.0, 1.0, 4.0, 25.0])
lr, momentum, factor = optimal_momentum(curvatures)


def modulus(lr, momentum):
    return max(abs(np.roots([1.0, lr * curvature - 1 - momentum, momentum])).max() for curvature in curvatures)


grid = [modulus(lr * a, momentum * b) for a in np.linspace(0.5, 1.5, 21) for b in np.linspace(0.5, 1.5, 21)]
assert min(grid) > factor - 1e-6
print(f"lr {lr:.4f}, momentum {momentum:.4f}, factor {factor:.4f}; plain descent at its best {(25 - 1) / (25 + 1):.4f}")

# %% [markdown]
# ## 5. Two conventions
#
# *Level 2, 15 minutes, id `two_conventions`.* Feed `gradients` (T, n), one row per step, with the learning rates `lrs` (T,) to both
# forms of momentum, and return `(outside, inside)`, each (T, n): what is *subtracted* from the parameters at each step.
#
# $$ \text{outside (torch):}\quad b_t = \mu\, b_{t-1} + g_t,\ \text{ step } \text{lr}_t\, b_t, \qquad\qquad
# \text{inside (Keras):}\quad v_t = \mu\, v_{t-1} + \text{lr}_t\, g_t,\ \text{ step } v_t . $$
#
# Both buffers start at zero.


# %% tags=["exercise:two_conventions"]
def two_conventions(gradients, lrs, momentum):
    ### BEGIN SOLUTION
    gradients = np.asarray(gradients, dtype=np.float64)
    outside, inside = np.empty_like(gradients), np.empty_like(gradients)
    b = v = np.zeros(gradients.shape[1:])
    for t, (g, lr) in enumerate(zip(gradients, lrs)):
        b = momentum * b + g
        v = momentum * v + lr * g
        outside[t], inside[t] = lr * b, v
    return outside, inside
    ### END SOLUTION


# %% tags=["check:two_conventions"]
check("two_conventions", two_conventions)

# %% [markdown] tags=["solution-only"]
# Unrolled, outside is $\text{lr}_t \sum_i \mu^{t-i} g_i$ and inside is $\sum_i \mu^{t-i}\, \text{lr}_i\, g_i$: equal for all gradients only if lr never
# changed. Take the gradient away and cut lr by ten at the same moment, and the next step tells the two apart:

# %% tags=["solution-only"]
outside, inside = two_conventions(np.r_[np.ones(200), 0.0][:, None], np.r_[np.full(200, 0.1), 0.01], 0.9)
assert np.allclose(outside[:200], inside[:200])
print(f"step before the cut {outside[199, 0]:.2f} in both; after it: outside {outside[200, 0]:.2f}, inside {inside[200, 0]:.2f}")

# %% [markdown]
# ## 6. A bug to find
#
# *Level 2, 15 minutes, id `momentum_bug`.* This SGD matched torch's in its author's test, which gave it a new gradient tensor at each
# step. In a training loop that calls `zero_grad(set_to_none=False)`, or on gradients that are synchronised in one fixed buffer, momentum
# has no effect from the second step on. Find the fault and mend it: copy the class into the answer cell, call it `RepairedSGD`, and
# change as little as you can.

# %% tags=["exercise-only"]
class SuspiciousSGD(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay))

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
                g = p.grad
                if group["weight_decay"] != 0:
                    g = g + group["weight_decay"] * p
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = g
                else:
                    state["buffer"].mul_(group["momentum"]).add_(g, alpha=1 - group["dampening"])
                p.sub_(group["lr"] * state["buffer"])
        return loss

# %% tags=["exercise:momentum_bug"]
RepairedSGD = None  # your mended class
### BEGIN SOLUTION
class RepairedSGD(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay))

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
                g = p.grad
                if group["weight_decay"] != 0:
                    g = g + group["weight_decay"] * p
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = g.clone()
                else:
                    state["buffer"].mul_(group["momentum"]).add_(g, alpha=1 - group["dampening"])
                p.sub_(group["lr"] * state["buffer"])
        return loss
### END SOLUTION


# %% tags=["check:momentum_bug"]
check("momentum_bug", RepairedSGD)

# %% [markdown] tags=["solution-only"]
# Without weight decay `g` *is* `p.grad`, and the first buffer is that same tensor. Zeroing it in place empties the buffer; the next
# `backward()` adds the new gradient into it; then `mul_` scales both, and `add_` adds the tensor to itself, giving $2\mu\, g$ at dampening 0.
# With weight decay, or with a new gradient tensor each step (`zero_grad`'s default sets `.grad` to None), the bug does not show. An
# update that is $2\mu$ times the gradient is what is left of momentum:

# %% tags=["solution-only"]
class Aliased(RepairedSGD):
    def step(self, closure=None):
        first = not self.state
        super().step(closure)
        if first:  # as if the clone had been forgotten
            self.state = {p: {"buffer": p.grad} for p in self.state}


for rule in (RepairedSGD, Aliased):
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer, where = rule([w], lr=1.0, momentum=0.9), [0.0]
    for _ in range(6):
        optimizer.zero_grad(set_to_none=False)
        w.sum().backward()
        optimizer.step()
        where.append(w.item())
    print(f"{rule.__name__:11} steps {-np.diff(where).round(3)}")

# %% [markdown]
# ## 7. How far the ball rolls on
#
# *Level 1, 5 minutes, id `coasting_distance`.* torch's SGD with lr = 0.01 and momentum = 0.9. The gradient of a parameter has been 1 for
# very long; now it is 0, for ever. How far does the parameter still travel?

# %% tags=["exercise:coasting_distance"]
distance = ...
### BEGIN SOLUTION
distance = 0.01 * 10 * 0.9 / (1 - 0.9)
### END SOLUTION

# %% tags=["check:coasting_distance"]
check("coasting_distance", distance)

# %% [markdown] tags=["solution-only"]
# The buffer stands at $1/(1-\mu) = 10$. The first step without gradient uses $10\mu$, the next $10\mu^2$: together
# $\text{lr} \cdot 10\,(\mu + \mu^2 + \ldots) = \text{lr}\,\mu/(1-\mu)^2 = 0.9$, nine times the last full step. Counting that last step in gives 1.0.
