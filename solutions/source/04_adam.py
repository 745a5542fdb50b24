# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: Adam
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("adam")` gives one hint at a time.
# From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: Adam
#
# The answers to `exercises/04_adam.ipynb`, each with its reasons. Try the exercise first: what you
# have worked out yourself is there in the interview.

# %%
import math

import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. One bias-corrected moment
#
# *Level 1, 10 minutes, id `bias_corrected_moment`.* `grads` has one row per step. Return a tensor of the same shape whose
# row $t$ is the bias-corrected average after step $t$:
#
# $$ m_t = \beta\, m_{t-1} + (1-\beta)\, g_t, \quad m_0 = 0, \qquad \hat m_t = \frac{m_t}{1-\beta^t}, \quad t = 1, 2, \ldots $$


# %% tags=["exercise:bias_corrected_moment"]
def bias_corrected_moment(grads, beta):
    ### BEGIN SOLUTION
    m = torch.zeros_like(grads[0])
    rows = []
    for t, g in enumerate(grads, start=1):
        m = beta * m + (1 - beta) * g
        rows.append(m / (1 - beta**t))
    return torch.stack(rows)
    ### END SOLUTION


# %% tags=["check:bias_corrected_moment"]
check("bias_corrected_moment", bias_corrected_moment)

# %% [markdown] tags=["solution-only"]
# The weights of $m_t$ sum to $(1-\beta)(1 + \beta + \ldots + \beta^{t-1}) = 1 - \beta^t$. Dividing by that sum makes it a true weighted
# average. The running $m$ stays uncorrected: correcting it in place would compound. If all gradients are equal, so is every row:

# %% tags=["solution-only"]
print(bias_corrected_moment(torch.full((4, 1), 7.0, dtype=torch.float64), 0.9).flatten().round(decimals=9).tolist())

# %% [markdown]
# ## 2. Adam's efficient step
#
# *Level 2, 15 minutes, id `efficient_step`.* Section 2 of the paper folds both corrections into the step size:
# $\alpha_t = \text{lr}\,\sqrt{1-\beta_2^t}\,/\,(1-\beta_1^t)$, so that $m$ and $v$ need not be divided element by element.
# `m` and `v` are the raw averages after step `t`. Return the new parameter, exactly equal (up to rounding) to the textbook's
# $p - \text{lr}\;\hat m / (\sqrt{\hat v} + \epsilon)$, for any $\epsilon$.


# %% tags=["exercise:efficient_step"]
def efficient_step(p, m, v, t, lr, betas, eps):
    ### BEGIN SOLUTION
    root = math.sqrt(1 - betas[1] ** t)
    alpha_t = lr * root / (1 - betas[0] ** t)
    return p - alpha_t * m / (v.sqrt() + eps * root)
    ### END SOLUTION


# %% tags=["check:efficient_step"]
check("efficient_step", efficient_step)

# %% [markdown] tags=["solution-only"]
# Multiply numerator and denominator of $\hat m / (\sqrt{\hat v} + \epsilon)$ by $\sqrt{1-\beta_2^t}$: the root leaves $\hat v$, and $\epsilon$
# becomes $\hat\epsilon = \epsilon\sqrt{1-\beta_2^t}$. Leave that out and you have another optimizer, with a larger
# $\epsilon$ at the start: for $\beta_2 = 0.999$ by this factor at the first step:

# %% tags=["solution-only"]
print(f"{1 / math.sqrt(1 - 0.999):.1f}")

# %% [markdown]
# ## 3. Adam, guided
#
# *Level 1, 20 minutes, id `adam`.* The walk is written; the rule is yours:
#
# $$ g \leftarrow g + \lambda\, p, \quad m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
# p \leftarrow p - \text{lr}\,\frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)} + \epsilon} $$
#
# Each parameter has its own $t$, $m$ and $v$. Here `weight_decay` is the L2 penalty $\lambda$, so it enters the gradient.


# %% tags=["exercise:adam"]
class Adam(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2), eps, wd = group["lr"], group["betas"], group["eps"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["t"], state["m"], state["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
                state["t"] += 1
                t, m, v = state["t"], state["m"], state["v"]
                g = p.grad + wd * p
                m.mul_(beta1).add_(g, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
                m_hat = m / (1 - beta1**t)
                v_hat = v / (1 - beta2**t)
                p -= lr * m_hat / (v_hat.sqrt() + eps)
                ### END SOLUTION
        return loss


# %% tags=["check:adam"]
check("adam", Adam)

# %% [markdown] tags=["solution-only"]
# Three things are remembered per parameter: $t$, $m$ and $v$. They live in `self.state[p]`, so `state_dict()` and
# `load_state_dict()` work without a line of code. `m` and `v` are changed in place; `m_hat` and `v_hat` are new tensors
# each time. The remark about `maximize` is for the next exercise.

# %% [markdown]
# ## 4. Adam, blank page
#
# *Level 2, 25 minutes, id `adam_blank`.* As in an interview: only the name is given. A class used as torch's is:
# `Adam(params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, maximize=False)` over parameters or groups, with `step(closure=None)`,
# `zero_grad()`, `param_groups`, `state_dict()` and `load_state_dict()`. A run that is saved and resumed must be the run that never stopped.


# %% tags=["exercise:adam_blank"]
Adam = None  # a blank page: the class above does not count here
### BEGIN SOLUTION
class Adam(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, maximize=False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():  # the decorator has switched gradients off; the closure calls backward
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = -p.grad if group["maximize"] else p.grad
                g = g + group["weight_decay"] * p
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["t"] += 1
                state["m"].lerp_(g, 1 - beta1)
                state["v"].lerp_(g * g, 1 - beta2)
                m_hat = state["m"] / (1 - beta1 ** state["t"])
                v_hat = state["v"] / (1 - beta2 ** state["t"])
                p -= group["lr"] * m_hat / (v_hat.sqrt() + group["eps"])
        return loss
### END SOLUTION


# %% tags=["check:adam_blank"]
check("adam_blank", Adam)

# %% [markdown] tags=["solution-only"]
# Say while you write: hyper-parameters are read from the group at each step, because a scheduler changes them there; a missing
# gradient means that this parameter takes no part, its $t$ included; `maximize` turns the gradient, not the decay;
# the closure runs first, once, with gradients on.

# %% [markdown]
# ## 5. RAdam's rectifier
#
# *Level 2, 10 minutes, id `rectifier`.* Return the factor $r_t$, a float, by which RAdam multiplies Adam's step at
# $t = 1, 2, \ldots$ (Liu et al. 2020, Algorithm 2):
#
# $$ \rho_\infty = \frac{2}{1-\beta_2} - 1, \qquad \rho_t = \rho_\infty - \frac{2t\,\beta_2^t}{1-\beta_2^t}, \qquad
# r_t = \sqrt{\frac{(\rho_t-4)(\rho_t-2)\,\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\,\rho_t}} . $$
#
# Where $\rho_t \le 5$ return 0.0: there torch's RAdam does not adapt the step at all.


# %% tags=["exercise:rectifier"]
def rectifier(t, beta2):
    ### BEGIN SOLUTION
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return 0.0
    return math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    ### END SOLUTION


# %% tags=["check:rectifier"]
check("rectifier", rectifier)

# %% [markdown] tags=["solution-only"]
# $\rho_t$ counts the gradients that $\hat v_t$ rests on: 1 at $t = 1$, and nearly $t$ as long as $t$ is well below
# $1/(1-\beta_2)$. For $\rho_t \le 4$ the variance of $1/\sqrt{\hat v_t}$ is infinite, and the root would be of a negative
# number or of zero: hence the test first. The paper draws the line at 4, torch at 5, which for $\beta_2 = 0.999$ means four
# and five steps of plain averaged SGD.

# %% [markdown]
# ## 6. The bytes Adam remembers
#
# *Level 1, 5 minutes, id `adam_state_bytes`.* A model has $7 \times 10^9$ parameters. Adam keeps $m$ and $v$ in float32.
# How many bytes are these two, over the whole model? (Bytes, not GB; no weights, no gradients, no master copy.)

# %% tags=["exercise:adam_state_bytes"]
state_bytes = ...
### BEGIN SOLUTION
state_bytes = 7e9 * 2 * 4
### END SOLUTION

# %% tags=["check:adam_state_bytes"]
check("adam_state_bytes", state_bytes)

# %% [markdown] tags=["solution-only"]
# Two numbers of four bytes for each parameter: 56 GB, four times the weights in bfloat16. Mixed precision adds a float32
# master copy (4 bytes), the weights (2) and the gradients (2): 16 bytes per parameter, 112 GB, in the accounting of
# ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 3.1).
