"""Backbones of torchvision: one of every family has its declared shape, gradients everywhere, and true stages."""

from __future__ import annotations

import copy

import pytest
import torch

from mtlkit.encoder.torchvision import Torchvision

# One of every family, on images as small as it takes, and its features.
MODELS = {
    "alexnet": ((3, 64, 64), 4096),
    "convnext_tiny": ((3, 64, 64), 768),
    "densenet121": ((3, 64, 64), 1024),
    "efficientnet_b0": ((1, 64, 64), 1280),
    "googlenet": ((3, 64, 64), 1024),
    "inception_v3": ((4, 96, 96), 2048),
    "mnasnet0_5": ((3, 64, 64), 1280),
    "mobilenet_v2": ((3, 64, 64), 1280),
    "mobilenet_v3_small": ((1, 28, 28), 1024),
    "regnet_x_400mf": ((3, 64, 64), 400),
    "resnet18": ((1, 64, 64), 512),
    "shufflenet_v2_x0_5": ((3, 64, 64), 1024),
    "squeezenet1_0": ((3, 64, 64), 512),
    "swin_t": ((3, 64, 96), 768),
    "swin_v2_t": ((3, 64, 64), 768),
}
BIG = {"maxvit_t": 512, "vgg11": 4096, "vit_b_16": 768, "regnet_y_128gf": 7392}


@pytest.mark.parametrize(("model", "shape", "width"), [(name, *rest) for name, rest in MODELS.items()])
def test_backbone(model: str, shape: tuple[int, int, int], width: int) -> None:
    encoder = Torchvision(shape, model=model)
    x = torch.randn(2, *shape)
    encoder.eval()
    features = encoder(x)
    assert encoder.output_shape == features.shape[1:] == (width,)
    names = list(encoder.state_dict())
    y = x
    for stage in encoder.stages:
        y = stage(y)
    assert torch.equal(y, features)
    assert len(encoder.stages) >= 5
    owned = {id(p) for stage in encoder.stages for p in stage.parameters()}
    assert owned == {id(p) for p in encoder.parameters()}
    assert list(encoder.state_dict()) == names
    encoder.train()(torch.randn(4, *shape)).square().mean().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("model", "width"), BIG.items())
def test_big_backbone_on_meta(model: str, width: int) -> None:
    with torch.device("meta"):
        encoder = Torchvision((3, 224, 224), model=model)
    assert encoder.output_shape == (width,)
    assert len(encoder.stages) >= 5


def test_vit_is_torchvisions() -> None:
    from torchvision.models import VisionTransformer

    options = {"image_size": 64, "patch_size": 16, "num_layers": 4, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    vit = VisionTransformer(**options).eval()
    vit.heads = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    from mtlkit.encoder.torchvision import _chain

    assert torch.equal(_chain(copy.deepcopy(vit)).eval()(x), vit(x))


def test_pretrained_weights_are_loaded_and_fitted(monkeypatch) -> None:
    import torchvision

    torch.manual_seed(3)
    source = torchvision.models.resnet18()
    weights = torchvision.models.ResNet18_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, *args, **kwargs: source.state_dict())
    encoder = Torchvision((1, 64, 64), model="resnet18", pretrained=True)
    assert torch.equal(encoder.model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.allclose(encoder.model.conv1.weight, source.conv1.weight.sum(1, keepdim=True), atol=1e-6)


def test_nothing_is_loaded_on_meta() -> None:
    with torch.device("meta"):  # A download would fail, and loading onto meta, too.
        encoder = Torchvision((3, 64, 64), model="resnet18", pretrained=True)
    assert encoder.output_shape == (512,)


def test_equal_seeds_give_equal_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(Torchvision((1, 64, 64), model="resnet18").state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("model", ["deeplabv3_resnet50", "r3d_18", "quantized_resnet18", "Resnet", "/tmp"])
def test_refuses_other_names(model: str) -> None:
    with pytest.raises(ValueError, match="expected one of the"):
        Torchvision((3, 64, 64), model=model)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((30,), {"model": "resnet18"}, "expected an input"),
        ((3, 64, 96), {"model": "vit_b_16"}, "square"),
        ((3, 64, 64), {"model": "vit_b_16", "pretrained": True}, "224 x 224"),
        ((3, None, None), {"model": "vit_b_16"}, "one size"),
        ((3, 64, 64), {"model": "maxvit_t"}, "partition"),
        ((3, 32, 32), {"model": "inception_v3"}, "found \\[3, 32, 32\\]"),
    ],
)
def test_refuses_what_the_model_can_not_read(shape, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Torchvision(shape, **options)
