"""Each scheme against the formula of its paper, in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mtlkit import build_model
from mtlkit.feature import feature_axis, run_stages, stages_of
from mtlkit.model import Model
from mtlkit.sharing.branching import sampled
from mtlkit.sharing.dselect_k import smooth_step
from mtlkit.sharing.layer import ChannelNorm, Pointwise
from mtlkit.sharing.sluice import channel_weights

VECTOR = {"type": "mlp", "hidden": [8, 8]}
CNN = {"type": "cnn", "channels": [4, 6], "norm": "none"}
TASKS = {"a": {"outputs": 1}, "b": {"outputs": 2}, "c": {"outputs": 1}}


def model_of(sharing: dict[str, Any], encoder: dict[str, Any] = VECTOR, shape: Any = (6,)) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    model = build_model({"input": list(shape), "encoder": encoder, "sharing": sharing, "tasks": TASKS}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # away from what the start makes simple
    return model, torch.randn(5, *[7 if n is None else n for n in shape])


def scheme_of(model: Model) -> Any:
    return model.scheme("encoder")


def features(model: Model, x: Tensor) -> dict[str, Tensor]:
    return {task: value for task, (value, _) in scheme_of(model)(x, None, model.tasks).items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for task, value in expected.items():
        assert torch.allclose(found[task], value, rtol=1e-5, atol=1e-6), task


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("encoder", "shape"), [(VECTOR, (6,)), (CNN, (2, 8, 8)), (CNN, (8, 3))])
def test_cross_stitch(encoder: dict[str, Any], shape: Any, per_channel: bool) -> None:
    model, x = model_of({"type": "cross_stitch", "per_channel": per_channel}, encoder, shape)
    scheme = scheme_of(model)
    streams = [x, x, x]
    for stage, mixing in enumerate(scheme.mixings):
        made = [list(scheme.trunks.of(task).stages)[stage](h) for task, h in zip("abc", streams, strict=True)]
        weights = mixing.weight  # [3, 3] or [channels, 3, 3]
        if per_channel:
            along = (-1, 1, 1) if made[0].ndim == 4 else (-1,)
            streams = [sum(weights[:, t, s].view(along) * made[s] for s in range(3)) for t in range(3)]
        else:
            streams = [sum(weights[t, s] * made[s] for s in range(3)) for t in range(3)]
    assert_close(features(model, x), dict(zip("abc", streams, strict=True)))


def test_cross_stitch_begins_with_convex_weights() -> None:
    torch.manual_seed(0)
    tasks = {"input": [6], "encoder": VECTOR, "sharing": {"type": "cross_stitch", "same": 0.8}, "tasks": TASKS}
    first = scheme_of(build_model(tasks)).mixings[0].weight
    assert torch.allclose(first, torch.full((3, 3), 0.1) + 0.7 * torch.eye(3))


def test_nddr() -> None:
    model, x = model_of({"type": "nddr"}, CNN, (2, 8, 8))
    scheme = scheme_of(model)
    streams = [x, x, x]
    for stage, fusions in enumerate(scheme.fusions):
        made = [list(scheme.trunks.of(task).stages)[stage](h) for task, h in zip("abc", streams, strict=True)]
        together = torch.cat(made, 1)
        streams = []
        for task in "abc":
            fusion = fusions.of(task)
            y = F.conv2d(together, fusion.reduce.weight[..., None, None])
            norm = fusion.norm.norm
            streams.append(F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias))
    assert_close(features(model, x), dict(zip("abc", streams, strict=True)))


def test_sluice() -> None:
    model, x = model_of({"type": "sluice"})
    scheme = scheme_of(model)
    streams, kept = [x, x, x], []
    for stage, alpha in enumerate(scheme.alphas):
        made = [list(scheme.trunks.of(task).stages)[stage](h) for task, h in zip("abc", streams, strict=True)]
        parts = [half for h in made for half in h.split(4, 1)]  # a0, a1, b0, b1, c0, c1
        mixed = [sum(alpha.weight[i, j] * parts[j] for j in range(6)) for i in range(6)]
        streams = [torch.cat(mixed[2 * t : 2 * t + 2], 1) for t in range(3)]
        kept.append(streams)
    beta = scheme.beta.weight
    expected = {task: beta[t, 0] * kept[0][t] + beta[t, 1] * kept[1][t] for t, task in enumerate("abc")}
    assert_close(features(model, x), expected)
    penalty = sum(
        (weight[:4] @ weight[4:].T).square().sum()
        for trunk in scheme.trunks.values()
        for weight in (trunk[0][2].weight, trunk[1][0].weight)
    )
    assert torch.allclose(model.penalty(), 1e-3 * penalty)


def test_sluice_mixes_recurrent_layers_but_not_stages_of_other_lengths() -> None:
    for encoder, stages in (
        ({"type": "rnn", "hidden": 8, "layers": 3}, ("stage 0", "stage 1", "stage 2")),
        ({"type": "cnn", "channels": [8, 8]}, ("stage 1",)),
        ({"type": "cnn", "channels": [8, 8], "pool": "none"}, ("stage 0", "stage 1")),
    ):
        model = build_model({"input": [None, 4], "encoder": encoder, "sharing": "sluice", "tasks": TASKS})
        assert scheme_of(model).beta.columns == stages, encoder


def test_sluice_knows_the_weights_that_make_its_channels() -> None:
    def held(encoder: dict[str, Any], shape: Any) -> list[tuple[int, ...]]:
        model = build_model({"input": shape, "encoder": encoder, "sharing": "sluice", "tasks": TASKS})
        column = scheme_of(model).trunks.of("a")
        sizes = [feature[feature_axis(feature)] for feature in stage_shapes(column, shape)]
        found = [channel_weights(stage, size) for stage, size in zip(stages_of(column), sizes, strict=True)]
        return [tuple(weight.shape) for weights in found for weight in weights]

    assert held({"type": "mlp", "hidden": [8, 4]}, [6]) == [(8, 6), (4, 8)]
    assert held({"type": "cnn", "channels": [4], "kernel": 3}, [1, 8, 8]) == [(4, 9)]
    # Three gates of both directions together, of what is read and of what is remembered.
    assert held({"type": "rnn", "hidden": 4, "bidirectional": True}, [5, 6]) == [(8, 6)] * 3 + [(8, 4)] * 3
    assert held({"type": "rnn", "cell": "lstm", "hidden": 4}, [5, 6]) == [(4, 6)] * 4 + [(4, 4)] * 4
    transformer = {"type": "transformer", "dim": 8, "heads": 2, "layers": 1, "feedforward": 32}
    assert held(transformer, [5, 6]) == [(8, 6), (8, 8), (8, 32)]  # not the wide layer inside


def stage_shapes(column: nn.Module, shape: Any) -> list[Any]:
    return [tuple(y.shape[1:]) for y, _ in run_stages(stages_of(column), torch.zeros(1, *shape), None)]


def test_sluice_over_maps_of_any_size() -> None:
    encoder = {"type": "cnn", "channels": [8, 8]}
    model = build_model({"input": [3, None, None], "encoder": encoder, "sharing": "sluice", "tasks": TASKS})
    assert model(torch.randn(2, 3, 16, 12))["a"].shape == (2, 1)
    assert scheme_of(model).beta.columns == ("stage 1",)


def gated(gate: Any, values: list[Tensor]) -> Tensor:
    """The sum of vectors under the softmax of a linear map of them all."""
    read = torch.cat(values, 1)
    weights = F.linear(F.layer_norm(read, read.shape[1:]), gate.linear.weight, gate.linear.bias).softmax(1)
    return sum(weights[:, [i]] * value for i, value in enumerate(values))


def test_mmoe() -> None:
    model, x = model_of({"type": "mmoe", "experts": 3})
    scheme = scheme_of(model)
    values = [expert(x) for expert in scheme.experts.values()]
    assert_close(features(model, x), {task: gated(scheme.gates.of(task), values) for task in "abc"})


def test_gates_read_pooled_features_of_real_steps_only() -> None:
    model, x = model_of({"type": "mmoe"}, {"type": "rnn", "hidden": 4}, (None, 3))
    scheme, x = scheme_of(model), x[:2]
    mask = torch.arange(7) < torch.tensor([[4], [7]])
    values = [expert.forward_masked(x, mask)[0] for expert in scheme.experts.values()]
    means = torch.cat([torch.stack([v[0, :4].mean(0), v[1].mean(0)]) for v in values], 1)
    weights = scheme.gates.of("b")(means)
    expected = sum(weights[:, i, None, None] * value for i, value in enumerate(values))
    found, kept = scheme(x, mask, ["b"])["b"]
    assert torch.allclose(found, expected, atol=1e-6) and torch.equal(kept, mask)


def test_ple_has_the_shared_gate_of_the_paper() -> None:
    model, x = model_of({"type": "ple", "own": 2, "shared": 1, "levels": 2})
    scheme = scheme_of(model)
    below = {t: [next(iter(e.stages))(x) for e in scheme.experts.of(t).values()] for t in "abc"}
    shared = [next(iter(scheme.shared.of("shared 0").stages))(x)]
    mine = {t: gated(scheme.gates[0].of(t), [*below[t], *shared]) for t in "abc"}
    common = gated(scheme.shared_gates[0], [*below["a"], *below["b"], *below["c"], *shared])
    above = {t: [list(e.stages)[1](mine[t]) for e in scheme.experts.of(t).values()] for t in "abc"}
    shared = [list(scheme.shared.of("shared 0").stages)[1](common)]
    expected = {t: gated(scheme.gates[1].of(t), [*above[t], *shared]) for t in "abc"}
    assert_close(features(model, x), expected)


def test_adatt() -> None:
    model, x = model_of({"type": "adatt", "experts": 2, "levels": 2})
    scheme = scheme_of(model)
    states = dict.fromkeys("abc", x)
    for level in range(2):
        made = {t: [list(e.stages)[level](states[t]) for e in scheme.experts.of(t).values()] for t in "abc"}
        every = [value for values in made.values() for value in values]
        states = {
            t: gated(scheme.gates[level].of(t), every)
            + sum(scheme.native[level].of(t).weight[0, i] * value for i, value in enumerate(made[t]))
            for t in "abc"
        }
    assert_close(features(model, x), states)


def test_dselect_k() -> None:
    model, x = model_of({"type": "dselect_k", "experts": 4, "k": 2})
    scheme = scheme_of(model)
    values, entropy, expected = [expert(x) for expert in scheme.experts.values()], torch.zeros(()), {}
    for task in "abc":
        gate = scheme.gates.of(task)
        step = smooth_step(gate.codes, 1.0)
        weights = torch.zeros(4)
        for selector, share in zip(step, gate.weights.softmax(0), strict=True):
            one = torch.stack(
                [torch.stack([s if i >> bit & 1 else 1 - s for bit, s in enumerate(selector)]).prod() for i in range(4)]
            )
            entropy = entropy - (one * one.log()).sum()
            weights = weights + share * one
        expected[task] = sum(weight * value for weight, value in zip(weights, values, strict=True))
    assert_close(features(model, x), expected)
    assert torch.allclose(model.penalty(), 1e-3 * entropy)


@given(gamma=st.floats(1e-2, 1e2))
def test_the_smooth_step_is_smooth_and_a_step(gamma: float) -> None:
    t = (gamma * torch.linspace(-2, 2, 401)).requires_grad_()
    y = smooth_step(t, gamma)
    (slope,) = torch.autograd.grad(y.sum(), t)
    assert y[:150].eq(0).all() and y[251:].eq(1).all() and slope.ge(0).all()
    assert slope[:150].eq(0).all() and slope[251:].eq(0).all() and abs(float(slope[151])) < 0.1 / gamma
    assert torch.allclose(y[150:251], (-2 * t**3 / gamma**3 + 1.5 * t / gamma + 0.5)[150:251], atol=1e-6)


def test_dselect_k_runs_only_what_is_selected_and_keeps_finite_gradients() -> None:
    model, x = model_of({"type": "dselect_k", "experts": 4, "k": 1})
    scheme, ran = scheme_of(model), []
    for name, expert in zip(scheme.experts.names, scheme.experts.values(), strict=True):
        expert.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        for task, code in (("a", [1.0, -1.0]), ("b", [-1.0, 1.0]), ("c", [1.0, -1.0])):
            scheme.gates.of(task).codes.copy_(torch.tensor([code]))
    model(x, tasks=["a", "c"])
    assert ran == ["expert 1"]
    ran.clear()
    expected = {"a": scheme.experts.of("expert 1")(x), "b": scheme.experts.of("expert 2")(x)}
    expected["c"] = expected["a"]
    ran.clear()
    assert_close(features(model, x), expected)
    assert ran == ["expert 1", "expert 2"]
    outputs = model.train()(x)
    (sum(output.sum() for output in outputs.values()) + model.penalty()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_branching_is_a_tree_of_which_only_the_chosen_copies_run() -> None:
    model, x = model_of({"type": "branching", "copies": 2})
    scheme, ran = scheme_of(model), []
    with torch.no_grad():
        scheme.choices[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))  # both upper copies on copy 0
        scheme.choices[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))  # a and c on 0, b on 1
    for name, copy in zip(scheme.copies.names, scheme.copies.values(), strict=True):
        for stage, module in enumerate(copy.stages):
            module.register_forward_hook(lambda *_, at=(name, stage): ran.append(at))
    found = features(model, x)
    assert ran == [("copy 0", 0), ("copy 0", 1), ("copy 1", 1)]
    zero, one = (list(scheme.copies.of(f"copy {i}").stages) for i in range(2))
    assert_close(found, {"a": zero[1](zero[0](x)), "b": one[1](zero[0](x)), "c": zero[1](zero[0](x))})
    ran.clear()
    model(x, tasks=["a"])
    assert ran == [("copy 0", 0), ("copy 0", 1)]


def test_a_decided_choice_has_a_finite_gradient() -> None:
    model, x = model_of({"type": "branching", "copies": 2})
    scheme = scheme_of(model.train())
    with torch.no_grad():
        scheme.choices[0].weight[0, 0] = 50.0
    sum(output.sum() for output in model(x).values()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    with torch.no_grad():
        model(x)
    assert int(scheme.passes) == 1, "a look without gradients is no step"


def test_branching_samples_become_choices() -> None:
    model, x = model_of({"type": "branching", "copies": 3, "temperature": 4.0, "steps": 10})
    scheme = scheme_of(model.train())
    torch.manual_seed(0)
    temperatures = [scheme._next_temperature() for _ in range(3)]
    with torch.no_grad():
        first = torch.stack([sampled(scheme.choices[1](), t) for t in temperatures])
    assert torch.allclose(first.sum(-1), torch.ones(3, 3)) and float(first.max()) < 0.9
    for _ in range(10):
        model(x)
    assert int(scheme.passes) == 13 and abs(float(scheme._next_temperature()) - 0.1) < 1e-6
    late = torch.stack([sampled(scheme.choices[1](), scheme._next_temperature()) for _ in range(50)])
    assert float(late.detach().max(-1).values.median()) > 0.99
    again = build_model(model.spec)
    again.load_state_dict(model.state_dict())
    assert float(scheme_of(again).passes) == float(scheme.passes)


@pytest.mark.parametrize(
    ("encoder", "shape"), [(VECTOR, (6,)), (CNN, (2, 8, 8)), ({"type": "rnn", "hidden": 4}, (7, 3))]
)
def test_lora(encoder: dict[str, Any], shape: Any) -> None:
    model, x = model_of({"type": "lora", "rank": 2, "scale": 0.5}, encoder, shape)
    scheme = scheme_of(model)
    found = features(model, x)
    for task in "abc":
        plain = build_model({"input": list(shape), "encoder": encoder, "tasks": TASKS}).eval()
        trunk = scheme_of(plain).trunk
        state = dict(scheme.trunk.state_dict())
        adapter = dict(scheme.adapters.of(task).named_parameters())
        for name, value in state.items():
            key = name.replace(".", "/")
            if f"up {key}" in adapter:
                state[name] = value + 0.5 * (adapter[f"up {key}"] @ adapter[f"down {key}"]).view_as(value)
        trunk.load_state_dict(state)
        assert torch.allclose(found[task], trunk(x), atol=1e-5), task


def test_lora_keeps_each_tasks_own_batch_statistics() -> None:
    model, x = model_of({"type": "lora"}, {"type": "cnn", "channels": [4], "norm": "batch"}, (2, 8, 8))
    scheme = scheme_of(model.train())
    before = {k: v.clone() for k, v in scheme.state_dict().items() if "running_mean" in k}
    model(x, tasks=["a"])
    changed = [
        key for key, value in scheme.state_dict().items() if key in before and not torch.equal(value, before[key])
    ]
    assert changed == ["adapters.a.own blocks/0/norm/running_mean"]
    plain = nn.BatchNorm2d(4)
    own = scheme.adapters.of("a")
    weight = scheme.trunk.blocks[0].conv.weight + own()["blocks.0.conv.weight"]
    plain(F.conv2d(x, weight, padding=1))
    assert torch.allclose(own.get_buffer("own blocks/0/norm/running_mean"), plain.running_mean, atol=1e-6)


def test_soft_l2_and_trace_norm() -> None:
    for kind in ("l2", "trace_norm"):
        model, _ = model_of({"type": "soft", "penalty": kind, "weight": 0.5})
        trunks = [dict(trunk.named_parameters()) for trunk in scheme_of(model).trunks.values()]
        expected = torch.zeros(())
        for name in trunks[0]:
            rows = torch.stack([trunk[name].flatten() for trunk in trunks])
            mean = rows.mean(0)
            distance = sum((row - mean).square().sum() for row in rows)
            expected = expected + (distance if kind == "l2" else torch.linalg.matrix_norm(rows, "nuc"))
        assert torch.allclose(model.penalty(), 0.5 * expected, rtol=1e-5)


def test_mtan_on_maps() -> None:
    model, x = model_of({"type": "mtan", "reduction": 2}, CNN, (2, 8, 8))
    scheme = scheme_of(model)

    def normed(norm: ChannelNorm, y: Tensor) -> Tensor:
        one = norm.norm
        return F.batch_norm(y, one.running_mean, one.running_var, one.weight, one.bias)

    def at_each_place(layer: Pointwise, y: Tensor) -> Tensor:
        return F.conv2d(y, layer.weight[..., None, None], layer.bias)

    first, second = (stage for stage in scheme.trunk.stages)
    p0, expected = first(x), {}
    p1 = second(p0)
    for task in "abc":
        low, high = (attentions.of(task) for attentions in scheme.attentions)

        def mask(of: Any, read: Tensor) -> Tensor:
            inner = normed(of.squeeze_norm, at_each_place(of.squeeze, read)).relu()
            return normed(of.expand_norm, at_each_place(of.expand, inner)).sigmoid()

        attended = p0 * mask(low, p0)
        smaller = F.avg_pool2d(attended, 2)
        carried = normed(high.carry.norm, at_each_place(high.carry.map, smaller)).relu()
        expected[task] = p1 * mask(high, torch.cat([p1, carried], 1))
    assert_close(features(model, x), expected)
