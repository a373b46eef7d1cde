from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from sfnetlab.errors import DataError
from sfnetlab.models.backbones import ImageEncoder, make_backbone, normalisation


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def written(path, state):
    save_file(state, path)
    return path


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_random_weights_are_a_function_of_the_seed():
    assert same(make_backbone("test_resnet", "random", 1), make_backbone("test_resnet", "random", 1))
    assert not same(make_backbone("test_resnet", "random", 1), make_backbone("test_resnet", "random", 2))


def test_random_weights_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    make_backbone("test_resnet", "random", 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_file_of_a_whole_model_loads_without_its_classifier(tmp_path):
    whole = timm.create_model("test_resnet", num_classes=10)
    backbone = make_backbone("test_resnet", written(tmp_path / "w.safetensors", whole.state_dict()), None)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in backbone.state_dict().items())


def test_float16_file_becomes_float32(tmp_path):
    original = make_backbone("test_vit", "random", 0)
    half = {name: value.half() for name, value in original.state_dict().items()}
    backbone = make_backbone("test_vit", written(tmp_path / "w.safetensors", half), None)
    assert {value.dtype for value in backbone.state_dict().values()} == {torch.float32}
    assert all(torch.equal(value, half[name].float()) for name, value in backbone.state_dict().items())


def test_file_that_does_not_fit_is_an_error_that_lists_everything(tmp_path):
    state = state_of(make_backbone("test_resnet", "random", 0))
    del state["bn1.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(3)
    state["bn1.running_var"][0] = torch.nan
    path = written(tmp_path / "w.safetensors", state)
    with pytest.raises(DataError) as error:
        make_backbone("test_resnet", path, None)
    message = str(error.value)
    assert message.startswith(f"{path}: these are not the weights of timm's test_resnet: missing: bn1.bias; ")
    for problem in ("unexpected: extra.weight;", "wrong size: bn1.weight (3,)", "not finite: bn1.running_var"):
        assert problem in message


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none.safetensors: not a readable"):
        make_backbone("test_resnet", tmp_path / "none.safetensors", None)


def test_weights_that_cannot_be_downloaded_are_an_error_not_random(monkeypatch):
    def offline(name, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(DataError, match=r"downloaded once, and that failed \(no connection\).*give a .safetensors"):
        make_backbone("resnet18", "imagenet", None)


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(DataError, match=r"'resnet81'.*resnet18"):
        make_backbone("resnet81", "random", 0)


def test_normalisation_is_that_of_the_pretrained_configuration():
    assert normalisation("resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_encoder_standardises_channels_and_moves_them_first():
    class Echo(torch.nn.Module):
        num_features = 3

        def forward(self, x):
            return x.mean(dim=(2, 3))

    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    encoder = ImageEncoder(Echo(), mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    expected = (images.double().mean(dim=(1, 2)) / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1, 2])
    torch.testing.assert_close(encoder(images), expected.float())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "mobilenetv3_small_050"])
def test_features_have_the_stated_width_at_any_image_size(name):
    encoder = ImageEncoder(make_backbone(name, "random", 0), *normalisation(name)).eval()
    for side in (32, 48):
        assert encoder(torch.zeros((2, side, side, 3), dtype=torch.uint8)).shape == (2, encoder.n_features)


def test_image_size_resamples_cutouts():
    backbone, images = make_backbone("test_resnet", "random", 0), torch.full((1, 20, 20, 3), 90, dtype=torch.uint8)
    resampled = ImageEncoder(backbone, *normalisation("test_resnet"), image_size=32).eval()
    plain = ImageEncoder(backbone, *normalisation("test_resnet")).eval()
    torch.testing.assert_close(resampled(images), plain(torch.full((1, 32, 32, 3), 90, dtype=torch.uint8)))


def test_cutouts_that_patches_do_not_tile_are_an_error_with_a_size_that_they_do():
    encoder = ImageEncoder(make_backbone("test_vit", "random", 0), *normalisation("test_vit"))
    with pytest.raises(DataError, match="multiple of 16, for example 32"):
        encoder(torch.zeros((1, 40, 40, 3), dtype=torch.uint8))


def test_images_that_are_not_uint8_are_an_error():
    encoder = ImageEncoder(make_backbone("test_resnet", "random", 0), *normalisation("test_resnet"))
    with pytest.raises(ValueError, match="expected uint8 images"):
        encoder(torch.zeros(1, 3, 32, 32))


REAL_WEIGHTS = Path(__file__).resolve().parents[2] / "../shared/data/weights"


@pytest.mark.parametrize(
    ("name", "file", "n_features"),
    [
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0.imagenet.safetensors", 1280),
        ("vit_small_patch14_dinov2", "vit_small_patch14_dinov2.fp16.safetensors", 384),
    ],
)
def test_real_pretrained_weights_load_and_tell_images_apart(name, file, n_features):
    path = REAL_WEIGHTS / file
    if not path.is_file():
        pytest.skip(f"no {file}: the project ships no pretrained weights")
    encoder = ImageEncoder(make_backbone(name, path, None, 224), *normalisation(name), image_size=224).eval()
    images = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    images[1, 16:48, 16:48] = 200
    with torch.inference_mode():
        features = encoder(images)
    assert features.shape == (2, n_features)
    assert torch.nn.functional.cosine_similarity(features[0], features[1], dim=0) < 0.95
