"""Backbones of timm: one of every large family has its declared shape, gradients everywhere, and true stages."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mtlkit.encoder.timm import Timm

# The families' smallest, on images as small as they take.
MODELS = {
    "resnet18": (3, 64, 64),
    "vit_tiny_patch16_224": (3, 64, 64),
    "deit_tiny_distilled_patch16_224": (1, 64, 96),
    "swin_tiny_patch4_window7_224": (3, 64, 64),
    "swinv2_cr_tiny_ns_224": (3, 64, 64),
    "convnext_atto": (3, 64, 64),
    "efficientnet_b0": (1, 64, 64),
    "mobilenetv2_035": (3, 64, 64),
    "mobilenetv3_small_050": (1, 28, 28),
    "mobilenetv4_conv_small_035": (3, 64, 64),
    "mnasnet_small": (3, 64, 64),
    "regnetx_002": (3, 64, 64),
    "densenet121": (3, 64, 64),
    "mixer_s32_224": (3, 64, 64),
    "coatnet_nano_rw_224": (3, 64, 64),
    "maxvit_nano_rw_256": (3, 64, 64),
    "ghostnet_050": (3, 64, 64),
    "repvgg_a0": (3, 64, 64),
    "poolformer_s12": (3, 64, 64),
    "edgenext_xx_small": (3, 64, 64),
    "mobilevit_xxs": (3, 64, 64),
    "hardcorenas_a": (3, 64, 64),
    "dla46_c": (3, 64, 64),
    "fastvit_t8": (3, 64, 64),
}
BIG = ["resnet152", "vit_large_patch16_224", "convnext_xlarge", "vgg19_bn"]


@pytest.mark.parametrize(("model", "shape"), MODELS.items())
def test_backbone(model: str, shape: tuple[int, int, int]) -> None:
    encoder = Timm(shape, model=model)
    x = torch.randn(2, *shape)
    encoder.eval()
    features = encoder(x)
    assert features.shape[1:] == encoder.output_shape
    assert len(encoder.output_shape) == 1
    check_stages(encoder, x)
    encoder.train()(torch.randn(4, *shape)).square().mean().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def check_stages(encoder: nn.Module, x: torch.Tensor) -> None:
    """The stages in turn are the forward, and together own what the encoder owns, under no second name."""
    names = list(encoder.state_dict())
    stages = encoder.stages
    assert len(stages) >= 4
    y = x
    for stage in stages:
        y = stage(y)
    assert torch.equal(y, encoder(x))
    owned = {id(p) for stage in stages for p in stage.parameters()}
    assert owned == {id(p) for p in encoder.parameters()}
    assert list(encoder.state_dict()) == names


@pytest.mark.parametrize("model", BIG)
def test_big_backbone_on_meta(model: str) -> None:
    with torch.device("meta"):
        encoder = Timm((3, 224, 224), model=model)
        assert encoder(torch.empty(2, 3, 224, 224)).shape[1:] == encoder.output_shape
    assert len(encoder.stages) >= 5


@pytest.mark.parametrize(
    ("model", "expected"),
    {
        "resnet18": (512, 2, 3),
        "vit_tiny_patch16_224": (192, 4, 6),  # Its class token has no place.
        "swin_tiny_patch4_window7_224": (768, 2, 3),  # It keeps [B, H, W, C].
        "mixer_s32_224": (512, 2, 3),
        "mobilenetv3_small_050": (1024, 2, 3),
    }.items(),
)
def test_map(model: str, expected: tuple[int, int, int]) -> None:
    encoder = Timm((3, 64, 96), model=model, features="map").eval()
    x = torch.randn(2, 3, 64, 96)
    assert encoder.output_shape == encoder(x).shape[1:] == expected
    check_stages(encoder, x)


def test_tokens_lie_in_the_map_as_in_the_image() -> None:
    encoder = Timm((3, 64, 96), model="vit_tiny_patch16_224", features="map").eval()
    tokens = encoder.model(x := torch.randn(2, 3, 64, 96))  # [2, 1 + 24, 192]
    assert torch.equal(encoder(x)[:, :, 1, 2], tokens[:, 1 + 1 * 6 + 2])


def test_stages_are_cut_by_resolution_whatever_the_image() -> None:
    for size in (28, 64):
        encoder = Timm((3, size, size), model="resnet18")
        channels = []
        x = torch.randn(2, 3, size, size)
        for stage in encoder.stages:
            channels.append((x := stage(x)).shape[1])
        assert channels == [64, 64, 128, 256, 512, 512]


def test_maps_pass_between_stages_with_channels_first() -> None:
    encoder = Timm((3, 64, 64), model="swin_tiny_patch4_window7_224").eval()
    x = torch.randn(2, 3, 64, 64)
    shapes = [tuple((x := stage(x)).shape[1:]) for stage in encoder.stages]
    assert shapes == [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2), (768,)]


@pytest.mark.parametrize("model", ["resnet18", "vit_tiny_patch16_224"])
def test_stages_of_a_copy_are_the_copys(model: str) -> None:
    encoder = Timm((3, 64, 64), model=model).eval()
    x = torch.randn(2, 3, 64, 64)
    before = encoder(x)
    assert encoder.stages is not None
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for p in copied.parameters():
            p.mul_(0.5)
    check_stages(copied, x)
    assert torch.equal(encoder(x), before)
    held = encoder.stages
    # Parameters that are replaced, not changed, reach the stages that someone holds.
    encoder.load_state_dict(copied.state_dict(), assign=True)
    y = x
    for stage in held:
        y = stage(y)
    assert torch.equal(y, copied(x))


def test_equal_seeds_give_equal_weights() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(Timm((1, 32, 32), model="resnet18").state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_images_of_any_size() -> None:
    encoder = Timm((3, None, None), model="resnet18", features="map").eval()
    assert encoder.output_shape == (512, None, None)
    assert encoder(torch.randn(1, 3, 64, 96)).shape == (1, 512, 2, 3)
    with pytest.raises(ValueError, match="made for one size"):
        Timm((3, None, None), model="vit_tiny_patch16_224")


def test_pretrained_weights_are_loaded_and_fitted(tmp_path, monkeypatch) -> None:
    import timm

    source = timm.create_model("resnet18")
    torch.save(source.state_dict(), path := tmp_path / "resnet18.pth")
    overlay = {"file": str(path)}
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, pretrained_cfg_overlay=overlay))
    encoder = Timm((1, 64, 64), model="resnet18", pretrained=True)
    assert torch.equal(encoder.model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.allclose(encoder.model.conv1.weight, source.conv1.weight.sum(1, keepdim=True), atol=1e-6)
    path.unlink()  # On the meta device nothing is read.
    with torch.device("meta"):
        Timm((1, 64, 64), model="resnet18", pretrained=True)


@pytest.mark.parametrize(
    "model",
    [
        "hf-hub:timm/resnet18",
        "hf_hub:timm/resnet18",
        "local-dir:/tmp",
        "/tmp/resnet18",
        "https://a.b/c",
        "resnet81",
        "",
    ],
)
def test_refuses_names_that_timm_does_not_list(model: str) -> None:
    with pytest.raises(ValueError, match="expected one of the"):
        Timm((3, 64, 64), model=model, pretrained=True)


def test_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        Timm((3, 64, 64), model="resnet81")


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((30,), {"model": "resnet18"}, "expected an input"),
        ((None, 64, 64), {"model": "resnet18"}, "expected an input"),
        ((3, 60, 60), {"model": "coatnet_nano_rw_224"}, "found \\[3, 60, 60\\]"),
        ((3, 64, 64), {"model": "resnet18.no_such_tag"}, "expected one of the"),
    ],
)
def test_refuses_what_the_model_can_not_read(shape, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Timm(shape, **options)
