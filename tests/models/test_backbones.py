import functools
import hashlib
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from servers import Answer, serving
from sfnetlab.errors import DataError
from sfnetlab.models.backbones import (
    ImageEncoder,
    for_inference,
    input_convention,
    local_name,
    make_backbone,
    weights_sha256,
)
from sfnetlab.training.network import frozen_encoder


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def written(path, state):
    save_file(state, path)
    return path


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained(name, **arguments):
    """A model of which every tensor has moved from its start, as training moves them."""
    model = timm.create_model(name, **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator).abs() * 0.05)
    return model


def normalisation(name):
    convention = input_convention(name)
    return convention.mean, convention.std


def test_random_weights_are_a_function_of_the_seed():
    assert same(make_backbone("test_resnet", "random", 1), make_backbone("test_resnet", "random", 1))
    assert not same(make_backbone("test_resnet", "random", 1), make_backbone("test_resnet", "random", 2))


def test_random_weights_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    make_backbone("test_resnet", "random", 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_file_of_a_whole_model_loads_without_its_classifier(tmp_path):
    whole = trained("test_resnet", num_classes=10)
    backbone = make_backbone("test_resnet", written(tmp_path / "w.safetensors", whole.state_dict()), None)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in backbone.state_dict().items())


def test_float16_file_becomes_float32(tmp_path):
    original = trained("test_vit", num_classes=0)
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
    create = timm.create_model

    def offline(name, *, pretrained, **kwargs):
        if pretrained:
            raise OSError("no connection")
        return create(name, **kwargs)

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


# --- fault S3: weights of which training left no trace --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "seed", "dtype"),
    [
        ("resnet18", 7, torch.float32),
        ("vit_tiny_patch16_224", 7, torch.float16),
        ("convnext_atto", 7, torch.float16),
        ("mobilenetv3_small_050", 7, torch.float32),
        ("test_resnet", 0, torch.float32),
        ("test_vit", 0, torch.float32),
    ],
)
def test_a_saved_random_network_is_refused(tmp_path, name, seed, dtype):
    state = make_backbone(name, "random", seed).state_dict()
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    path = written(tmp_path / "w.safetensors", half)
    with pytest.raises(DataError, match=r'(never trained|random start).*say weights = "random"'):
        make_backbone(name, path, None)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_one_trained_bias_is_enough_to_be_let_through(tmp_path, name):
    state = state_of(make_backbone(name, "random", 7))
    bias = next(key for key in state if key.endswith("bias") and not state[key].any())
    state[bias] += 1e-3
    make_backbone(name, written(tmp_path / "w.safetensors", state), None)


def test_a_download_that_leaves_tensors_at_their_start_is_refused(monkeypatch):
    create = timm.create_model

    def lenient(name, *, pretrained, **kwargs):  # as timm loads where the numbers of classes differ: not strictly
        model = create(name, **kwargs)
        if pretrained:
            model.load_state_dict({"conv1.0.weight": torch.ones_like(model.conv1[0].weight)}, strict=False)
        return model

    monkeypatch.setattr(timm, "create_model", lenient)
    with pytest.raises(DataError, match=r"timm's test_resnet: \d+ tensors still hold their random start"):
        make_backbone("test_resnet", "imagenet", None)


# --- PyTorch checkpoints ----------------------------------------------------------------------------------------------


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "encoder.", "model.encoder."])
@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt"])
def test_a_checkpoint_loads_under_the_names_of_frameworks(tmp_path, prefix, suffix):
    state = trained("test_resnet", num_classes=0).state_dict()
    content = {prefix + name: value for name, value in state.items()}
    if prefix:
        content |= {"head.linear.weight": torch.ones(1), "val_loss_metric.mean": torch.ones(1)}
    path = saved(tmp_path / f"w.{suffix}", {"state_dict": content, "epoch": 3} if suffix == "ckpt" else content)
    backbone = make_backbone("zoobot:test_resnet", path, None)
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_a_checkpoint_that_would_run_code_is_not_read(tmp_path):
    path = saved(tmp_path / "w.ckpt", {"state_dict": {}, "hyper_parameters": Path})
    with pytest.raises(DataError, match="reading that would run code"):
        make_backbone("zoobot:test_resnet", path, None)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path, content):
    path = tmp_path / "w.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"w.ckpt: (not a readable PyTorch|holds more than tensors)"):
        make_backbone("zoobot:test_resnet", path, None)


def test_a_truncated_checkpoint_is_an_error(tmp_path):
    path = saved(tmp_path / "w.ckpt", trained("test_resnet").state_dict())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"w.ckpt: not a readable PyTorch checkpoint"):
        make_backbone("zoobot:test_resnet", path, None)


# --- the hub ----------------------------------------------------------------------------------------------------------


def hub_of(files, *, cut=()):
    """What the Hugging Face hub answers huggingface_hub about one repository: its files, by name; some are cut off."""

    def answer(request):
        owner, repository, _, revision, file = (*request.path.strip("/").split("/"), *[""] * 5)[:5]
        problem = "RepoNotFound" if (owner, repository) != ("me", "tiny") else ""
        problem = problem or ("" if revision in ("main", "v1") else "RevisionNotFound")
        problem = problem or ("" if file in files else "EntryNotFound")
        body = b"" if problem else files[file]
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        if problem:
            return Answer(404, b"", headers | {"X-Error-Code": problem})
        if file in cut and request.method == "GET":
            return Answer(200, body[:100], headers | {"Content-Length": str(len(body))})
        return Answer(200, body, headers)

    return answer


def repository_of(model, architecture, tmp_path, **config):
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    mean_of_imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224]}
    config = {"architecture": architecture, "num_classes": 0, "pretrained_cfg": mean_of_imagenet} | config
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": (tmp_path / "model.safetensors").read_bytes(),
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Makes huggingface_hub ask a server here, and keep what it gets in a cache of its own."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between retries
    with ExitStack() as servers:

        def start(files, **faults):
            server = servers.enter_context(ExitStack())
            url = server.enter_context(serving(hub_of(files, **faults)))
            download = functools.partial(
                huggingface_hub.file_download.hf_hub_download, endpoint=url, cache_dir=tmp_path / "cache"
            )
            monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
            return server.close

        yield start


@pytest.fixture
def model():
    return trained("test_resnet", num_classes=0)


def test_a_model_of_the_hub_loads(hub, model, tmp_path):
    hub(repository_of(model, "test_resnet", tmp_path))
    assert same(model, make_backbone("hf_hub:me/tiny", "hub", None))
    assert same(model, make_backbone("hf-hub:me/tiny@v1", "hub", None))
    assert local_name("hf_hub:me/tiny") == "test_resnet"


def test_it_is_downloaded_once(hub, model, tmp_path):
    stop = hub(repository_of(model, "test_resnet", tmp_path))
    make_backbone("hf_hub:me/tiny", "hub", None)
    stop()
    assert same(model, make_backbone("hf_hub:me/tiny", "hub", None))


def test_weights_of_the_hub_may_be_a_pytorch_file(hub, model, tmp_path):
    files = repository_of(model, "test_resnet", tmp_path)
    torch.save(model.state_dict(), tmp_path / "w")
    hub({"config.json": files["config.json"], "pytorch_model.bin": (tmp_path / "w").read_bytes()})
    assert same(model, make_backbone("hf_hub:me/tiny", "hub", None))


def test_the_hub_encoder_keeps_its_size_and_convention(hub, model, tmp_path):
    hub(repository_of(model, "test_resnet", tmp_path))
    images = np.full((2, 40, 40, 3), 90, dtype=np.uint8)
    encoder = frozen_encoder("hf_hub:me/tiny", "hub", None, None, images, np.arange(2))
    assert encoder.image_size == 224
    assert encoder.describe()["source"] == "config.json of the hub's model"
    assert not encoder.training


def test_a_transformer_of_the_hub_is_laid_out_for_another_size(hub, tmp_path):
    hub(repository_of(trained("test_vit", num_classes=0), "test_vit", tmp_path))
    native = make_backbone("hf_hub:me/tiny", "hub", None).eval()
    small = make_backbone("hf_hub:me/tiny", "hub", None, 64).eval()
    assert small.pos_embed.shape[1] < native.pos_embed.shape[1]
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(small(images), native(images), rtol=1e-3, atol=1e-4)


def without(files, name):
    return {file: content for file, content in files.items() if file != name}


@pytest.mark.parametrize(
    ("name", "spoil", "problem"),
    [
        ("hf_hub:me/other", lambda files: files, "config.json is downloaded .* and that failed .*check the name"),
        ("hf_hub:me/tiny@v2", lambda files: files, "config.json is downloaded .* and that failed"),
        ("hf_hub:me/tiny", lambda files: without(files, "config.json"), "this repository has no config.json"),
        ("hf_hub:me/tiny", lambda files: without(files, "model.safetensors"), "no model.safetensors or pytorch_model"),
        ("hf_hub:me/tiny", lambda files: files | {"config.json": b"[]"}, "config.json is not that of a timm model"),
        (
            "hf_hub:me/tiny",
            lambda files: files | {"config.json": b'{"architecture": "zoobot_x"}'},
            "timm does not know this model",
        ),
        (
            "hf_hub:me/tiny",
            lambda files: files | {"model.safetensors": files["model.safetensors"][:-9]},
            "not a readable .safetensors file",
        ),
    ],
)
def test_what_the_hub_lacks_is_one_clear_error(hub, model, tmp_path, name, spoil, problem):
    hub(spoil(repository_of(model, "test_resnet", tmp_path)))
    with pytest.raises(DataError, match=problem):
        make_backbone(name, "hub", None)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(hub, model, tmp_path, file):
    files = repository_of(model, "test_resnet", tmp_path)
    hub(files, cut=[file])
    with pytest.raises(DataError, match=f"{file} is downloaded from the Hugging Face hub once, and that failed"):
        make_backbone("hf_hub:me/tiny", "hub", None)
    hub(files)
    assert same(model, make_backbone("hf_hub:me/tiny", "hub", None))


def test_no_network_is_one_clear_error(hub, model, tmp_path):
    stop = hub({})
    stop()
    with pytest.raises(DataError, match=r"that failed \(.*[Rr]efused.*connect to the network and run again"):
        make_backbone("hf_hub:me/tiny", "hub", None)


def test_a_repository_without_the_encoders_weights_is_refused(hub, model, tmp_path):
    files = repository_of(model, "test_resnet", tmp_path)
    save_file({"head.weight": torch.ones(2, 2)}, tmp_path / "empty")
    hub(files | {"model.safetensors": (tmp_path / "empty").read_bytes()})
    with pytest.raises(DataError, match=r"these are not the weights of hf_hub:me/tiny: missing: conv1.0.weight"):
        make_backbone("hf_hub:me/tiny", "hub", None)


def test_a_repository_of_random_weights_is_refused(hub, tmp_path):
    hub(repository_of(make_backbone("test_resnet", "random", 7), "test_resnet", tmp_path))
    with pytest.raises(DataError, match=r"hf_hub:me/tiny: model.safetensors: these weights were never trained"):
        make_backbone("hf_hub:me/tiny", "hub", None)


def test_settings_of_config_json_are_heeded_but_have_no_local_name(hub, tmp_path):
    model = trained("test_resnet", num_classes=0, stem_width=8)
    hub(repository_of(model, "test_resnet", tmp_path, model_args={"stem_width": 8}))
    assert same(model, make_backbone("hf_hub:me/tiny", "hub", None))
    with pytest.raises(DataError, match="changes settings of timm's test_resnet"):
        local_name("hf_hub:me/tiny")


@pytest.mark.slow
def test_the_environment_variable_of_the_hub_is_heeded(model, tmp_path):
    """As users set it for a mirror, in a process of its own."""
    program = (
        "from sfnetlab.models.backbones import make_backbone, weights_sha256\n"
        "print(weights_sha256(make_backbone('hf_hub:me/tiny', 'hub', None)))"
    )
    with serving(hub_of(repository_of(model, "test_resnet", tmp_path))) as url:
        environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
        printed = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert printed.split()[-1] == weights_sha256(model)


# --- the hash of weights ----------------------------------------------------------------------------------------------


def test_the_hash_is_of_values_names_and_types_and_not_of_memory_layout(model):
    before = weights_sha256(model)
    assert weights_sha256(model.to(memory_format=torch.channels_last)) == before
    assert weights_sha256(model.half()) != before
    with torch.no_grad():
        next(model.float().parameters()).flatten()[0] += 1e-3
    assert weights_sha256(model) != before


# --- real weights -----------------------------------------------------------------------------------------------------

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


# --- faster, the same ------------------------------------------------------------------------------------------------


def with_batch_statistics(backbone):
    """As after training: no batch norm is the identity."""
    generator = torch.Generator().manual_seed(0)
    for norm in (module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        for tensor, low in ((norm.running_mean, -0.3), (norm.running_var, 0.5), (norm.weight, 0.7), (norm.bias, -0.2)):
            tensor.data = low + torch.rand(tensor.shape, generator=generator)
    return ImageEncoder(backbone, (0.5,) * 3, (0.2,) * 3).eval()


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050", "resnetv2_50"])
def test_an_encoder_for_inference_gives_the_same_features(name):
    encoder = with_batch_statistics(make_backbone(name, "random", 0))
    before = weights_sha256(encoder.backbone)
    images = torch.randint(256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = encoder(images), for_inference(encoder)(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert weights_sha256(encoder.backbone) == before


def test_an_encoder_for_inference_has_no_batch_norms_left():
    folded = for_inference(with_batch_statistics(make_backbone("resnet18", "random", 0)))
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_what_cannot_be_folded_comes_back_as_it_is():
    class Crossed(torch.nn.Module):
        """Lists a convolution before the batch norm that it follows."""

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.norm = torch.nn.BatchNorm2d(3)

        def forward(self, x):
            return self.conv(torch.relu(self.norm(x))).mean(dim=(-2, -1))

    crossed = with_batch_statistics(Crossed())
    assert for_inference(crossed) is crossed
    without = ImageEncoder(make_backbone("convnext_atto", "random", 0), (0.5,) * 3, (0.2,) * 3).eval()
    assert for_inference(without) is without
