"""A forward as the tree of calls that it makes: of submodules, of the model's own methods, of some functions.

    root = record(resnet, (3, 224, 224))
    [call.target for call in root.inside]      # ["forward_features", "forward_head"]

Each call says which tensor it read and which it gave, so that calls which follow from each other can be told.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mtlkit.feature import Shape, feature_shape

# Functions that backbones call between their modules, on one tensor and constants that hold for every batch.
_FUNCTIONS = {
    torch.flatten,
    torch.Tensor.flatten,
    torch.Tensor.mean,
    torch.mean,
    F.relu,
    F.adaptive_avg_pool2d,
}

# A tensor, and how often it was changed in place: an in-place activation makes a new one of the same tensor.
Key = tuple[int, int]


@dataclass
class Call:
    """A call as recorded. `start` and `end` are the tensors it read and gave, None where not just one."""

    target: str | Callable[..., Tensor]
    kind: object
    open: bool  # Whether the calls inside it are recorded, so that it may be replaced by them.
    start: Key | None = None
    end: Key | None = None
    is_step: bool = True  # Whether it gives just the tensor: (tensor, None) is no stage's output.
    positions: int = 0
    channels_last: bool = False
    constants: tuple[object, ...] = ()
    keywords: tuple[tuple[str, object], ...] = ()
    inside: list[Call] = field(default_factory=list)
    is_method: bool = False
    parameters: bool = False

    def uses(self) -> tuple[tuple[str, ...], bool]:
        """The modules that a method calls, and whether it reads the model's own parameters."""
        methods = [call.uses() for call in self.inside if call.is_method]
        modules = [str(call.target) for call in self.inside if isinstance(call.kind, type)]
        return (
            tuple(dict.fromkeys([*modules, *(name for names, _ in methods for name in names)])),
            self.parameters or any(reads for _, reads in methods),
        )


class _Recorder(TorchFunctionMode):
    """Builds the tree of calls; as a mode of torch it sees the functions that are called between modules."""

    def __init__(self, model: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.stack: list[Call] = []
        self.root: Call | None = None
        self.alive: list[Tensor] = []  # So that no later tensor gets the id of an earlier one.

    def key(self, value: object) -> Key | None:
        if not isinstance(value, Tensor):
            return None
        self.alive.append(value)
        return id(value), value._version

    def enter(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any], plain: bool) -> None:
        """Open a call. `plain`: only None and booleans may follow the tensor: a size is not for every input."""
        rest = _flat([args[1:], kwargs])
        constant = (bool | None) if plain else (bool | int | float | str | None)
        if args and all(isinstance(value, constant) for value in rest):
            call.start = self.key(args[0])
            call.constants, call.keywords = args[1:], tuple(kwargs.items())
        self.stack.append(call)

    def leave(self, result: object) -> None:
        call = self.stack.pop()
        tensors = [value for value in _flat(result) if isinstance(value, Tensor)]
        call.end = self.key(tensors[0]) if len(tensors) == 1 else None
        call.is_step = isinstance(result, Tensor)
        if isinstance(result, Tensor):
            call.channels_last = is_channels_last(tuple(result.shape[1:]), self.size)
            call.positions = _positions(result, call.channels_last)
        if self.stack:
            self.stack[-1].inside.append(call)
        else:
            self.root = call

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.stack or not self.stack[-1].open:
            return func(*args, **kwargs)
        top = self.stack[-1]
        own = [p for p in self.model._parameters.values() if p is not None]
        top.parameters |= any(p is value for p in own for value in _flat(args))
        if func not in _FUNCTIONS:
            return func(*args, **kwargs)
        self.enter(Call(func, func.__name__, open=False), args, kwargs, plain=False)
        result = func(*args, **kwargs)
        self.leave(result)
        return result


def record(model: nn.Module, shape: tuple[int, ...]) -> Call:
    """The tree of calls of one forward."""
    recorder = _Recorder(model, shape[-2:])

    def before(call: Callable[[], Call], module: nn.Module, args: Any, kwargs: Any) -> None:
        recorder.enter(call(), args, kwargs, plain=True)

    def after(module: nn.Module, args: Any, kwargs: Any, result: object) -> None:
        recorder.leave(result)

    with ExitStack() as undo:
        for name, module in [("", model), *_visible(model, "")]:
            call = partial(Call, name, type(module), module is model or isinstance(module, nn.Sequential))
            hooks = (
                module.register_forward_pre_hook(partial(before, call), with_kwargs=True),
                module.register_forward_hook(after, with_kwargs=True),
            )
            for hook in hooks:
                undo.callback(hook.remove)
        for name in _methods(type(model)):
            undo.enter_context(_wrapped(model, name, recorder))
        undo.enter_context(recorder)
        feature_shape(model, shape)
    assert recorder.root is not None
    return recorder.root


def _visible(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The children, and those of children that do nothing but hold a chain or list of modules."""
    for name, child in module.named_children():
        yield prefix + name, child
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            yield from _visible(child, f"{prefix}{name}.")


def _methods(cls: type) -> list[str]:
    found = inspect.getmembers(cls, inspect.isfunction)
    return [name for name, _ in found if not hasattr(nn.Module, name) and name != "forward"]


@contextmanager
def _wrapped(model: nn.Module, name: str, recorder: _Recorder) -> Iterator[None]:
    """While this lasts, calls of the model's method are recorded."""
    method = getattr(model, name)

    def recorded(*args: Any, **kwargs: Any) -> Any:
        recorder.enter(Call(name, name, open=True, is_method=True), args, kwargs, plain=True)
        result = method(*args, **kwargs)
        recorder.leave(result)
        return result

    model.__dict__[name] = recorded
    try:
        yield
    finally:
        del model.__dict__[name]


def _flat(value: object) -> Iterator[object]:
    """What stands in nested containers."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def is_channels_last(shape: Shape, size: Sequence[int]) -> bool:
    """Whether an example's features are [H, W, C]: their first two axes have the proportions of `size`."""
    if len(shape) != 3:
        return False
    a, b, c = shape
    if a is None or b is None or c is None:
        return a is None
    ratio = size[0] / size[1]
    return abs(a / max(b, 1) - ratio) < abs(b / max(c, 1) - ratio)


def _positions(x: Tensor, channels_last: bool) -> int:
    """The number of places of a map or a sequence; 1 for a vector."""
    if x.ndim == 4:
        return x.shape[1] * x.shape[2] if channels_last else x.shape[2] * x.shape[3]
    return x.shape[1] if x.ndim == 3 else 1
