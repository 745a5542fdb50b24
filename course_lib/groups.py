"""Parameter groups: which tensors of a model share a learning rate and a weight decay, told by name.

A tensor's kind is read from the module that holds it, and where that does not say it, from its name:

- ``"embedding"``: of an ``nn.Embedding`` or ``nn.EmbeddingBag``, or with "embed" in its name (learned positions);
- ``"norm_and_bias"``: whatever has fewer than two dimensions, and all of a normalisation layer;
- ``"attention"``: below a module whose name contains "attn" or "attention", or in an ``nn.MultiheadAttention``;
- ``"mlp"``: below a module whose name contains "mlp", "ffn", "feed_forward", "fc" or "expert";
- ``"head"``: of a module called "head", "lm_head", "classifier", "output" or "unembed";
- ``"other"``: the rest. :func:`describe` shows them, so that nothing is grouped unseen.

A tensor that several modules share is grouped once, where it comes first; in a model whose head is tied to its
embedding it is an embedding. Tensors with ``requires_grad=False`` are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

KINDS = ("embedding", "attention", "mlp", "norm_and_bias", "head", "other")
DECAYED = frozenset({"attention", "mlp", "head", "other"})

_NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.modules.batchnorm._NormBase,
)
_ATTENTION = re.compile(r"attn|attention")
_MLP = re.compile(r"mlp|ffn|feed_?forward|\bfc|_fc|expert")
_HEADS = frozenset({"head", "lm_head", "classifier", "output", "unembed"})
_Named = tuple[str, Tensor]


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    rates: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for an optimizer: one for each kind, or with ``layer_decay`` for each kind in each layer.

    Embeddings, norms and biases are not decayed, as in minGPT; nanoGPT decays every matrix, embeddings included.

    Rates that fall from the head to the embedding keep what early layers have learned ("discriminative fine-tuning",
    Howard & Ruder 2018, arXiv 1801.06146, section 3.2, with a factor of 1 / 2.6)::

        head, last norm     lr
        block i of L        lr * layer_decay^(L - i)          i = 0, ..., L - 1
        embeddings          lr * layer_decay^(L + 1)

    The blocks are the children of that ``nn.ModuleList`` or ``nn.Sequential`` which holds the most parameters.
    What stands before the first of them counts as an embedding, what stands after the last as the head.

    Args:
        model: any module.
        lr: base rate, >= 0.
        weight_decay: of the kinds that are decayed, >= 0.
        rates: multipliers of ``lr`` by kind, >= 0, such as ``{"embedding": 0.1}``; 1 for those not named.
        layer_decay: 0 < layer_decay <= 1.

    Returns:
        A list of dicts, none without tensors: ``params`` (tensors, in the model's order), ``lr``, ``weight_decay``,
        ``name`` and ``param_names`` (the names of ``model.named_parameters()``).

    Raises:
        TypeError, ValueError: an argument is out of its range, a kind is unknown, nothing can be trained, or
            ``layer_decay`` is below 1 and the model has no blocks.
    """
    _number("lr", lr)
    _number("weight_decay", weight_decay)
    _number("layer_decay", layer_decay)
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"Invalid layer_decay: {layer_decay!r}. Allowed: 0 < layer_decay <= 1; 1 is the same rate for all."
        )
    multipliers = dict.fromkeys(KINDS, 1.0)
    for kind, value in (rates or {}).items():
        if kind not in multipliers:
            near = get_close_matches(str(kind), KINDS, n=1, cutoff=0.3)
            advice = f"Did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"Invalid rates: there is no kind {kind!r}. {advice}Allowed: {', '.join(KINDS)}.")
        _number(f"rates[{kind!r}]", value)
        multipliers[kind] = float(value)

    kinds = _by_kind(model)
    depths, deepest, of = {}, 0, "{kind}"
    if layer_decay < 1:
        depths, layers = _depths(model)
        deepest, of = layers + 1, "{place}, {kind}"
    members: dict[tuple[int, str], list[_Named]] = {}
    for kind in KINDS:
        for name, param in kinds[kind]:
            members.setdefault((depths.get(name, deepest), kind), []).append((name, param))
    groups = []
    for depth, kind in sorted(members, key=lambda key: (key[0], KINDS.index(key[1]))):
        place = "before the blocks" if depth == 0 else "after the blocks" if depth == deepest else f"block {depth - 1}"
        groups.append(
            _group(
                of.format(place=place, kind=kind),
                members[depth, kind],
                lr=lr * multipliers[kind] * layer_decay ** (deepest - depth),
                weight_decay=weight_decay if kind in DECAYED else 0.0,
            )
        )
    return groups


def muon_groups(model: nn.Module, *, lr: float, adamw_lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for :class:`course_lib.optim.Muon`: hidden matrices for its own rule, the rest for AdamW's.

    Muon is meant for the matrices between the embedding and the head (Jordan et al. 2024): attention, MLP and other
    tensors of two dimensions. Those of more, such as a convolution's, are left to AdamW here, as torch.optim.Muon
    refuses them.

    Args:
        model: any module.
        lr: Muon's rate, >= 0.
        adamw_lr: rate of the rest, >= 0.
        weight_decay: of the hidden matrices and the head, >= 0; embeddings, norms and biases are not decayed.

    Returns:
        As :func:`parameter_groups`, each with a key ``adamw``: False for the hidden matrices, True for the rest.

    Raises:
        TypeError, ValueError: an argument is out of its range, or the model has no hidden matrix.
    """
    _number("lr", lr)
    _number("adamw_lr", adamw_lr)
    _number("weight_decay", weight_decay)
    hidden: list[_Named] = []
    decayed: list[_Named] = []
    rest: list[_Named] = []
    for kind, named in _by_kind(model).items():
        for name, param in named:
            is_hidden = kind in ("attention", "mlp", "other") and param.ndim == 2
            (hidden if is_hidden else decayed if kind in DECAYED else rest).append((name, param))
    if not hidden:
        raise ValueError(
            "Invalid model: Muon has nothing to do, as there is no matrix between embedding and head. "
            "Allowed: a model with nn.Linear layers; or use AdamW for all of it."
        )
    groups = [_group("hidden matrices", hidden, lr=lr, weight_decay=weight_decay) | {"adamw": False}]
    if decayed:
        groups.append(_group("other matrices", decayed, lr=adamw_lr, weight_decay=weight_decay) | {"adamw": True})
    if rest:
        groups.append(_group("embeddings, norms and biases", rest, lr=adamw_lr, weight_decay=0.0) | {"adamw": True})
    return groups


def describe(groups: Sequence[Mapping[str, Any]]) -> str:
    """A table in plain text: each group's name, rate, decay, number of tensors and parameters, and its first tensors.

    Args:
        groups: as :func:`parameter_groups` returns, or an optimizer's ``param_groups``.
    """
    rows = [("group", "lr", "weight decay", "tensors", "parameters", "first of them")]
    for number, group in enumerate(groups):
        names = list(group.get("param_names", ()))
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        rows.append(
            (
                str(group.get("name", number)),
                f"{group['lr']:.3g}",
                f"{group.get('weight_decay', 0):g}",
                f"{len(group['params'])}",
                f"{_size(group):,}",
                ", ".join(names[:2]) + more,
            )
        )
    rows.append(
        ("together", "", "", str(sum(len(group["params"]) for group in groups)), f"{sum(map(_size, groups)):,}", "")
    )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    to_the_right = (False, True, True, True, True, False)
    lines = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_the_right, strict=True)
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def _size(group: Mapping[str, Any]) -> int:
    return sum(param.numel() for param in group["params"])


def _group(name: str, named: list[_Named], **options: float) -> dict[str, Any]:
    return {"params": [param for _, param in named], **options, "name": name, "param_names": [key for key, _ in named]}


def _by_kind(model: nn.Module) -> dict[str, list[_Named]]:
    """Each trained tensor once, under its kind, in the model's order."""
    kinds: dict[str, list[_Named]] = {kind: [] for kind in KINDS}
    modules = dict(model.named_modules())
    for name, param in model.named_parameters():  # a shared tensor comes once, under its first name
        if param.requires_grad:
            kinds[_kind(name, param, modules)].append((name, param))
    if not any(kinds.values()):
        raise ValueError("Invalid model: it has no parameter with requires_grad=True, so there is nothing to train.")
    return kinds


def _kind(name: str, param: Tensor, modules: Mapping[str, nn.Module]) -> str:
    path, _, own = name.rpartition(".")
    holder, path = modules[path], path.lower()
    if isinstance(holder, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if isinstance(holder, _NORMS) or param.ndim < 2:
        return "norm_and_bias"
    if isinstance(holder, nn.MultiheadAttention) or _ATTENTION.search(path):
        return "attention"
    if _MLP.search(path):
        return "mlp"
    if path.rpartition(".")[2] in _HEADS:
        return "head"
    return "embedding" if "embed" in f"{path}.{own}".lower() else "other"


def _depths(model: nn.Module) -> tuple[dict[str, int], int]:
    """0 for what stands before the blocks, i + 1 for block i, layers + 1 for what stands behind; and the layers."""
    stacks = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList | nn.Sequential)
    }
    if not stacks:
        raise ValueError(
            "Invalid layer_decay for this model: it has no nn.ModuleList or nn.Sequential whose children could be its "
            "layers. Allowed: layer_decay=1, or groups of your own."
        )
    # The outermost of the largest: a block may itself be an nn.Sequential.
    path = max(stacks, key=lambda name: (sum(param.numel() for param in stacks[name].parameters()), -len(name)))
    prefix, numbers = f"{path}." if path else "", {name: i for i, (name, _) in enumerate(stacks[path].named_children())}
    layers = len(numbers)
    depths, passed = {}, False
    for name, _ in model.named_parameters():
        inside = name.startswith(prefix)
        passed = passed or inside
        depths[name] = numbers[name[len(prefix) :].partition(".")[0]] + 1 if inside else (layers + 1) * passed
    return depths, layers


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Invalid {name}: {value!r}. Allowed: a finite number >= 0.")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"Invalid {name}: {value!r}. Allowed: a finite number >= 0.")
