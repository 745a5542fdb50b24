"""The exercises of the course as data. Importing this pays for nothing: no torch, no NumPy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        id: what ``check`` and the ``course`` command call it.
        title: one line.
        notebook: the exercise notebook it stands in, without folder and ending.
        answer: the name that the learner's answer is bound to.
        kind: ``optimizer`` (a class), ``function`` or ``number``.
        hints: tiers, from a question to all but the answer.
    """

    id: str
    title: str
    notebook: str
    answer: str
    kind: str
    hints: tuple[str, ...]


_ALL = (
    Exercise(
        "gradient_descent", "Gradient descent, and where it has been", "01_gradient_descent", "gradient_descent", "function",
        (
            "How many points does a walk of `steps` steps visit, if the start counts as one?",
            "Each row is the row before it, less lr times the gradient there. Does each row keep its own numbers when the next is made?",
            "`x = start.copy()`, `points = [x]`; then `steps` times: `x = x - lr * gradient(x)` (a new array each time) and "
            "`points.append(x)`; at the end `np.stack(points)`.",
        ),
    ),
    Exercise(
        "largest_lr", "The largest learning rate", "01_gradient_descent", "largest_lr", "number",
        (
            "Along which direction does this bowl curve most? It need be neither axis.",
            "Write f = x^T H x / 2 with a symmetric H: the term 4ab is shared by two entries. Then find its largest eigenvalue L.",
            "H = [[3, 2], [2, 6]]: trace 9, determinant 14, so the eigenvalues solve z^2 - 9z + 14 = 0. The bound is 2 / L.",
        ),
    ),
    Exercise(
        "best_step", "The best constant step", "01_gradient_descent", "best_step", "function",
        (
            "By which factor does a step shrink the error along an eigenvector of curvature c? Which curvatures are the worst?",
            "The factor is |1 - lr * c|. Only the smallest and the largest curvature matter: make both equally bad.",
            "Solve lr * L - 1 = 1 - lr * mu for lr, with L = max and mu = min; the factor is 1 - lr * mu.",
        ),
    ),
    Exercise(
        "sharpness", "Sharpness without a Hessian", "01_gradient_descent", "sharpness", "function",
        (
            "Multiply a vector by H again and again: which direction is left? And how does one multiply by H without having it?",
            "H v is the gradient of (g . v), with g the gradient of the loss, taken with `create_graph=True`. Normalise v "
            "each time. A norm has no sign: what tells the sign of the eigenvalue?",
            "Once: `x = point.detach().clone().requires_grad_()`, g from `torch.autograd.grad(loss(x), x, create_graph=True)`. "
            "In the loop: `hv, = torch.autograd.grad(g, x, v, retain_graph=True)`, `value = v @ hv`, `v = hv / hv.norm()`.",
        ),
    ),
    Exercise(
        "noise_floor", "The floor that noise leaves", "01_gradient_descent", "noise_floor", "function",
        (
            "If the variance of x is s before a step, what is it after the step? What does stationary say about the two?",
            "x becomes (1 - lr c) x - lr noise z, and z is independent of x: s = (1 - lr c)^2 s + lr^2 noise^2.",
            "Solve for s and shorten: lr * noise**2 / (curvature * (2 - lr * curvature)). Before that, return math.inf "
            "if lr * curvature >= 2.",
        ),
    ),
    Exercise(
        "accumulated_gradient", "Accumulating uneven micro-batches", "01_gradient_descent", "accumulated_gradient", "function",
        (
            "Three examples in one micro-batch and one in the next: does each example count the same in the mean of the two means?",
            "Turn each mean back into a sum over its examples. What must the sum of the sums be divided by?",
            "`(counts[:, None] * means).sum(axis=0) / counts.sum()`.",
        ),
    ),
    Exercise(
        "momentum", "SGD with momentum", "02_momentum", "SGD", "optimizer",
        (
            "What does the buffer hold after the very first step: the gradient, or a fraction of it?",
            "torch's buffer is a sum with gain 1 / (1 - momentum): `buf = momentum * buf + (1 - dampening) * g`, "
            "but the first buffer is the gradient itself. The learning rate stays outside.",
            "Order within a step: add `weight_decay * p` to a copy of the gradient; update the buffer; then `p -= lr * buf`. "
            "Keep one buffer per parameter, made when its first gradient arrives.",
        ),
    ),
    Exercise(
        "nesterov", "Nesterov momentum in torch's form", "02_momentum", "Nesterov", "optimizer",
        (
            "The heavy ball steps along its buffer. What does Nesterov's step have that the buffer's step has not?",
            "The buffer is the heavy ball's, `b = momentum * b + g`, with b = g at first. The step takes the gradient whole and looks ahead "
            "along the *new* buffer. In which of the two places does momentum multiply what?",
            "Order within a step: add `weight_decay * p` to a copy of the gradient; `b = momentum * b + g`; then "
            "`p -= lr * (g + momentum * b)`, the same g in both lines. The buffer itself must not change when the step is computed.",
        ),
    ),
    Exercise(
        "nesterov_lookahead", "Nesterov's look-ahead", "02_momentum", "nesterov_lookahead", "function",
        (
            "Where is the gradient taken, and from where does the step start? They are two different points.",
            "Only the gradient is taken at theta + momentum * v. The velocity starts at 0 and already carries lr.",
            "`v = momentum * v - lr * gradient(theta + momentum * v)`, `theta = theta + v`; collect theta, the start included, "
            "as new arrays.",
        ),
    ),
    Exercise(
        "optimal_momentum", "The best momentum for a bowl", "02_momentum", "optimal_momentum", "function",
        (
            "Gradient descent's factor depends on the condition number L / mu. On what does the heavy ball's depend?",
            "Every curvature between mu and L should shrink by the same factor, the square root of the momentum. All three "
            "answers are made of sqrt(L) and sqrt(mu).",
            "With a = sqrt(max), b = sqrt(min): lr = (2 / (a + b))^2, momentum = ((a - b) / (a + b))^2, factor = (a - b) / (a + b).",
        ),
    ),
    Exercise(
        "two_conventions", "The learning rate, outside or inside", "02_momentum", "two_conventions", "function",
        (
            "When lr changes, which past gradients does the new lr multiply in each convention?",
            "Outside: the buffer is a sum of gradients, and today's lr multiplies all of it. Inside: each gradient is "
            "multiplied by the lr of its own day, and keeps it.",
            "Per step: `b = momentum * b + g`, outside `lr * b`; `v = momentum * v + lr * g`, inside `v`. Two buffers, both from 0.",
        ),
    ),
    Exercise(
        "momentum_bug", "A bug to find in an SGD", "02_momentum", "RepairedSGD", "optimizer",
        (
            "With a fresh `p.grad` at every step this optimizer is exactly right. Under which training loop is `p.grad` not fresh?",
            "Make one step, call `zero_grad(set_to_none=False)`, and print the buffer. Then accumulate two backward() passes and print it again.",
            "After the first step, compare `state[...].data_ptr()` with `p.grad.data_ptr()`: the buffer must have memory of its own from the start.",
        ),
    ),
    Exercise(
        "coasting_distance", "How far momentum coasts", "02_momentum", "distance", "number",
        (
            "What has torch's buffer grown to after a long run of gradients of 1? And at the first step without gradient?",
            "The buffer has reached 1 / (1 - 0.9) = 10. Each step without gradient multiplies it by 0.9 first, then moves by lr times it.",
            "0.01 * 10 * (0.9 + 0.9^2 + 0.9^3 + ...): sum the geometric series.",
        ),
    ),
    Exercise(
        "adagrad", "AdaGrad", "03_adaptive_rates", "Adagrad", "optimizer",
        (
            "What does AdaGrad remember about each element, and does it ever forget any of it?",
            "A sum of squared gradients that starts at zero and takes this gradient in before it is used. Is eps inside the root, or outside?",
            "Order within a step: L2 term into a copy of the gradient; `v += g**2`; then `p -= lr * g / (v.sqrt() + eps)`. "
            "`v.sqrt_()` would write the root into what you keep.",
        ),
    ),
    Exercise(
        "sparse_adagrad", "AdaGrad for an embedding table", "03_adaptive_rates", "sparse_adagrad", "function",
        (
            "If a token occurs twice in a batch, what is the gradient of its row: two gradients, or one?",
            "Add the gradients of a row up first, then square. `table[rows] -= ...` writes a repeated row only once: what adds "
            "at repeated indices?",
            "`unique, place = np.unique(rows, return_inverse=True)`, `total = np.zeros((len(unique), d))`, "
            "`np.add.at(total, place, grads)`; then AdaGrad on copies: `sums[unique] += total**2`, and the step with sqrt(sums) + eps.",
        ),
    ),
    Exercise(
        "adagrad_step", "AdaGrad's shrinking step", "03_adaptive_rates", "step", "number",
        (
            "With a constant gradient g, what is the sum of squares after t steps?",
            "The step is lr * g / sqrt(t * g^2): how does it depend on t?",
            "The step falls like 1 / sqrt(t). Solve 1 / sqrt(t) = 0.01.",
        ),
    ),
    Exercise(
        "rmsprop", "RMSProp", "03_adaptive_rates", "RMSprop", "optimizer",
        (
            "Which average does the denominator come from: of gradients, or of their squares? Where does eps go?",
            "`v = alpha * v + (1 - alpha) * g**2`, then divide the gradient by `sqrt(v) + eps`: eps outside the root, "
            "and no bias correction.",
            "Order within a step: L2 term into a copy of the gradient, v, then `p -= lr * g / (v.sqrt() + eps)`. "
            "One v per parameter, zeros at its first gradient.",
        ),
    ),
    Exercise(
        "centered_divisor", "The centred divisor", "03_adaptive_rates", "centered_divisor", "function",
        (
            "The mean of the squares less the square of the mean: what is that called, and when is it small?",
            "Keep two averages, both from 0 and both with alpha: of g and of g^2. Where does eps go?",
            "Per step: `m = alpha * m + (1 - alpha) * g`, `v = alpha * v + (1 - alpha) * g**2`, row `np.sqrt(np.maximum(v - m**2, 0)) + eps`.",
        ),
    ),
    Exercise(
        "adadelta", "Adadelta", "03_adaptive_rates", "Adadelta", "optimizer",
        (
            "Which units does a step of AdaGrad have, and which should it have to be taken from a parameter? What could supply them?",
            "Two averages with the same rho: of squared gradients, renewed before the update, and of squared updates, renewed after it. "
            "Both start at zero. What would the first update be if eps stood outside the roots, or only below?",
            "`v = rho * v + (1 - rho) * g**2`; `d = (u + eps).sqrt() / (v + eps).sqrt() * g`; `u = rho * u + (1 - rho) * d**2`; "
            "`p -= lr * d`. What u remembers is d, without lr.",
        ),
    ),
    Exercise(
        "adadelta_first_step", "Adadelta's first step", "03_adaptive_rates", "first_step", "number",
        (
            "Adadelta multiplies the gradient by a ratio of two roots. What is in the upper one before anything has moved?",
            "Above: sqrt(0 + eps). Below: sqrt(the average of squares after the first gradient + eps). The average starts at 0.",
            "The average of squares is (1 - 0.9) * 1^2 = 0.1, so the step is sqrt(1e-6) / sqrt(0.1 + 1e-6) times lr = 1.",
        ),
    ),
    Exercise(
        "bias_corrected_moment", "One bias-corrected moment", "04_adam", "bias_corrected_moment", "function",
        (
            "If every gradient so far were 1, what would m be after t steps, and what should the estimate be?",
            "The weights of the average sum to (1 - beta) * (1 + beta + ... + beta^(t-1)). Add up the geometric series.",
            "Run `m = beta * m + (1 - beta) * g` over the rows, and divide the result at step t by `1 - beta**t`, t starting at 1.",
        ),
    ),
    Exercise(
        "efficient_step", "Adam's efficient step", "04_adam", "efficient_step", "function",
        (
            "Write out m_hat / (sqrt(v_hat) + eps) with both corrections in it. Which factors can leave the fraction?",
            "Multiply numerator and denominator by sqrt(1 - beta2^t): what happens to eps?",
            "alpha_t = lr * sqrt(1 - beta2^t) / (1 - beta1^t) and eps_hat = eps * sqrt(1 - beta2^t); the step is alpha_t * m / (sqrt(v) + eps_hat).",
        ),
    ),
    Exercise(
        "adam", "Adam, guided", "04_adam", "Adam", "optimizer",
        (
            "Which three things must be remembered for each parameter between steps?",
            "Per parameter: t, m, v. Correct both moments by 1 - beta^t, and add eps after the root.",
            "Inside the loop: t += 1; m and v in place; `m_hat = m / (1 - beta1**t)`; `v_hat = v / (1 - beta2**t)`; "
            "`p -= lr * m_hat / (v_hat.sqrt() + eps)` under torch.no_grad().",
        ),
    ),
    Exercise(
        "adam_blank", "Adam, blank page", "04_adam", "Adam", "optimizer",
        (
            "What does torch.optim.Optimizer do for you, and what does it leave to you?",
            "Subclass torch.optim.Optimizer: its state and param_groups make state_dict and load_state_dict work. "
            "You write __init__ (defaults) and step (closure, maximize, the rule).",
            "In step: call the closure under torch.enable_grad() before anything reads a gradient, and return what it returned; "
            "negate a copy of the gradient for maximize; keep step, exp_avg and exp_avg_sq in self.state[p].",
        ),
    ),
    Exercise(
        "rectifier", "RAdam's rectifier", "04_adam", "rectifier", "function",
        (
            "How many gradients does v rest on after t steps? RAdam calls that number rho: what is its limit for large t?",
            "rho_inf = 2 / (1 - beta2) - 1 and rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t). Up to rho_t = 5 there is no rectification.",
            "r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t)), and 0.0 where rho_t <= 5: test that first.",
        ),
    ),
    Exercise(
        "adam_state_bytes", "The bytes Adam remembers", "04_adam", "state_bytes", "number",
        (
            "How many numbers does Adam keep beside each parameter, and how many bytes is a float32?",
            "Two float32 numbers per parameter: m and v. The weights, the gradients and a master copy are not asked for.",
            "2 * 4 bytes times 7e9 parameters; the answer is in bytes.",
        ),
    ),
    Exercise(
        "adamw", "AdamW, guided", "05_adamw", "AdamW", "optimizer",
        (
            "If the loss gradient is exactly zero, what should one step do to a weight?",
            "The moments see the bare gradient. The decay multiplies the weight by 1 - lr * weight_decay, once per step.",
            "First `p *= 1 - lr * weight_decay`, then Adam's step on the gradient as it came.",
        ),
    ),
    Exercise(
        "adamw_blank", "AdamW, blank page", "05_adamw", "AdamW", "optimizer",
        (
            "What must survive a checkpoint for the next step to be the same?",
            "Subclass torch.optim.Optimizer and keep everything in self.state and self.param_groups; read lr from the group at each step.",
            "closure, maximize, missing gradients, then: decay, m, v, both corrections, the step; all in place under torch.no_grad().",
        ),
    ),
    Exercise(
        "adamw_bug", "A bug to find in an AdamW", "05_adamw", "RepairedAdamW", "optimizer",
        (
            "With one tensor this optimizer is exactly AdamW. What is different when the model has two?",
            "Print the step count after one call of step() on a model with three tensors.",
            "The count belongs to a parameter, not to the group: each parameter's t must advance by one per step.",
        ),
    ),
    Exercise(
        "decay_steps", "How long weight decay takes", "05_adamw", "steps", "number",
        (
            "By which factor does a weight without gradient shrink in one step of torch's AdamW?",
            "After n steps it is (1 - lr * weight_decay)^n. Set that equal to 1/e.",
            "n = -1 / log(1 - lr * weight_decay), very nearly 1 / (lr * weight_decay).",
        ),
    ),
    Exercise(
        "decay_groups", "Which parameters decay", "05_adamw", "decay_groups", "function",
        (
            "Which shapes do norm gains and biases have, and which do weight matrices have?",
            "Go over the model's parameters, not over names: tied weights come once, frozen ones are left out.",
            "Two lists by `p.dim() >= 2`, over `model.parameters()` with `p.requires_grad`; two groups, the second with weight_decay 0.0.",
        ),
    ),
    Exercise(
        "block_rates", "One rate, or one for each block", "06_why_adam", "block_rates", "function",
        (
            "Along which direction does a step with rate eta multiply the error by 1 - eta * c, and what is c? Which c is the worst for a given eta?",
            "Take the eigenvalues of each block (`np.linalg.eigvalsh`). A rate has to serve a smallest and a largest curvature: the best one "
            "makes both equally bad. Whose smallest and largest are they in each of the two cases?",
            "The factor is (L - mu) / (L + mu). For `one`, L and mu are the largest and the smallest eigenvalue of all blocks together; for "
            "`per_block`, take the factor of each block by itself, and the largest of these.",
        ),
    ),
    Exercise(
        "zipf_half", "How long a rare token waits", "06_why_adam", "steps", "number",
        (
            "What is the curvature of a token's row, and by which factor does a step multiply its error?",
            "With lr = 1 / (largest curvature) the factor is 1 - (frequency of token 1000) / (frequency of token 1). What of Zipf's law is left in it?",
            "(1 - 1/1000)^t <= 1/2: take logarithms, divide, and round up.",
        ),
    ),
    Exercise(
        "edge_of_the_grid", "A comparison that is not fair yet", "06_why_adam", "unfair", "number",
        (
            "When do you know that a best learning rate is the best, and not the best of those that somebody happened to try?",
            "Sort the sixteen runs into four rows: two batches, two optimizers, by rate. Mark the lowest loss of each row.",
            "Three of the four marks have a worse run on either side. The fourth stands at the end of its row.",
        ),
    ),
    Exercise(
        "warmup_cosine", "Warmup and cosine", "07_schedules", "warmup_cosine", "function",
        (
            "Write down the values at the steps 0, warmup - 1, warmup, total - 1, total and total + 1 before you write code.",
            "After the warmup, which share of the descent is over at `step`? It is 0 at `warmup`, 1 at `total`, and never more.",
            "`if step < warmup: return (step + 1) / warmup`; `p = min((step - warmup) / (total - warmup), 1)`; then floor + (1 - floor) * "
            "(1 + cos(pi * p)) / 2.",
        ),
    ),
    Exercise(
        "warmup_stable_decay", "Warmup, stable, decay", "07_schedules", "warmup_stable_decay", "function",
        (
            "At which step does the fall begin? And at which if the warmup is longer than what the fall leaves?",
            "start = total - round(share * total), but not below warmup. Four stretches: below warmup, below start, below total, and the rest.",
            "`start = max(total - round(share * total), warmup)`; after the warmup and the plateau `p = min((step - start) / (total - start), 1)` and "
            "floor + (1 - floor) * (1 - sqrt(p)).",
        ),
    ),
    Exercise(
        "parameter_groups", "What decays, and what does not", "07_schedules", "parameter_groups", "function",
        (
            "A tensor does not know which module holds it, and may be held by two. What do you have to find out before you sort the first one?",
            "Two passes. Over `model.modules()`: collect the `id` of every tensor that an embedding or a norm holds. Over `model.parameters()`, which "
            "gives each tensor once and in order: sort.",
            "A trained tensor goes into the second group if it has fewer than two dimensions or its id was collected, else into the first. "
            "`isinstance(module, (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm))`.",
        ),
    ),
    Exercise(
        "layer_rates", "A rate for each layer", "07_schedules", "layer_rates", "function",
        (
            "How many steps down is it from the head to the embedding, if there are two blocks?",
            "Head: 0 steps, last block: 1, ..., block 0: `layers`, embedding: layers + 1. The list begins with the embedding.",
            "`[lr * decay**steps for steps in range(layers + 1, -1, -1)]`.",
        ),
    ),
    Exercise(
        "decay_left", "What a schedule leaves of a weight", "07_schedules", "left", "number",
        (
            "By what does AdamW multiply a weight without gradient, and which rate is in that factor?",
            "The factors 1 - lr * weight_decay of all updates multiply. For small ones that is exp(- weight_decay * sum of the rates).",
            "The sum of the rates is the area under the line up to update 12,000: a triangle and a trapezium. Or make an array of the 12,000 rates, and np.prod.",
        ),
    ),
    Exercise(
        "clip_by_global_norm", "Clip by the global norm", "08_stability", "clip_by_global_norm", "function",
        (
            "How long is the gradient of the whole model, and when is that known: inside the loop over the tensors, or after it?",
            "A list of the gradients that exist; the sum of their squares, each in float32 or better; then one factor for all. For which norms is "
            "nothing to be done: think of 0, of inf, and of NaN.",
            "`grads = [p.grad for p in parameters if p.grad is not None]`; `norm = math.sqrt(sum(g.double().square().sum().item() for g in grads))`; "
            "`if max_norm < norm < math.inf`: each `g.mul_(max_norm / norm)`; return norm.",
        ),
    ),
    Exercise(
        "token_mean_step", "One step, every token one vote", "08_stability", "token_mean_step", "function",
        (
            "By which one number must every micro-batch's sum be divided so that all tokens have the same vote? Can it be known inside the loop?",
            "Count the targets that are not -100 over all micro-batches first. Then zero the gradients, and for each micro-batch call backward on its "
            "sum over that count. What if the count is 0?",
            "`tokens = sum(int((y != -100).sum()) for _, y in micro_batches)`; 0.0 if there are none; `optimizer.zero_grad()`; in the loop "
            "`loss = loss_sum(model, x, y) / tokens`, `loss.backward()`, `total += loss.item()`; `optimizer.step()`.",
        ),
    ),
    Exercise(
        "ema_corrected", "An average that survives a NaN", "08_stability", "ema_corrected", "function",
        (
            "Which two things must be kept from row to row beside the average, if broken rows are to leave no trace?",
            "m starts at zero and changes in sound rows only, and so does their count t. What is the row of a broken step, before and after the first "
            "sound one?",
            "`last` starts as NaN. For each row: if `np.isfinite(row).all()`: t += 1, `m = decay * m + (1 - decay) * row` and "
            "`last = m / (1 - decay**t)`. Append `last` in either case; np.stack at the end.",
        ),
    ),
    Exercise(
        "z_loss", "The z-loss and its gradient", "08_stability", "z_loss", "function",
        (
            "What is the derivative of log sum exp by one logit? You know it by another name.",
            "The chain rule: 2 * coefficient * log Z times softmax, over the number of rows. And exp(10,000)? What may be subtracted from a row's logits, "
            "and what must be added afterwards?",
            "`top = logits.max(axis=1, keepdims=True)`, `log_z = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))`; loss "
            "`coefficient * (log_z**2).mean()`; gradient `2 * coefficient * log_z * np.exp(logits - log_z) / len(logits)`.",
        ),
    ),
    Exercise(
        "residual_std", "GPT-2's scaled initialisation", "08_stability", "std", "number",
        (
            "If 96 independent branches of variance s^2 are added, what is the variance of the sum? And its standard deviation?",
            "A block has two branches, attention and the MLP. N branches add up to N s^2: each deviation is divided by the root of N.",
            "0.02 / sqrt(2 * 48).",
        ),
    ),
    Exercise(
        "first_symptom", "The first symptom in a log", "08_stability", "step", "number",
        (
            "For each column: what is its usual change from row to row? Which column is the first to leave its course and never come back?",
            "Warmup makes gradients large and steps long; a bad batch makes loss and gradient norm jump together, and passes. Look at what grows by "
            "factors where it grew by summands before.",
            "The largest logit: +2, +2, +2, +1 a row, then times two in each row. The first row that has doubled is asked for.",
        ),
    ),
    Exercise(
        "noise_scale", "The noise scale from a run's own gradients", "09_large_batch", "noise_scale", "function",
        (
            "What is the expected squared length of a gradient of batch size B, in terms of |G|^2 and tr S? How many such equations do you have?",
            "Average the squared lengths first, over steps and workers. The difference of the two means is tr S (1 / small - 1 / big). Where does the "
            "ratio come: before the averages or after?",
            "`a, b = norm_small_squared.mean(), norm_big_squared.mean()`; signal `(big * b - small * a) / (big - small)`; noise "
            "`(a - b) / (1 / small - 1 / big)`; ratio `noise / signal if signal > 0 else math.inf`.",
        ),
    ),
    Exercise(
        "lamb_step", "One step of LAMB", "09_large_batch", "lamb_step", "function",
        (
            "Whose length stands above in the ratio, and whose below? Is the weight decay in what is measured?",
            "m and v as Adam's, both corrected; u = m_hat / (sqrt(v_hat) + eps) + weight_decay * w, a row for each layer. Lengths along axis 1 "
            "with keepdims. Which rows have the ratio 1?",
            "`size, length = (np.linalg.norm(x, axis=1, keepdims=True) for x in (w, u))`; `ratio = np.ones_like(size)`; "
            "`np.divide(size, length, out=ratio, where=(size > 0) & (length > 0))`; `w - lr * ratio * u`, the new m, the new v.",
        ),
    ),
    Exercise(
        "scale_rule", "The rules for a larger batch", "09_large_batch", "scale_rule", "function",
        (
            "In n / k steps, each of which sees k times as many examples: how far does SGD drift, and how much noise does it collect? And Adam, whose sqrt(v) is "
            "the noise's size?",
            "SGD: k lr. Adam: sqrt(k) lr; an average over as many examples has 1 - beta k times as large; eps stands beside sqrt(v), which falls by "
            "sqrt(k). Where does that end?",
            "sgd: (k * lr, betas, eps). adam: betas `tuple(1 - k * (1 - beta) for beta in betas)`, a ValueError if min(betas) < 0, and "
            "(math.sqrt(k) * lr, betas, eps / math.sqrt(k)).",
        ),
    ),
    Exercise(
        "steps_needed", "Steps at a given batch", "09_large_batch", "steps", "number",
        (
            "What is the critical batch size here, and is 1 million tokens above or below it?",
            "B_crit = E_min / S_min. A step at batch B gains 1 / (1 + B_crit / B) of what a noiseless one gains.",
            "S = 20,000 * (1 + 2.5 / 1).",
        ),
    ),
    Exercise(
        "model_state_gb", "Bytes of the model states", "10_memory_accounting", "model_state_gb", "function",
        (
            "What lies in memory between two training steps, whatever the batch? Name every tensor, and say how many bytes an element has.",
            "Per parameter: weights + gradients + master copy + (number of state tensors) x (bytes of an element). Which optimizer keeps "
            "how many tensors? And which of the four terms does each recipe change?",
            "weights, gradients, master, element: fp32 4, 4, 0, 4; mixed 2, 2, 4, 4; with fp32 gradients 2, 4, 4, 4; bf16 2, 2, 0, 2. State tensors: "
            "sgd 0, momentum 1, lion 1, adamw 2; adamw8bit 2 of 1 + 4/256 bytes in every recipe. Add up, times parameters, over 1e9.",
        ),
    ),
    Exercise(
        "zero_bytes", "What ZeRO divides", "10_memory_accounting", "zero_bytes", "function",
        (
            "In plain data parallelism each GPU holds the same 16 bytes per parameter. Which of them are needed only by whoever updates that parameter?",
            "Stage 1 divides what the optimizer keeps (12 bytes), stage 2 the gradients too, stage 3 the weights too. What is not divided is "
            "whole on every GPU.",
            "Per parameter and GPU, with N GPUs: 16, then 4 + 12 / N, then 2 + 14 / N, then 16 / N.",
        ),
    ),
    Exercise(
        "largest_model", "The largest model", "10_memory_accounting", "parameters", "number",
        (
            "How many bytes does one parameter take on one GPU in ZeRO-2?",
            "The weights are whole, 2 bytes. Gradients and the optimizer's part, 2 + 12 bytes, are divided by 8.",
            "2 + 14 / 8 = 3.75 bytes per parameter, and a card of 80e9 bytes.",
        ),
    ),
    Exercise(
        "activation_bytes", "What a block keeps for backward", "10_memory_accounting", "activation_bytes", "function",
        (
            "Which tensors of the list have the shape (batch, sequence, width), which are wider, and which have no width at all?",
            "In units of batch x sequence x width elements: norms 2 + 2, Q, K, V 3, the attention's output 1, the MLP's hidden layer twice 4. "
            "What does each kind of attention add, and how many bytes has an element of it?",
            "16 units of 2 bytes: 32 * batch * sequence * width. Eager adds 2 bytes for each element of (batch, heads, sequence, sequence), "
            "flash 4 bytes for each element of (batch, heads, sequence).",
        ),
    ),
    Exercise(
        "eight_bit_bytes", "The state of an 8-bit AdamW", "10_memory_accounting", "state_bytes", "number",
        (
            "A code of one byte says where a number lies between -1 and 1. What must be stored besides, and for how many elements at once?",
            "Two states of 1024 x 4096 elements, one byte each; and for each state a float32 for each block of 256 elements.",
            "2 * (4,194,304 + 4 * 4,194,304 / 256).",
        ),
    ),
    Exercise(
        "logits_gb", "The logits alone", "10_memory_accounting", "logits_gb", "number",
        (
            "Which shape do the logits of a training step have?",
            "One number for each sequence, position and entry of the vocabulary; four bytes each.",
            "4 * 8192 * 128,256 logits, times 4 bytes, over 1e9.",
        ),
    ),
    Exercise(
        "next_scale", "The scaler's rule", "11_mixed_precision", "next_scale", "function",
        (
            "Which of three things can a step do to the scale, and what does each do to the count?",
            "First ask for an overflow: scale times backoff_factor, count 0. Otherwise the step just made counts, too: is the interval full with it?",
            "if found_inf: return scale * backoff_factor, 0. If clean_steps + 1 < growth_interval: return scale, clean_steps + 1. Else the "
            "count is 0 and the scale grows, unless scale * growth_factor exceeds float32's largest number.",
        ),
    ),
    Exercise(
        "amp_step", "One step under a loss scaler", "11_mixed_precision", "amp_step", "function",
        (
            "In which units are the gradients after backward, and in which is max_norm? What is the last thing that may happen to .grad before the step?",
            "Inside the loop: the scaled share of each loss, and backward. After the loop, once: unscale_, clip, step, update. Who decides "
            "whether the step is made?",
            "`optimizer.zero_grad()`; for each batch `scaler.scale(loss_fn(model, batch) / len(batches)).backward()`; then "
            "`scaler.unscale_(optimizer)`, `torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)`, `scaler.step(optimizer)`, `scaler.update()`.",
        ),
    ),
    Exercise(
        "resume_state", "What a resume needs", "11_mixed_precision", "resume_state", "function",
        (
            "What, besides the weights, makes the next step what it is? And which of it changes while the run goes on?",
            "Each of the four objects has a `state_dict()`, the generator a `get_state()`. Do the tensors in a state_dict have memory of their own?",
            "A dict of the four `state_dict()` and `generator.get_state()` under the keys of the exercise, all of it through `copy.deepcopy`.",
        ),
    ),
    Exercise(
        "four_sums", "One sum in four ways", "11_mixed_precision", "four_sums", "function",
        (
            "Two things can be rounded here: the term, once, and the total, at every addition. Which of the four rounds which?",
            "NumPy gives the sum of a float32 and a float16 as float32. Which type does your total have after an addition? Print `total.dtype`.",
            "Four loops: total = np.float32(0) with np.float32(value), np.float16(0) with np.float16(value), np.float32(0) with "
            "np.float16(value), np.float32(0) with np.float32(np.float16(value)); each `total = total + term`, count times.",
        ),
    ),
    Exercise(
        "stochastic_round", "Stochastic rounding", "11_mixed_precision", "stochastic_round", "function",
        (
            "bf16 is the upper half of a float32's bits. If a random number is added to the lower half, how likely is a carry into the upper?",
            "`x.view(torch.int32)` has the bits. Add the noise, set the low 16 bits to zero, view the sum as float32. Which NaN does not survive that?",
            "`bits = (x.view(torch.int32) + noise) & -65536`, `rounded = bits.view(torch.float32)`; where x is NaN keep x; at the end `.to(torch.bfloat16)`, "
            "which is exact by then.",
        ),
    ),
    Exercise(
        "smallest_scale", "The smallest scale that keeps a gradient", "11_mixed_precision", "scale", "number",
        (
            "What is the smallest number above zero that fp16 has? And what does half of it round to?",
            "fp16's subnormal numbers are multiples of 2^-24 = 5.96e-8. What lies below the middle between 0 and 2^-24 becomes 0.",
            "The scaled gradient must exceed 2^-25 = 2.98e-8: try 1, 2, 4, 8 with np.float16(scale * 1e-8).",
        ),
    ),
    Exercise(
        "frozen_step", "The step that bf16 does not see", "11_mixed_precision", "step", "number",
        (
            "Which is the largest bf16 number below 1? The spacing below 1 is not the one above.",
            "bf16 has 8 bits of significand, 7 of them behind the point: 2^-7 apart above 1, 2^-8 apart below. How far may a number lie from "
            "1 and still round to it?",
            "The middle between 1 - 2^-8 and 1 is a tie, and a tie goes to the even one: 1. Half the spacing, that is.",
        ),
    ),
    Exercise(
        "underflow_step", "A log that shows underflow", "11_mixed_precision", "step", "number",
        (
            "Which column tells that gradients have become zero? Some are zero at every step: how many, in this log?",
            "A small scale alone is no underflow, and neither is a skipped step. Look for the first row in which more gradients are zero than the rows "
            "of the embedding explain.",
            "3% is the share of unused embedding rows. Go down the column until it is clearly more.",
        ),
    ),
    Exercise(
        "step_bytes", "The bytes that a step moves", "12_production_kernels", "step_bytes", "function",
        (
            "Which tensors must a step have read before it can write the new weight, and which of them does it change?",
            "What changes is read and written, the gradient is read. If there is a master copy, the weight is updated there: what becomes of "
            "the low-precision one?",
            "Per parameter: grad, twice the sum of states, and twice param; with a master copy once param and twice master. Times n.",
        ),
    ),
    Exercise(
        "pack", "One buffer for all tensors", "12_production_kernels", "pack", "function",
        (
            "Where does a tensor of 5 elements end that begins at 0, and where may the next one begin, if align is 4? And if it has 8 elements?",
            "Go through the sizes with one running number, where the next tensor may begin. Each tensor adds its size, rounded up. What is the "
            "number at the end?",
            "`end = 0`; for each size: append `end` to the offsets, then `end` grows by the size, rounded up. `(x + k - 1) // k` is x / k, rounded up.",
        ),
    ),
    Exercise(
        "adamw_kernel", "A fused AdamW kernel", "12_production_kernels", "adamw_kernel", "function",
        (
            "Program k works on one block of elements. Which ones, as an expression of k, BLOCK and the lanes 0 to BLOCK - 1? Which lanes of the last "
            "block must stay away?",
            "Four loads at the top and three stores at the end, all with the same offsets and mask; between them AdamW as in a formula, on blocks: "
            "m and v first, then p with the new ones. Which names do you give the new m and v, which are stored without correction?",
            "`offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)`, `mask = offsets < n`; `p = tl.load(p_ptr + offsets, mask=mask)`, and g, m, v; "
            "`m = beta1 * m + (1 - beta1) * g`, v with g * g; the fraction as in the formula, with `tl.sqrt`; p less both terms; "
            "`tl.store(p_ptr + offsets, p, mask=mask)`, then m and v.",
        ),
    ),
    Exercise(
        "momentum_kernel_bug", "Two faults in a momentum kernel", "12_production_kernels", "repaired_momentum_step", "function",
        (
            "Go through two steps on 5 elements in blocks of 4 by hand, and write down each number that is read and each that is written. "
            "Which of the arrays' numbers has somebody else written in between?",
            "Reading an element twice is harmless, updating it in place twice is not: let the last block stay where it is, and keep its lanes beyond the "
            "end away. `ravel` returns a view where it can: what belongs to the caller must be copied.",
            "Let program k begin at element k * BLOCK without `tl.minimum`, and give each of the loads and stores the mask of the lanes below n. "
            "In the step one line changes: `np.shares_memory(state['buffer'], grad)` is to be False after the first step, whatever the layout.",
        ),
    ),
    Exercise(
        "regime", "Read a profile", "12_production_kernels", "regime", "function",
        (
            "For how long does the device do nothing? And if it works all the time: how long would the bytes alone take, how long the operations alone?",
            "Three sums (durations, bytes, operations) and a span decide. In which unit is each of them? First the idle time, then the larger of "
            "the two limits against the busy time.",
            "span = last start + last duration - first start; idle = span - busy. idle > span / 2: launch-bound. memory = bytes / bandwidth, compute = flops / "
            "peak, both sums in seconds: hold the larger against half of busy, in seconds too; else its name, memory-bound in a tie.",
        ),
    ),
    Exercise(
        "crossing_elements", "Where launches and bandwidth cost the same", "12_production_kernels", "elements", "number",
        (
            "How many bytes does a fused AdamW move for each element?",
            "7 numbers of float32: p, g, m and v are read; p, m and v are written. A launch takes 5e-6 s; how many bytes does memory move in that time?",
            "n * 28 / 3.35e12 = 5e-6: solve for n.",
        ),
    ),
    Exercise(
        "lion", "Lion, guided", "13_small_state", "Lion", "optimizer",
        (
            "Two averages of the gradients are needed. Which of them decides the direction, which is remembered, and which beta belongs to which?",
            "c is made of the old m and this gradient, with beta1; the step takes the sign of c. Only then m moves on, from the old m and with "
            "beta2. Does c live on?",
            "Order within a step: `p *= 1 - lr * weight_decay`; `c = beta1 * m + (1 - beta1) * g` as a new tensor; `p -= lr * c.sign()`; "
            "`m = beta2 * m + (1 - beta2) * g` in place. m starts at zero.",
        ),
    ),
    Exercise(
        "factored_moment", "Adafactor's factored moment", "13_small_state", "factored_moment", "function",
        (
            "A matrix of rank one is a column times a row. Which column and which row keep the row means and the column means of v?",
            "R averages the row means of g**2 over time, C the column means: two vectors. R C has the scale of v squared, so one mean is divided "
            "by. When is the start at zero corrected, and how many factors 1 - beta2**T does the result hold?",
            "Per step: `R = beta2 * R + (1 - beta2) * (g**2).mean(axis=1)`, C likewise with axis 0. At the end divide both by 1 - beta2**T, "
            "and return `(R / R.mean())[:, None] * C`; zeros if R is all zeros. Dividing first keeps small numbers from becoming 0.",
        ),
    ),
    Exercise(
        "quantise_blocks", "Blocks of codes, and back", "13_small_state", "quantise_blocks", "function",
        (
            "What must be done to the numbers of a block before a table of entries between -1 and 1 can hold them?",
            "Which entry is nearest is decided by the middles between neighbours: `np.searchsorted(middles, share)`, or by the least "
            "of all differences. What do the last block, if it is short, and a block of zeros need?",
            "`of = np.arange(len(x)) // block`; absmax: the largest |x| of each block; divide x by absmax[of], by 1 where that is 0; "
            "`codes = np.abs(share[:, None] - table).argmin(axis=1)`; back = table[codes] * absmax[of].",
        ),
    ),
    Exercise(
        "small_state_gb", "The bytes of seven optimizers", "13_small_state", "small_state_gb", "function",
        (
            "For a matrix (n, m) and for a vector (n,): how many float32 numbers does each of the seven keep?",
            "Matrices: 2nm, nm, nm, n + m, nm + 2(n + m), nm + n in the order of the exercise. What has a vector, which has nothing to "
            "factor? And of a tensor with 8-bit states, what is counted besides one byte for each code?",
            "Vectors: adamw 2n, lion n, muon 2n, adafactor n, came 2n, adam_mini n + 1. adamw8bit: 8 bytes an element below 4096 elements; else "
            "2 * (size + 4 * math.ceil(size / 256)) bytes. Add up over the tensors, over 1e9.",
        ),
    ),
    Exercise(
        "newton_schulz", "Newton-Schulz", "14_beyond_adam", "newton_schulz", "function",
        (
            "What does X X^T X do to the singular values of X, and what to its singular vectors?",
            "Divide by the Frobenius norm once, at the start. In each step A = X X^T is made anew, of the X of that step, and all three terms "
            "take the same X. `@` or `*`?",
            "`X = G / max(np.linalg.norm(G), 1e-7)`, transposed if it is tall; `steps` times: `A = X @ X.T`, "
            "`X = a * X + (b * A + c * A @ A) @ X`; transposed back.",
        ),
    ),
    Exercise(
        "muon_scale", "Muon's factor for a shape", "14_beyond_adam", "muon_scale", "function",
        (
            "O has orthonormal rows or columns. How long is it, and so how large is its root mean square element?",
            "The squares of O's elements add up to min(rows, columns). Divide by the number of elements, and take the root: one side is left.",
            "original: sqrt(max(1, rows / columns)). match_rms_adamw: O's root mean square is 1 / sqrt(max(rows, columns)); what brings it to 0.2?",
        ),
    ),
    Exercise(
        "muon_bug", "A bug to find in a Muon", "14_beyond_adam", "RepairedMuon", "optimizer",
        (
            "With float32 weights this Muon is right, with and without Nesterov. What does `.bfloat16()` return for a tensor that is bfloat16 already?",
            "Print the norm of the momentum buffer after two steps on a bfloat16 weight with nesterov=False. Which line has written into it?",
            "`update` is the buffer itself, and `orthogonal` divides its argument in place: let it make a new tensor there.",
        ),
    ),
    Exercise(
        "schedule_free_walk", "Schedule-free SGD", "14_beyond_adam", "schedule_free_walk", "function",
        (
            "There are three points. Which takes the steps, which is the mean of the past, and where is the gradient taken?",
            "In step t: first y from the z and x of before, then the gradient at y, then z, and x at last, from the new z. Which weight makes "
            "x the plain mean of z_1, ..., z_t?",
            "`y = (1 - beta) * z + beta * x`; `z = z - lr * gradient(y)`; `x = x + (z - x) / t`, t from 1: new arrays each time.",
        ),
    ),
    Exercise(
        "fair_speedup", "The speedup that is left", "14_beyond_adam", "speedup", "number",
        (
            "Against which AdamW is the claim made, and which AdamW would you train with?",
            "In the sweep, find the fewest steps after which AdamW with any of its rates has the loss of the claim.",
            "The loss is 3.30. N has it after 6,000 steps. In the row of 1.2e-3 AdamW has it after how many?",
        ),
    ),
    Exercise(
        "zero_plan", "Which collective where", "15_sharding", "zero_plan", "function",
        (
            "Of weights, gradients and optimizer's state, what does a rank hold whole in each stage, and what only "
            "its slice of? When does it need the rest, and who gives it?",
            "all_reduce: all get the whole sum. reduce_scatter: each gets its slice of the sum. all_gather: slices "
            "of all become whole on each. Who needs the mean gradient of a slice, if each rank updates one slice? "
            "What does the next forward pass need then?",
            "0: one all_reduce. 1: both halves of an all_reduce at the step, with the update between them. 2: the "
            "first half moves into the backward pass. 3: weights are gathered before each pass that computes with "
            "them, and gradients scattered after the backward pass; the step sends nothing.",
        ),
    ),
    Exercise(
        "owners_by_bytes", "Who owns which tensor", "15_sharding", "owners_by_bytes", "function",
        (
            "In which order are tensors to be given away, if the ranks are to come out even? Which are easy to fit "
            "in at the end?",
            "Sort the indices by size, the largest first, and keep the bytes that each rank has so far. To which "
            "rank goes the next one?",
            "`order = sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True)`; for each `i`: `rank = "
            "loads.index(min(loads))`, append `i` to that rank's list, add `sizes[i]` to its load.",
        ),
    ),
    Exercise(
        "ring_all_reduce", "A ring all-reduce", "15_sharding", "ring_all_reduce", "function",
        (
            "Cut each array into N chunks. If in each step each rank sends one chunk to its right, after how many "
            "steps has a chunk met all ranks?",
            "Reduce-scatter: in step s rank r sends chunk (r - s) % N, and what arrives is added. Which chunk is "
            "complete on rank r after N - 1 steps? All-gather starts with that one, and what arrives replaces what "
            "is there.",
            "Hold `chunks[r] = np.array_split(values[r].copy(), N)`. In both phases take all messages of a step "
            "first, then deliver them: in the first `chunks[right][c] = chunks[right][c] + message`, in the second, "
            "with c = (r + 1 - s) % N, `chunks[right][c] = message.copy()`. Count the elements that rank 0 sends. At "
            "the end `np.concatenate` each rank's chunks.",
        ),
    ),
    Exercise(
        "ring_seconds", "Seconds of a ring all-reduce", "15_sharding", "ring_seconds", "function",
        (
            "How many steps has the ring, and how many bytes does a rank send in one of them?",
            "A message of b bytes takes latency + b / bandwidth seconds. All ranks send at once, and the steps "
            "follow each other.",
            "2 (ranks - 1) steps, each with a message of size / ranks bytes.",
        ),
    ),
    Exercise(
        "clip_sharded", "Clip by a norm that lies in shards", "15_sharding", "clip_sharded", "function",
        (
            "Each rank knows the sum of squares of its own elements. Which one number must all of them add up, and when is the root taken?",
            "Add the squares of all shards in float32, in a tensor of one element that exists on a rank without shards as well; `comm.all_reduce`; root; one "
            "factor, at most 1, for all shards of all ranks.",
            "`total = torch.zeros(())`; for each shard `total += shard.float().square().sum()`; `norm = comm.all_reduce(total).sqrt()`; "
            "`factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)`; each `shard.mul_(factor)`; return norm.",
        ),
    ),
    Exercise(
        "zero1_step", "ZeRO-1 in forty lines", "15_sharding", "zero1_step", "function",
        (
            "AdamW works element by element. If rank r updates only slice r of all parameters in a row, of which elements does it need the gradient, m and v?",
            "Flatten and pad to a multiple of the ranks. The gradient goes in through a reduce-scatter, new parameters come out through an all-gather; between "
            "them, on one slice, AdamW as ever. What does a reduce-scatter add, and what is the mean?",
            "`part = math.ceil(total / comm.ranks)`; `g = comm.reduce_scatter(flat(grads)) / comm.ranks`; m, v = zeros_like(g) in the first step, t += 1; "
            "`p = flat(params)[rank * part : (rank + 1) * part] * (1 - lr * weight_decay)`, less lr m_hat / (sqrt(v_hat) + eps); "
            "`comm.all_gather(p)`, split by the tensors' sizes, `copy_` into each.",
        ),
    ),
    Exercise(
        "zero_bug", "Two faults in a ZeRO-2 step", "15_sharding", "repaired_zero2_step", "function",
        (
            "Run it on two ranks and print, on each, the norm that it returns and `untyped_storage().nbytes()` of each tensor in its state. Which of these numbers "
            "should be another one?",
            "The slices of a gradient lie on different ranks: their squares must be added over all. And what does a slice of a tensor keep alive?",
            "Sum the squares of the slices, `comm.all_reduce` that one number, then the root. Make m and v with `torch.zeros_like(g)` for each slice g.",
        ),
    ),
    Exercise(
        "gpus_needed", "The GPUs that ZeRO-2 needs", "15_sharding", "gpus", "number",
        (
            "Which bytes of a parameter lie whole on each GPU in ZeRO-2, and which are divided?",
            "Whole: 2 bytes of weights. Divided: 4 of gradients, and what the optimizer keeps, master copy, m and v. "
            "How many bytes are free on a card?",
            "2 * 32e9 + 16 * 32e9 / N <= 80e9 - 13e9. Solve for N, and take the next multiple of 8.",
        ),
    ),
)

EXERCISES: dict[str, Exercise] = {exercise.id: exercise for exercise in _ALL}
