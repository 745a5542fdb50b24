"""The ways to run one optimizer step, from the naive loop to production's kernels, by name."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import torch

from course_lib.kernels import bench, compiled
from course_lib.kernels.shapes import Shapes, elements
from course_lib.memory.arguments import choice
from course_lib.optim import REGISTRY

Step = Callable[[], object]
LR = 1e-4  # small, as the same gradients are used again and again


@dataclass(frozen=True)
class Way:
    """One way to run a step.

    Attributes:
        name: what the command and tables call it.
        title: what it does, in a few words.
        make: ``make(params, key)`` builds it for the optimizer ``key`` over parameters that have gradients, and
            returns the step; an optimizer's own where it has one.
        keys: optimizers of the registry that have it.
        dtypes: of parameters.
        devices: kinds of device.
        package: which it needs besides torch and what the optimizer's counterpart needs, and the extra of course_lib
            that brings it.
        compiles: whether torch.compile makes its kernel.
    """

    name: str
    title: str
    make: Callable[[list[torch.nn.Parameter], str], Step]
    keys: frozenset[str]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    devices: tuple[str, ...] = ("cpu", "cuda")
    package: tuple[str, str] | None = None
    compiles: bool = False


OPTIMIZERS = ("adamw", "sgd", "momentum", "lion", "muon", "adafactor")
"""Keys of the registry that have a production kernel, or one of the course's."""


def _naive(params: list[torch.nn.Parameter], key: str) -> Step:
    return REGISTRY[key].make(params, lr=LR).step


def _plain(params: list[torch.nn.Parameter], key: str) -> Step:
    return REGISTRY[key].production(params, lr=LR).step


def _production(**flags: bool) -> Callable[[list[torch.nn.Parameter], str], Step]:
    return lambda params, key: REGISTRY[key].production(params, lr=LR, **flags).step


def _accepts(flag: str) -> frozenset[str]:
    """The optimizers whose counterpart in torch has such a flag."""
    found = set()
    for key in OPTIMIZERS:
        production = REGISTRY[key].production
        if REGISTRY[key].package == "torch" and flag in inspect.signature(production).parameters:
            found.add(key)
    return frozenset(found)


def _graph(params: list[torch.nn.Parameter], key: str) -> Step:
    """A step recorded once and replayed; the step count must live on the device, where the recording can raise it."""
    optimizer = REGISTRY[key].production(params, lr=LR, capturable=True, foreach=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made on a first step must not be part of the recording
        for _ in range(3):
            optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    return graph.replay


def _torch_compiled(params: list[torch.nn.Parameter], key: str) -> Step:
    optimizer = REGISTRY[key].production(params, lr=LR, foreach=True)
    optimizer.step()  # state that appears later would be compiled for again
    return torch.compile(optimizer.step)


def _flat(params: list[torch.nn.Parameter], key: str) -> Step:
    grads = [param.grad for param in params]
    optimizer = compiled.FlatAdamW(params, lr=LR, watch=False)
    optimizer.zero_grad()
    for param, grad in zip(params, grads, strict=True):
        param.grad.copy_(grad)  # in the buffer, as a backward pass would add them
    return optimizer.step


def _huge_pages(params: list[torch.nn.Parameter], key: str) -> Step:
    """torch's fused kernel, over tensors that lie where FlatAdamW's do."""
    flat = compiled.FlatAdamW(params, lr=LR, compile=False)
    optimizer = torch.optim.AdamW(params, lr=LR, fused=True)
    for param in params:
        optimizer.state[param].update(flat.state[param])
    return optimizer.step


def _triton(params: list[torch.nn.Parameter], key: str) -> Step:
    from course_lib.kernels import triton_adamw, triton_lion, triton_sgd

    made = {
        "adamw": triton_adamw.TritonAdamW,
        "lion": triton_lion.TritonLion,
        "sgd": triton_sgd.TritonSGD,
        "momentum": lambda params, lr: triton_sgd.TritonSGD(params, lr=lr, momentum=0.9),
    }
    return made[key](params, lr=LR).step


def _bitsandbytes(params: list[torch.nn.Parameter], key: str) -> Step:
    return REGISTRY["adamw8bit"].production(params, lr=LR).step


def _torchao(name: str) -> Callable[[list[torch.nn.Parameter], str], Step]:
    def make(params: list[torch.nn.Parameter], key: str) -> Step:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.optim

            return getattr(torchao.optim, name)(params, lr=LR).step

    return make


def _copy(params: list[torch.nn.Parameter], key: str) -> Step:
    source = torch.cat([param.detach().reshape(-1) for param in params])
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


_ADAMW = frozenset({"adamw"})
_AO = ("torchao", "kernels")

WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        Way("naive", "the course's class, as it reads", _naive, frozenset(OPTIMIZERS)),
        Way("for-loop", "torch.optim, foreach=False", _production(foreach=False), _accepts("foreach")),
        Way("foreach", "torch.optim, foreach=True", _production(foreach=True), _accepts("foreach")),
        Way("fused", "torch.optim, fused=True", _production(fused=True), _accepts("fused")),
        Way("capturable", "torch.optim, replayed as a CUDA graph", _graph, _accepts("capturable"), devices=("cuda",)),
        Way("compiled", "the course's lines, compiled, tensor by tensor",
            lambda params, key: compiled.CompiledAdamW(params, lr=LR).step, _ADAMW, compiles=True),
        Way("flat", "the same over one flat buffer, gradients not watched", _flat, _ADAMW, compiles=True),
        Way("fused-huge-pages", "torch.optim, fused=True, over the flat way's memory", _huge_pages, _ADAMW,
            devices=("cpu",)),
        Way("torch-compiled", "torch.optim's step, compiled", _torch_compiled, _accepts("foreach"), compiles=True),
        Way("triton", "the course's kernel in Triton", _triton, frozenset({"adamw", "sgd", "momentum", "lion"}),
            devices=("cuda",), package=("triton", "kernels")),
        Way("production", "its counterpart as it is", _plain, frozenset({"lion", "muon"})),
        Way("bitsandbytes-8bit", "bitsandbytes' AdamW8bit", _bitsandbytes, _ADAMW,
            package=("bitsandbytes", "references")),
        Way("torchao-8bit", "torchao's AdamW8bit", _torchao("AdamW8bit"), _ADAMW, package=_AO, compiles=True),
        Way("torchao-4bit", "torchao's AdamW4bit", _torchao("AdamW4bit"), _ADAMW, package=_AO, compiles=True),
        Way("torchao-fp8", "torchao's AdamWFp8", _torchao("AdamWFp8"), _ADAMW, package=_AO, compiles=True),
        Way("copy", "a plain copy of the parameters, which gives the bandwidth", _copy, frozenset(OPTIMIZERS)),
    )
}

DEFAULT = ("naive", "for-loop", "foreach", "compiled", "flat", "fused", "fused-huge-pages", "capturable", "triton",
           "production", "copy")
"""What is measured where nothing is named: the rest compile for a minute, or compute something else in 8 bits."""


def offered(key: str) -> list[str]:
    """The ways that there are for an optimizer, in order, whether or not they can run here.

    Raises:
        ValueError: the optimizer is none of ``OPTIMIZERS``.
    """
    choice("optimizer", key, OPTIMIZERS)
    return [name for name, way in WAYS.items() if key in way.keys]


def unavailable(name: str, key: str, device: torch.device | str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why a way cannot run here, in a sentence that says what to do; None if it can."""
    way, kind = WAYS[name], torch.device(device).type
    if key not in way.keys:
        return f"{name}: there is none for {key}. For {key} there are: {', '.join(offered(key))}."
    if kind not in way.devices:
        return f"{name}: runs on {' and '.join(way.devices)}, not on {kind}."
    if dtype not in way.dtypes:
        return f"{name}: takes {' and '.join(str(each).removeprefix('torch.') for each in way.dtypes)}."
    needs = [way.package] if way.package else []
    if way.make is _plain and REGISTRY[key].package != "torch":
        needs.append((REGISTRY[key].package, "references"))
    for package, extra in needs:
        if importlib.util.find_spec(package) is None:
            return f"{name}: needs the package {package}: pip install 'course_lib[{extra}]'"
    if way.compiles and (reason := compiled.unavailable(kind)):
        return f"{name}: {reason}"
    return None


def fitting(key: str, shapes: Shapes) -> Shapes:
    """Those of the shapes that the optimizer takes: Muon takes matrices only, the others all."""
    return [shape for shape in shapes if len(shape) == 2] if key == "muon" else list(shapes)


def build(
    name: str, key: str, shapes: Shapes, device: torch.device | str, dtype: torch.dtype = torch.float32, sets: int = 1
) -> tuple[Step, torch.optim.Optimizer | None]:
    """A function that takes a step, and the optimizer of its first set where the way has one.

    With several sets, each call takes the next one's step, so that none finds its tensors in a cache.

    Args:
        name, key: of the way and of the optimizer.
        shapes: one parameter per shape.
        device, dtype: of parameters and gradients.
        sets: of such parameters, >= 1.

    Raises:
        ValueError: the way cannot run here, or no shape is one that the optimizer takes.
    """
    if reason := unavailable(name, key, device, dtype):
        raise ValueError(reason)
    fit = fitting(key, shapes)
    if not fit:
        raise ValueError(f"{key} takes matrices only, and among the shapes is none.")
    steps = [WAYS[name].make(bench.parameters(fit, device, dtype), key) for _ in range(sets)]
    turn = cycle(steps)
    owner = getattr(steps[0], "__self__", None)
    return lambda: next(turn)(), owner if isinstance(owner, torch.optim.Optimizer) else None


def sets_for(shapes: Shapes, device: torch.device | str, most: int = 4) -> int:
    """How many sets of float32 parameters, gradients and two moments are twice as large as the last cache.

    At most ``most``: between two steps of one way all the others have been through the cache, too.
    """
    return max(1, min(most, -(-2 * bench.cache_bytes(device) // max(1, 16 * elements(shapes)))))
