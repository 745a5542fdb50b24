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
import torch

from course_lib.checks import check, hint

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
