"""What every stage shares: agreeing on the model, owning pieces of it, stepping and counting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakMethod, WeakSet

import torch
from torch import Tensor, nn

from course_lib.memory.storages import count_storages
from course_lib.optim import REGISTRY
from course_lib.parallel.agreement import described, require_agreement
from course_lib.parallel.clip import clip_shares_
from course_lib.parallel.comm import Comm
from course_lib.parallel.layout import Piece, Unit, by_size

PRECISIONS = ("fp32", "mixed-bf16")
"""fp32: the model's own dtype throughout. mixed-bf16: bf16 weights and gradients, float32 masters and moments."""

BUCKET = 25 * 2**20
"""Bytes of a unit of the stages 0 to 2, as DDP's ``bucket_cap_mb=25``."""

_taken: WeakSet[nn.Module] = WeakSet()


class Engine:
    """A model trained by several ranks, each on its own part of the batch, with one gradient step for all.

    Used on every rank alike::

        engine = Zero2(model, comm, "adamw", lr=1e-3)
        for batch in my_batches:
            loss_of(engine.model, batch).backward()
            engine.clip_grad_norm_(1.0)
            engine.step()
            engine.zero_grad()

    The gradient of a step is the mean over ranks of each rank's own. If every rank's loss is the mean over equally many
    targets, it is that of the whole batch. A parameter that had no gradient on some rank counts as zero there (and
    frozen parameters are left alone), so set ``requires_grad=False`` on what is not to be trained: weight decay acts on
    a gradient of zero too. Buffers, such as BatchNorm's statistics, are each rank's own.

    The weights now belong to the engine: load them into the model before it is made, or by
    :func:`course_lib.parallel.checkpoint.load`. An optimizer with a mode for evaluation (``schedule_free``) changes
    this rank's pieces alone: call :meth:`publish_weights` after ``optimizer.eval()`` and ``optimizer.train()``.

    Collectives here are not overlapped with computation, so that one can follow them; production engines do overlap.

    Attributes:
        model: the given model; its parameters' data has moved into flat units.
        units: see :class:`~course_lib.parallel.layout.Unit`.
        optimizer: of the pieces that this rank owns. Schedules act on its groups.
        members: names of the parameters in each of its groups.

    Args:
        model: the same on every rank but for the weights, which rank 0 gives to all. On the rank's device.
        comm: the ranks.
        optimizer: a key of :data:`course_lib.optim.REGISTRY` whose rule works element by element.
        groups: parameter groups as in torch.optim, over ``model``'s parameters; None for one group of all.
        precision: ``"fp32"`` or ``"mixed-bf16"``; the latter casts buffers too.
        unit_bytes: how much is communicated at once, in the stages that cut by size; > 0.
        hyper: of the optimizer: ``lr=1e-3``.

    Raises:
        ValueError: an optimizer that needs more of a tensor than a rank has, an unknown one or an unknown precision; no
            trainable parameter, one outside the model, in no group or in two, several dtypes; a model that another
            engine has; ranks that would own nothing.
        RuntimeError: the ranks disagree about the model, the optimizer or a setting.
    """

    stage = -1
    """The stage of ZeRO, 0 for plain data parallelism."""

    def __init__(
        self,
        model: nn.Module,
        comm: Comm,
        optimizer: str,
        *,
        groups: Sequence[dict[str, Any]] | None = None,
        precision: str = "fp32",
        unit_bytes: float = BUCKET,
        **hyper: Any,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"Invalid precision: {precision!r}. Allowed: {', '.join(PRECISIONS)}.")
        if not (isinstance(unit_bytes, int | float) and unit_bytes > 0):
            raise ValueError(f"Invalid unit_bytes: {unit_bytes!r}. Allowed: a number of bytes > 0.")
        if model in _taken:
            raise ValueError("This model belongs to an engine already. Build a new one for each engine.")
        self._require_elementwise(optimizer)
        self.model, self.comm, self.precision, self.optimizer_key = model, comm, precision, optimizer
        self.unit_bytes = unit_bytes
        self._names = {param: name for name, param in model.named_parameters()}
        given = _trained_groups([{"params": model.parameters()}] if groups is None else groups)
        _require_trainable(given, self._names, comm.device)
        self.members = [[self._names[param] for param in group["params"]] for group in given]
        self._require_agreement(given, hyper)
        _taken.add(model)
        for tensor in [*model.parameters(), *model.buffers()]:
            comm.broadcast(tensor.data)
        trained = [param for group in given for param in group["params"]]
        masters: dict[nn.Parameter, Tensor | None] = dict.fromkeys(trained)
        if precision == "mixed-bf16":
            masters = {param: param.detach().float() for param in trained}
            model.to(torch.bfloat16)
        self.units: list[Unit] = self.make_units()
        self.shares: dict[Unit, Tensor] = {}  # of the gradient, mean over ranks, once it is reduced
        self.owned: list[tuple[Unit, Piece, Tensor]] = []  # what the optimizer updates: a view or a float32 master
        for unit in self.units:
            for piece in self.pieces(unit):
                if piece.param in masters:
                    self.owned.append((unit, piece, self._updated(unit, piece, masters[piece.param])))
        self._require_work()
        self.optimizer = REGISTRY[optimizer].make(self._groups_of_pieces(given), **hyper)

    # --- What a stage says of itself -------------------------------------------------------------------------------

    def make_units(self) -> list[Unit]:
        """The units, in the order in which their gradients are ready."""
        trainable = [param for param in self.model.parameters() if param.requires_grad]
        return [Unit(params, self.comm.ranks) for params in by_size(trainable, self.unit_bytes)]

    def pieces(self, unit: Unit) -> list[Piece]:
        """What this rank updates of a unit."""
        return unit.pieces(self.comm.rank)

    def weights_share(self, unit: Unit) -> Tensor:
        """This rank's slice of a unit's weights: a view."""
        return unit.slice_of(unit.flat, self.comm.rank)

    def reduce_gradients(self) -> None:
        """See that ``shares`` holds this rank's slice of the mean gradient, if it does not yet."""

    def reduce(self, unit: Unit) -> None:
        """Replace the unit's gradients on this rank by what the stage keeps of their mean over ranks."""
        raise NotImplementedError

    def spread_weights(self) -> None:
        """After the update: see that every rank will compute with the new weights."""

    # --- What all stages do ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> None:
        """Update this rank's pieces by the mean gradient, and give the others what they need of them."""
        self.assign_gradients()
        self.optimizer.step()
        for _, _, tensor in self.owned:
            tensor.grad = None
        self.publish_weights()

    @torch.no_grad()
    def assign_gradients(self) -> None:
        """Give this rank's pieces their mean gradient. :meth:`step` does; Sophia's ``update_hessian`` needs it too."""
        self.reduce_gradients()
        for unit, piece, tensor in self.owned:
            if unit in self.shares:
                tensor.grad = piece.of(self.shares[unit]).view_as(tensor).to(tensor.dtype)

    @torch.no_grad()
    def publish_weights(self) -> None:
        """Round this rank's masters into its slices of the weights, and give the others what they need of them."""
        if self.precision != "fp32":
            for unit, piece, tensor in self.owned:
                piece.of(self.weights_share(unit)).copy_(tensor.flatten())
        self.spread_weights()
        # Autograd refuses the backward pass of a graph made before the step, as it does after a step of torch.optim.
        torch.autograd.graph.increment_version(list(self._names))

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Scale the mean gradient down to the global L2 norm ``max_norm`` where it is longer; return its norm before.

        The same number on every rank; not finite on every rank if it is not on one.

        Raises:
            ValueError: ``max_norm`` is not > 0.
        """
        self.reduce_gradients()
        return clip_shares_(self.shares.values(), max_norm, self.comm)

    def zero_grad(self) -> None:
        """Forget the gradients, whole and sharded."""
        self.shares.clear()
        for param in self.model.parameters():
            param.grad = None

    def held_bytes(self) -> dict[str, int]:
        """Bytes that this rank holds now: ``parameters``, ``gradients`` and ``optimizer`` (masters and state).

        Storages are counted, each once and whole: a view of a large tensor holds the large tensor.
        """
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return count_storages({
            "parameters": self.held_weights(),
            "gradients": [*(param.grad for param in self.model.parameters()), *self.shares.values()],
            "optimizer": [*(tensor for _, _, tensor in self.owned), *states],
        })

    def held_weights(self) -> list[Tensor]:
        """The tensors in which this rank has weights, some of them views of one storage."""
        return [*self.model.parameters(), *(self.weights_share(unit) for unit in self.units)]

    @torch.no_grad()
    def full_weights(self) -> dict[str, Tensor]:
        """Every parameter whole, by name, copied, on every rank. All ranks call it."""
        return {name: param.detach().clone() for name, param in self.model.named_parameters()}

    def name_of(self, param: nn.Parameter) -> str:
        """A parameter's name in the model."""
        return self._names[param]

    # --- Checks ----------------------------------------------------------------------------------------------------

    def _require_elementwise(self, key: str) -> None:
        if key not in REGISTRY:
            raise ValueError(f"Unknown optimizer: {key!r}. Allowed: {', '.join(elementwise())}.")
        entry = REGISTRY[key]
        if entry.scope == "element" or self.stage == 0:
            return
        needs = "a whole tensor" if entry.scope == "tensor" else "a block of elements"
        raise ValueError(
            f"{entry.name} cannot run on ZeRO's slices: the new value of one element depends on {needs}, and a slice "
            "begins and ends anywhere in a tensor. Two ways out: let one rank own each whole tensor, update it and "
            "broadcast it; or gather the tensor's gradient for the update and keep only a slice of the result (Liu et "
            f"al. 2025, arXiv 2502.16982, section 2.3, does so for Muon). Element by element work: "
            f"{', '.join(elementwise())}."
        )

    def _require_agreement(self, groups: list[dict[str, Any]], hyper: dict[str, Any]) -> None:
        mine: dict[str, Any] = {"engine": type(self).__name__, "optimizer": self.optimizer_key,
                                "precision": self.precision, "unit_bytes": self.unit_bytes,
                                "settings": repr(sorted(hyper.items())), **described(self.model)}
        for index, group in enumerate(groups):
            own = {key: value for key, value in group.items() if key != "params"}
            mine[f"group {index}"] = f"{self.members[index]} {own}"
        require_agreement(self.comm, mine)

    def _require_work(self) -> None:
        counts = self.comm.gather_objects(sum(tensor.numel() for _, _, tensor in self.owned))
        if 0 in counts:
            total = sum(param.numel() for param in self._names)
            raise ValueError(f"Rank {counts.index(0)} of {self.comm.ranks} would own nothing: the model has {total} "
                             f"parameters in {len(self.units)} units. Use fewer ranks.")

    def _updated(self, unit: Unit, piece: Piece, master: Tensor | None) -> Tensor:
        """What the optimizer updates for a piece: the weights themselves, or a float32 copy of its own."""
        if master is None:
            return piece.of(self.weights_share(unit))
        return master.flatten()[piece.start : piece.stop].clone()

    def _groups_of_pieces(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The given groups, with this rank's pieces in the place of parameters."""
        mine: dict[nn.Parameter, list[Tensor]] = {}
        for _, piece, tensor in self.owned:
            mine.setdefault(piece.param, []).append(tensor)
        return [dict(group, params=[t for param in group["params"] for t in mine.get(param, [])]) for group in groups]


class Reducing(Engine):
    """A stage that reduces each unit's gradient during the backward pass, as soon as it is complete.

    Units go in one fixed order on all ranks, whatever the order in which gradients come: a unit that is complete waits
    for those before it. What is still missing when the backward pass ends counts as zero.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._queue = [unit for unit in self.units if unit.params[0].requires_grad]
        self._waiting: dict[Unit, set[nn.Parameter]] = {}
        for unit in self._queue:
            for param in unit.params:
                param.register_post_accumulate_grad_hook(partial(_if_alive, WeakMethod(self._arrived), unit))

    def reduce_gradients(self) -> None:
        """Nothing is left to do: the backward pass has called :meth:`reduce` for each unit."""

    def zero_grad(self) -> None:
        super().zero_grad()
        self._waiting.clear()  # of a backward pass that failed half-way

    @torch.no_grad()
    def _arrived(self, unit: Unit, param: nn.Parameter) -> None:
        if not self._waiting:
            self._waiting = {one: set(one.params) for one in self._queue}
            torch.autograd.Variable._execution_engine.queue_callback(self._finish)
        self._waiting[unit].discard(param)
        while self._waiting and not next(iter(self._waiting.values())):
            self._reduce_next()

    @torch.no_grad()
    def _finish(self) -> None:
        while self._waiting:
            self._reduce_next()

    def _reduce_next(self) -> None:
        unit = next(iter(self._waiting))
        self.reduce(unit)
        del self._waiting[unit]


def _if_alive(method: WeakMethod[Any], *args: Any) -> None:
    """Call it, unless its engine is gone: the garbage collector does not see that a parameter's hooks hold one."""
    if (alive := method()) is not None:
        alive(*args)


def elementwise() -> list[str]:
    """Keys of the registry's optimizers that ZeRO can shard anywhere."""
    return [key for key, entry in REGISTRY.items() if entry.scope == "element"]


def _trained_groups(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups, each with the list of its parameters that require a gradient."""
    found = []
    for group in groups:
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f"A parameter group is a {type(group).__name__}. Allowed: dicts with \"params\", as in "
                            "torch.optim.")
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        found.append(group | {"params": [param for param in params if param.requires_grad]})
    return found


def _require_trainable(
    groups: list[dict[str, Any]], names: dict[nn.Parameter, str], device: torch.device
) -> None:
    params = [param for group in groups for param in group["params"]]
    if not params:
        raise ValueError("There is nothing to train: no parameter of the model requires a gradient.")
    for index, param in enumerate(params):
        if param not in names:
            raise ValueError(f"A group has a parameter of shape {tuple(param.shape)} that is not the model's.")
        if any(param is other for other in params[:index]):
            raise ValueError(f"{names[param]} is in a group twice, or in two.")
    given = set(params)
    left = [name for param, name in names.items() if param.requires_grad and param not in given]
    if left:
        raise ValueError(f"{left[0]} requires a gradient and is in no group. Put it into one, or freeze it.")
    kinds = {param.dtype for param in names}
    if len(kinds) > 1 or not params[0].is_floating_point():
        raise ValueError(f"The model has parameters of {', '.join(sorted(map(str, kinds)))}. Allowed: one dtype of "
                         "real floating-point numbers.")
    elsewhere = [name for param, name in names.items() if param.device.type != device.type]
    if elsewhere:
        raise ValueError(f"{elsewhere[0]} is not on {device}, where this rank computes. Move the model there before "
                         "the engine is made.")
