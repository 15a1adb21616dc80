"""What every part must do, as checks that built-ins and plugins pass alike.

    from mtlkit.testing import check_encoder

    def test_wavelet():
        check_encoder("wavelet", levels=2)                   # on all common kinds of input that it takes
        check_encoder("wavelet", input_shape=(20, 8))        # on this one

Each raises AssertionError, saying what does not hold.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlkit.balancing import AfterStep, Balancer
from mtlkit.build import build_model
from mtlkit.errors import Problem, SpecError
from mtlkit.feature import Shape, apply, feature_shape, ignores_padding, run_stages, takes_mask
from mtlkit.model import Model
from mtlkit.part import Part, check, make
from mtlkit.registry import Registry, balancers, encoders, heads, sharings
from mtlkit.saving import load
from mtlkit.train.gradients import Places
from mtlkit.train.step import TrainStep

COMMON_INPUTS: tuple[Shape, ...] = ((6,), (12, 6), (None, 6), (1, 12, 12), (3, 64, 64), (None,))
"""A vector, sequences of fixed and of any length, maps, and ids."""

COMMON_TRUNKS: tuple[tuple[Part, Shape], ...] = (
    ({"type": "mlp", "hidden": [8, 8]}, (6,)),
    ({"type": "cnn", "channels": [4, 8]}, (1, 12, 12)),
    ({"type": "rnn", "hidden": 8, "layers": 2}, (12, 6)),
    ({"type": "transformer", "dim": 8, "heads": 2, "dropout": 0.0}, (12, 6)),
)
"""Small trunks of each kind, with an input that they take."""

_LENGTH = 12  # of a sequence of any length
_IDS = 10  # ids are drawn below this


def check_encoder(name: str, input_shape: Shape | None = None, **options: Any) -> None:
    """Check a registered encoder on one input shape, or on each of `COMMON_INPUTS` that it does not refuse.

    Features are of the declared or inferred shape and finite, do not depend on the rest of the batch or on padding;
    a gradient reaches every parameter; stages equal the whole; it is deterministic under a seed, survives deepcopy,
    state_dict, save and load, and serves as the trunk of a model with `hard` and `none` sharing.
    """
    shapes = COMMON_INPUTS if input_shape is None else (input_shape,)
    accepted = [shape for shape in shapes if _accepts(name, shape, options)]
    assert accepted, f"encoder {name!r} refuses every input shape of {shapes}"
    for shape in accepted:
        part = _part(encoders, name, options)
        _check_module(lambda part=part, shape=shape: make(encoders, part, shape), shape, f"encoder {name!r}")  # type: ignore[misc]
        for sharing in ("hard", "none"):
            check_model(_spec(part, shape, sharing))


def check_head(name: str, input_shape: Shape | None = None, outputs: int = 3, **options: Any) -> None:
    """Check a registered head on features of one shape, or on each common kind that it does not refuse.

    It gives `outputs` outputs, finite ones, that do not depend on the rest of the batch or on padding, and has the
    other properties of a module that `check_encoder` lists.
    """
    part = _part(heads, name, options)
    shapes: tuple[Shape, ...] = ((6,), (12, 6), (None, 6), (4, 5, 5)) if input_shape is None else (input_shape,)
    accepted = 0
    for shape in shapes:
        try:
            made = make(heads, part, shape, outputs)
        except ValueError:
            continue
        accepted += 1
        assert outputs in feature_shape(made, shape), f"head {name!r} on {shape}: its output has no {outputs} outputs"
        _check_module(lambda shape=shape: make(heads, part, shape, outputs), shape, f"head {name!r}")  # type: ignore[misc]
        if takes_mask(made):
            _check_head_padding(made, shape, name)
    assert accepted, f"head {name!r} refuses every feature shape of {shapes}"


def check_sharing(name: str, **options: Any) -> None:
    """Check a registered sharing scheme over each of `COMMON_TRUNKS`, for one task and for three."""
    scheme = _part(sharings, name, options)
    for part, shape in COMMON_TRUNKS:
        for tasks in (1, 3):
            check_model(_spec(part, shape, scheme, tasks))


def check_balancer(name: str, **options: Any) -> None:
    """Check a registered balancer on models of one and of three tasks, of which two, and one, have labels.

    Gradients are finite, also for losses that are zero, tiny, huge or the same; a single task is trained as without a
    balancer; a task without labels gets no gradient, and its own parameters of the balancer none either; tasks in
    another order get the same gradients where it is `symmetric`; its state survives a round trip.
    """
    part = _part(balancers, name, options)
    what = f"balancer {name!r}"
    x = _inputs((6,), 8)
    single, plain = _balanced(part, 1), _balanced("sum", 1)
    _backward(*single, x)
    _backward(*plain, x)
    for mine, other in zip(single[0].parameters(), plain[0].parameters(), strict=True):
        assert mine.grad is not None and other.grad is not None
        assert _close(mine.grad, other.grad, tolerance=1e-6), f"{what} changes the training of a single task"
    for scale in (1.0, 0.0, 1e-12, 1e12):
        model, balancer = _balanced(part, 3)
        _backward(model, balancer, x, scale=scale)
        _assert_gradients(model, f"{what} on losses times {scale:g}")
    for tasks in (["task 0", "task 2"], ["task 1"]):
        model, balancer = _balanced(part, 3)
        _backward(model, balancer, x, tasks)
        for task in model.tasks:
            touched = any(p.grad is not None for p in model.head(task).parameters())
            assert touched == (task in tasks), (
                f"{what}, with labels of {tasks}: the head of {task!r} has a wrong gradient"
            )
    _check_order(part, what)
    _check_state(part, what)


def _balanced(part: Part | str, tasks: int) -> tuple[Model, Balancer]:
    torch.manual_seed(0)
    model = build_model(_spec({"type": "mlp", "hidden": [8]}, (6,), "hard", tasks))
    checked = _part(balancers, part, {}) if isinstance(part, str) else part
    balancer = make(balancers, checked, model.tasks)
    assert isinstance(balancer, Balancer), f"balancer {checked['type']!r} gave a {type(balancer).__name__}"
    return model, balancer


def _backward(
    model: Model, balancer: Balancer, x: Tensor, tasks: Sequence[str] | None = None, scale: float = 1.0
) -> None:
    """Leave the balanced gradients of some tasks, by the random draws of a seed, in `.grad`."""
    model.zero_grad()
    balancer.zero_grad()
    places = Places(model)
    places.check(balancer)
    border = places.border(balancer.at)
    outputs = model({"input": x}, tasks=tasks, border=border)
    losses = {task: scale * output.square().mean() for task, output in outputs.items()}
    torch.manual_seed(0)
    balancer.backward(TrainStep(losses, places, border, lambda loss: loss.backward()))


def _check_order(part: Part, what: str) -> None:
    model, balancer = _balanced(part, 3)
    if not balancer.symmetric:
        return
    turned = make(balancers, part, model.tasks[::-1])
    x = _inputs((6,), 8)
    _backward(model, balancer, x)
    expected = [p.grad for p in model.parameters()]
    _backward(model, turned, x, model.tasks[::-1])
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None and gradient is not None
        assert _close(parameter.grad, gradient), f"{what} depends on the order of the tasks; declare symmetric = False"


def _check_state(part: Part, what: str) -> None:
    """A copy made from the state after some steps must go on as the original does."""
    model, balancer = _balanced(part, 3)
    optimizer = torch.optim.SGD([*model.parameters(), *balancer.parameters()], lr=0.1)

    def epoch(balancer: Balancer) -> None:
        for seed in range(2):
            torch.manual_seed(seed)
            x = _inputs((6,), 8)
            _backward(model, balancer, x)
            optimizer.step()
            after_step: AfterStep | None = getattr(balancer, "after_step", None)
            if after_step is not None:
                with torch.no_grad():
                    losses = {task: output.square().mean() for task, output in model({"input": x}).items()}
                after_step(lambda losses=losses: losses)  # type: ignore[misc]
        balancer.end_epoch()

    for _ in range(3):
        epoch(balancer)
    again = make(balancers, part, model.tasks)
    again.load_state_dict(copy.deepcopy(balancer.state_dict()))
    x = _inputs((6,), 8)
    made = []
    for one in (balancer, again):
        _backward(model, one, x)
        made.append([p.grad for p in model.parameters()])
    for mine, other in zip(*made, strict=True):
        assert mine is not None and other is not None
        assert torch.equal(mine, other), f"{what}: a copy made from its state_dict goes another way"


def check_model(spec: dict[str, Any]) -> Model:
    """Check that a spec's model trains, evaluates, and survives everything that a user does to it. Returns it."""
    torch.manual_seed(0)
    model = build_model(spec)
    x = {name: _inputs(one.shape, 3, one.dtype) for name, one in model.graph.inputs.items()}
    what = f"model of {spec}"
    for name in [*model.tasks, *model.graph.encoders]:
        module = model.head(name) if name in model.tasks else model.scheme(name)
        if any(True for _ in module.parameters()):
            assert any(f".{name}" in key for key in model.state_dict()), f"{what}: no key of state_dict names {name!r}"
    model.train()
    outputs = model(x)
    for task, output in outputs.items():
        declared = model.graph.tasks[task].outputs
        assert output.shape[0] == 3 and declared in output.shape[1:], f"{what}: {task!r} gave {list(output.shape)}"
    sum((output.square().mean() for output in outputs.values()), torch.zeros(())).backward()
    _assert_gradients(model, what)
    model.zero_grad()
    model.eval()
    with torch.no_grad():
        expected = model(x)
        for task in model.tasks:
            alone = model(x, tasks=[task])
            assert list(alone) == [task], f"{what}: tasks=[{task!r}] gave {list(alone)}"
            assert _close(alone[task], expected[task], tolerance=1e-6), f"{what}: {task!r} alone differs"
        one = model({name: value[:1] for name, value in x.items()})
        for task in model.tasks:
            assert _close(one[task], expected[task][:1]), f"{what}: a batch of one differs"
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            loaded = load(folder).eval()
        assert loaded.spec == model.spec, f"{what}: save and load changed the spec"
        for other, how in ((loaded, "save and load"), (copy.deepcopy(model), "deepcopy")):
            for task, output in other(x).items():
                assert torch.equal(output, expected[task]), f"{what}: {how} changed the output of {task!r}"
    again = build_model(model.spec)
    assert again.spec == model.spec, f"{what}: build_model(model.spec) has another spec"
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    return model


def _check_module(factory: Callable[[], nn.Module], shape: Shape, what: str) -> None:
    torch.manual_seed(0)
    module = factory()
    torch.manual_seed(0)
    for mine, other in zip(module.state_dict().values(), factory().state_dict().values(), strict=True):
        assert torch.equal(mine, other), f"{what} on {shape} is not repeatable under torch.manual_seed"
    with torch.device("meta"):
        assert isinstance(factory(), nn.Module)
    dtype = getattr(module, "input_dtype", "float32")
    x = _inputs(shape, 3, dtype)
    kept = x.clone()
    declared = feature_shape(module, shape, x.dtype)
    module.train()
    made = module(x)
    _assert_shape(made, declared, what)
    if any(p.requires_grad for p in module.parameters()):
        made.square().mean().backward()
        _assert_gradients(module, f"{what} on {shape}")
    assert torch.equal(x, kept), f"{what} on {shape} changes its input in place"
    module.eval()
    with torch.no_grad():
        whole = module(x)
        assert bool(whole.isfinite().all()), f"{what} on {shape} gave values that are not finite"
        assert _close(module(x[:1]), whole[:1]), f"{what} on {shape}: a batch of one differs"
        assert torch.equal(copy.deepcopy(module)(x), whole), f"{what} on {shape}: a deepcopy gives other features"
        stages = getattr(module, "stages", None)
        if stages:
            staged = run_stages(stages, x, None)[-1][0]
            assert _close(staged, whole), f"{what} on {shape}: its stages do not equal its forward"
            own = {id(p) for p in module.parameters()}
            assert own >= {id(p) for s in stages for p in s.parameters()}, (
                f"{what}: stages have parameters of their own"
            )
        if hasattr(module, "forward_masked") and ignores_padding(module) and len(shape) <= 2 and None in shape:
            _check_padding(module, x, what)


def _check_padding(module: nn.Module, x: Tensor, what: str) -> None:
    """Features at real steps must be the same however many padded steps follow."""
    padding = getattr(module, "padding_id", None)
    junk = torch.full_like(x[:, :5], padding or 0) if x.ndim == 2 else torch.full_like(x[:, :5], 7.0)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    short, kept = apply(module, x, mask)
    long, longer = apply(
        module, torch.cat([x, junk], 1), torch.cat([mask, torch.zeros(len(x), 5, dtype=torch.bool)], 1)
    )
    if short.ndim == 2:
        assert _close(short, long), f"{what}: its features depend on padding"
        return
    assert kept is not None and longer is not None, f"{what}: forward_masked gave a sequence without its mask"
    for row in range(len(x)):
        before, after = short[row][kept[row]], long[row][longer[row]]
        assert before.shape == after.shape, f"{what}: the number of real steps depends on padding"
        assert _close(before, after), f"{what}: its features depend on padding"


def _check_head_padding(head: nn.Module, shape: Shape, name: str) -> None:
    if len(shape) != 2 or shape[0] is not None:
        return
    x = _inputs(shape, 3)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    longer = torch.cat([mask, torch.zeros(3, 5, dtype=torch.bool)], 1)
    with torch.no_grad():
        head.eval()
        short = head(x, mask)
        long = head(torch.cat([x, torch.full_like(x[:, :5], 7.0)], 1), longer)
    long = long[:, : short.shape[1]] if short.ndim == 3 else long
    assert _close(short, long), f"head {name!r} on {shape}: its outputs depend on padding"


def _accepts(name: str, shape: Shape, options: dict[str, Any]) -> bool:
    """Whether the encoder takes an input of this shape; a refusal must be a clear one."""
    try:
        model = build_model(_spec(_part(encoders, name, options), shape, "hard"))
    except SpecError as error:
        assert all(problem.path and problem.message for problem in error.problems)
        return False
    return bool(model.tasks)


def _spec(part: Part, shape: Shape, sharing: str | Part, tasks: int = 2) -> dict[str, Any]:
    dtype = getattr(encoders[part["type"]], "input_dtype", None) or "float32"
    first = part["layers"][0] if part["type"] == "sequential" else part
    if isinstance(first, dict) and first["type"] == "embedding":
        dtype = "int64"
    return {
        "input": {"shape": list(shape), "dtype": dtype},
        "encoder": part,
        "sharing": sharing,
        "tasks": {f"task {i}": {"outputs": i + 2, "loss": "mse"} for i in range(tasks)},
    }


def _part(registry: Registry, name: str, options: dict[str, Any]) -> Part:
    problems: list[Problem] = []
    part = check(registry, {"type": name, **options}, name, problems)
    assert part is not None, "\n".join(map(str, problems))
    return part


def _inputs(shape: Shape, batch: int, dtype: str = "float32") -> Tensor:
    """A random batch; always the same."""
    generator = torch.Generator().manual_seed(0)
    sizes = [batch, *(_LENGTH if n is None else n for n in shape)]
    if dtype == "int64":
        return torch.randint(1, _IDS, sizes, generator=generator)
    return torch.randn(sizes, generator=generator)


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-4) -> bool:
    """Equal but for the order in which a kernel adds."""
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance / 10)


def _assert_shape(made: object, declared: Shape, what: str) -> None:
    assert isinstance(made, Tensor), f"{what} gave {type(made).__name__}, expected one tensor"
    fits = made.ndim == len(declared) + 1 and all(n in (None, m) for n, m in zip(declared, made.shape[1:], strict=True))
    assert fits, f"{what} declares {list(declared)} and gave {list(made.shape)}"


def _assert_gradients(module: nn.Module, what: str) -> None:
    without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"{what}: no gradient reaches {without[:5]}"
    bad = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not bad, f"{what}: the gradient of {bad[:5]} is not finite"


__all__: Sequence[str] = (
    "COMMON_INPUTS",
    "COMMON_TRUNKS",
    "check_balancer",
    "check_encoder",
    "check_head",
    "check_model",
    "check_sharing",
)
