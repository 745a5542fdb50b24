# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: gradient descent
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("gradient_descent")` gives one hint at
# a time. From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: gradient descent
#
# The answers to `exercises/01_gradient_descent.ipynb`, each with its reasons. Try the exercise first: what you have
# worked out yourself is there in the interview.

# %%
import math

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Gradient descent
#
# *Level 1, 10 minutes, id `gradient_descent`.* `gradient(x)` maps a float64 array of shape `(n,)` to the gradient
# there, of the same shape. Return an array of shape `(steps + 1, n)` with the points visited: row 0 is `start`, and
#
# $$ x_{t+1} = x_t - \text{lr}\; \nabla f(x_t) . $$
#
# `start` must be what it was afterwards.


# %% tags=["exercise:gradient_descent"]
def gradient_descent(gradient, start, lr, steps):
    ### BEGIN SOLUTION
    points = [np.array(start, dtype=np.float64)]
    for _ in range(steps):
        points.append(points[-1] - lr * gradient(points[-1]))
    return np.stack(points)
    ### END SOLUTION


# %% tags=["check:gradient_descent"]
check("gradient_descent", gradient_descent)

# %% [markdown] tags=["solution-only"]
# `x - lr * g` makes a new array, so every row is a point of its own. With `x -= lr * gradient(x)` the list would hold
# the *same* array many times, every row would be the last point, and the caller's `start` would have moved too. On
# $f = (x^2 + 10\,y^2)/2$ each coordinate is multiplied by its own factor, $1 - \text{lr}$ and $1 - 10\,\text{lr}$:

# %% tags=["solution-only"]
print(gradient_descent(lambda x: np.array([1.0, 10.0]) * x, [1.0, 1.0], lr=0.15, steps=3).round(4).tolist())

# %% [markdown]
# ## 2. The largest learning rate
#
# *Level 1, 10 minutes, id `largest_lr`.* Let $f(a, b) = (3a^2 + 4ab + 6b^2)/2$. With every learning rate below a
# certain number, gradient descent converges from every start. What is the largest such number?

# %% tags=["exercise:largest_lr"]
largest_lr = ...
### BEGIN SOLUTION
largest_lr = 2 / np.linalg.eigvalsh([[3.0, 2.0], [2.0, 6.0]])[-1]
### END SOLUTION

# %% tags=["check:largest_lr"]
check("largest_lr", largest_lr)

# %% [markdown] tags=["solution-only"]
# The Hessian is $\begin{pmatrix}3&2\\2&6\end{pmatrix}$: the mixed term $4ab/2 = 2ab$ appears once above and once below
# the diagonal. Its eigenvalues solve $(3-h)(6-h) = 4$, so $h = 2$ and $h = 7$, and the answer is $2/7$. The diagonal
# alone would suggest $2/6$. That is too large: the steepest direction lies between the axes, and is steeper than either
# of them.

# %% [markdown]
# ## 3. The best constant step
#
# *Level 2, 10 minutes, id `best_step`.* `curvatures` holds the eigenvalues of a quadratic's Hessian, all positive, in
# any order. Return `(lr, factor)`: the constant learning rate whose *worst* contraction per step,
# $\max_i |1 - \text{lr}\; h_i|$, is smallest, and that contraction.


# %% tags=["exercise:best_step"]
def best_step(curvatures):
    ### BEGIN SOLUTION
    flat, steep = np.min(curvatures), np.max(curvatures)
    return 2 / (steep + flat), (steep - flat) / (steep + flat)
    ### END SOLUTION


# %% tags=["check:best_step"]
check("best_step", best_step)

# %% [markdown] tags=["solution-only"]
# $|1 - \text{lr}\,h|$ is largest at one of the two ends, whatever lies between. Raising lr improves the flat end and
# worsens the steep one, so they are equal at the best lr: $1 - \text{lr}\,\mu = \text{lr}\,L - 1$. The factor is
# $(\kappa-1)/(\kappa+1)$; with equal curvatures it is 0, and one step arrives. For $\kappa = 100$, the steps that
# shrink the distance to a hundredth:

# %% tags=["solution-only"]
lr, factor = best_step([1.0, 100.0])
print(f"lr {lr:.4f}, factor {factor:.4f}, {math.log(0.01) / math.log(factor):.0f} steps")

# %% [markdown]
# ## 4. Sharpness without a Hessian
#
# *Level 3, 20 minutes, id `sharpness`.* `loss` maps a float64 tensor of shape `(n,)` to a scalar tensor; `point` is
# such a tensor and does not require a gradient. Return, as a float, the Hessian's eigenvalue of largest *absolute*
# value at `point`, with its sign. $n$ may be 100,000: the Hessian would take 80 GB, so never form it. Use power
# iteration: start from a vector of random numbers, repeat $v \leftarrow Hv/\lVert Hv\rVert$ `iterations` times, and get
# $Hv$ by differentiating the gradient once more along $v$. Right within 0.1%.


# %% tags=["exercise:sharpness"]
def sharpness(loss, point, iterations=200):
    ### BEGIN SOLUTION
    point = point.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(point), point, create_graph=True)
    v = torch.from_numpy(np.random.default_rng(0).standard_normal(len(point)))
    for _ in range(iterations):
        v = v / v.norm()
        (image,) = torch.autograd.grad(gradient, point, v, retain_graph=True)
        value = v @ image
        v = image
    return value.item()
    ### END SOLUTION


# %% tags=["check:sharpness"]
check("sharpness", sharpness)

# %% [markdown] tags=["solution-only"]
# `autograd.grad(gradient, point, v)` is the derivative of $g(x)^\top v$, which is $Hv$, since $v$ is held fixed. It
# needs a gradient with a graph (`create_graph=True`), and `retain_graph=True` keeps that graph for the next product.
#
# Each multiplication enlarges the component along the top eigenvector the most; dividing by the length keeps the
# numbers finite. The eigenvalue is $v^\top Hv$ for a $v$ of length 1. The length $\lVert Hv\rVert$ would lose the sign:
# a saddle whose steepest direction goes *down* would pass for a steep valley.

# %% tags=["solution-only"]
print(round(sharpness(lambda x: x[0] ** 2 - 5 * x[1] ** 2, torch.zeros(2, dtype=torch.float64)), 6))

# %% [markdown]
# ## 5. The noise floor
#
# *Level 2, 15 minutes, id `noise_floor`.* Descent with noisy gradients on $f = \tfrac12 h x^2$:
#
# $$ x \leftarrow x - \text{lr}\,(h\,x + \sigma z), \qquad z \sim \mathcal N(0, 1) \text{ independent at each step.} $$
#
# `curvature` is $h > 0$ and `noise` is $\sigma \ge 0$. Return the variance of $x$ after very many steps, as a float,
# and `math.inf` where it never settles.


# %% tags=["exercise:noise_floor"]
def noise_floor(lr, curvature, noise):
    ### BEGIN SOLUTION
    if lr * curvature >= 2:
        return math.inf
    return lr * noise**2 / (curvature * (2 - lr * curvature))
    ### END SOLUTION


# %% tags=["check:noise_floor"]
check("noise_floor", noise_floor)

# %% [markdown] tags=["solution-only"]
# The new noise is independent of $x$, so variances add: $V \leftarrow (1-\text{lr}\,h)^2 V + \text{lr}^2\sigma^2$.
# Setting both $V$ equal, $V\,(2\,\text{lr}\,h - \text{lr}^2h^2) = \text{lr}^2\sigma^2$. For a small lr it is
# $\text{lr}\,\sigma^2/(2h)$: the floor is proportional to lr, and to $\sigma^2$, which falls as one over the batch
# size. At $\text{lr}\,h = 2$ the factor is $-1$: nothing of the past is forgotten, and noise adds up for ever. (At
# $\text{lr}\,h = 1$ each step forgets everything, and $V = \text{lr}^2\sigma^2$.)

# %% tags=["solution-only"]
print([round(noise_floor(lr, 2.0, 1.0), 4) for lr in (0.5, 0.9, 1.0)])

# %% [markdown]
# ## 6. Accumulating unequal micro-batches
#
# *Level 1, 10 minutes, id `accumulated_gradient`.* A batch was too large for memory and went through in $k$
# micro-batches. Row $i$ of `means`, of shape `(k, n)`, is the gradient of the *mean* loss of micro-batch $i$, which had
# `counts[i]` examples. Return the gradient of the mean loss over all examples, of shape `(n,)`.


# %% tags=["exercise:accumulated_gradient"]
def accumulated_gradient(means, counts):
    ### BEGIN SOLUTION
    counts = np.asarray(counts, dtype=np.float64)
    return counts @ np.asarray(means) / counts.sum()
    ### END SOLUTION


# %% tags=["check:accumulated_gradient"]
check("accumulated_gradient", accumulated_gradient)

# %% [markdown] tags=["solution-only"]
# A mean times its count is a sum; sums add; the total count divides once. The mean of the means, `means.mean(axis=0)`,
# is the same only if all counts are equal. In a language model the count is the number of *target tokens*, not of
# sequences, and padding does not count. In a training loop: `F.cross_entropy(..., reduction="sum") / total`, with
# `total` over the whole accumulated batch and over all devices. You must know it before the first `backward()`.

# %% tags=["solution-only"]
print(accumulated_gradient(np.array([[1.0], [4.0]]), np.array([2, 1])))
