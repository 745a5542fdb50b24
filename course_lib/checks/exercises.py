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
)

EXERCISES: dict[str, Exercise] = {exercise.id: exercise for exercise in _ALL}
