"""Checkpoints of sharded training: every rank writes what it owns, and any number of ranks can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib.parallel.base import Engine
from course_lib.parallel.layout import Piece

INDEX = "index.json"
FORMAT = 1


def save(engine: Engine, folder: str | Path) -> None:
    """Write the training's state to ``folder``: one file a rank, and an index when all files are there.

    A rank writes the elements that it owns, by parameter and range: the weights as the optimizer sees them (float32
    masters in mixed precision) and the optimizer's state. Nothing is gathered, and the whole is written once: of plain
    data parallelism rank 0 writes all. Rank 0 writes its buffers too. No gradients: save between steps. Frozen weights
    do not change and are not in it: build the model with them.

    Every rank calls it, with one folder that all can reach. A checkpoint that was cut short has no index, and one that
    was there before stays whole until the new one is: each save has file names of its own.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    comm = engine.comm
    try:
        old = _read_index(folder)
    except (FileNotFoundError, ValueError):
        old = {"save": 0, "files": []}
    number = comm.gather_objects(old["save"])[0] + 1
    name = f"save{number}-rank{comm.rank}.pt"
    index = _described(engine) | {"save": number, "files": comm.gather_objects(name)}
    written = json.dumps(index, indent=1, default=float)  # a rate may be a number of NumPy's or a tensor
    mine = [] if engine.stage == 0 and comm.rank else list(_owned(engine))
    buffers = {key: value.clone() for key, value in engine.model.named_buffers()} if comm.rank == 0 else {}
    torch.save({"pieces": mine, "buffers": buffers}, folder / name)
    comm.gather_objects("its file is there")
    if comm.rank == 0:
        part = folder / f"{INDEX}.part"
        part.write_text(written, encoding="utf-8")
        os.replace(part, folder / INDEX)
        for stale in set(old["files"]) - set(index["files"]):
            (folder / stale).unlink(missing_ok=True)
    comm.gather_objects("the index is there")


@torch.no_grad()
def load(engine: Engine, folder: str | Path) -> None:
    """Go on from a checkpoint, on as many ranks and in whatever stage ``engine`` is.

    Each rank reads the ranges that overlap with its own, so that nothing is ever whole in memory. Learning rates and
    other hyper-parameters become those of the checkpoint, as in torch.optim; gradients are forgotten. State has the
    dtype that it has in this run. Every rank calls it; where it fails on one, it raises on all, and the engine is not
    to be used any more.

    Raises:
        FileNotFoundError: there is no finished checkpoint, or a file of it is missing.
        ValueError: it is of a model of other names or shapes, of another optimizer or other parameter groups.
        RuntimeError: another rank could not load it.
    """
    error: Exception | None = None
    try:
        _load(engine, Path(folder))
    except Exception as mine:  # noqa: BLE001  it is raised again when all ranks know
        error = mine
    failed = engine.comm.gather_objects(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for rank, other in enumerate(failed):
        if other is not None:
            raise RuntimeError(f"Rank {rank} could not load the checkpoint in {folder}: {other}")
    engine.publish_weights()


def _load(engine: Engine, folder: Path) -> None:
    index = _read_index(folder)
    _require_same(engine, index)
    engine.optimizer.state.clear()
    engine.zero_grad()
    wanted: dict[str, list[tuple[Piece, Tensor]]] = {}
    for _, piece, tensor in engine.owned:
        wanted.setdefault(engine.name_of(piece.param), []).append((piece, tensor))
    for group, saved in zip(engine.optimizer.param_groups, index["groups"], strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()})
    found = 0
    here = dict(engine.model.named_buffers())
    for file in index["files"]:
        saved = torch.load(folder / file, mmap=True, weights_only=True, map_location="cpu")
        for name, value in saved["buffers"].items():
            here[name].copy_(value)
        for name, start, stop, values in saved["pieces"]:
            for piece, tensor in wanted.get(name, []):
                low, high = max(start, piece.start), min(stop, piece.stop)
                if low < high:
                    ours = slice(low - piece.start, high - piece.start)
                    _fill(engine, tensor, values, slice(low - start, high - start), ours)
                    found += high - low
    needed = sum(tensor.numel() for _, _, tensor in engine.owned)
    if found != needed:
        raise ValueError(f"The checkpoint in {folder} has {found} of the {needed} elements that rank "
                         f"{engine.comm.rank} needs; its files are not of one save.")


def _owned(engine: Engine) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """Name, range, and the weights and state of each piece."""
    for _, piece, tensor in engine.owned:
        values = {"weight": tensor} | engine.optimizer.state.get(tensor, {})
        kept = {key: _row(value, tensor).clone() if isinstance(value, Tensor) else value
                for key, value in values.items()}
        yield engine.name_of(piece.param), piece.start, piece.stop, kept


def _row(value: Tensor, like: Tensor) -> Tensor:
    """What has an element for each of the piece's, flat; anything else as it is."""
    return value.detach().flatten() if value.shape == like.shape else value.detach()


def _fill(engine: Engine, tensor: Tensor, values: dict[str, Any], theirs: slice, ours: slice) -> None:
    """Copy a range of a saved piece into one of this rank's; what is no tensor of its length is the same for all."""
    length = values["weight"].numel()
    tensor.view(-1)[ours] = values["weight"][theirs].to(tensor)
    state = engine.optimizer.state[tensor]
    for key, value in values.items():
        if key == "weight":
            continue
        if isinstance(value, Tensor) and value.shape == (length,):
            if key not in state:
                state[key] = torch.zeros_like(tensor)
            state[key].view(-1)[ours] = value[theirs].to(tensor)
        else:
            state[key] = value.to(tensor.device) if isinstance(value, Tensor) else value


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint in {folder}: {INDEX} is missing. A save that was cut short "
                                "has none.")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}. Take another checkpoint.") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ValueError(f"{path} is no index of format {FORMAT}. Take another checkpoint.")
    return index


def _require_same(engine: Engine, index: dict[str, Any]) -> None:
    if index["optimizer"] != engine.optimizer_key:
        raise ValueError(f"The checkpoint is of {index['optimizer']}, and this run uses {engine.optimizer_key}: their "
                         "states do not fit each other.")
    described = _described(engine)
    shapes = described["shapes"]
    for name in dict.fromkeys([*index["shapes"], *shapes]):
        saved, here = index["shapes"].get(name), shapes.get(name)
        if saved != here:
            said = [f"has shape {tuple(shape)}" if shape is not None else "is not trained" for shape in (saved, here)]
            raise ValueError(f"The checkpoint is of another model: {name} {said[0]} there and {said[1]} here.")
    for number, (saved, here) in enumerate(zip_longest(index["members"], described["members"])):
        if saved != here:
            raise ValueError(f"Parameter group {number} has other members: {saved} there and {here} here.")


def _described(engine: Engine) -> dict[str, Any]:
    """What a checkpoint and a run must have in common, and the groups' settings."""
    params = [param for unit in engine.units for param in unit.params if param.requires_grad]
    return {
        "format": FORMAT,
        "optimizer": engine.optimizer_key,
        "groups": [{key: value for key, value in group.items() if key != "params"}
                   for group in engine.optimizer.param_groups],
        "members": engine.members,
        "shapes": {engine.name_of(param): list(param.shape) for param in params},
    }
