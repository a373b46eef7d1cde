"""Each backbone's convention against a pipeline written out anew: a wrong normalisation can't pass unnoticed."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from sfnetlab.errors import DataError
from sfnetlab.methods.encoder import Encoder
from sfnetlab.methods.zoobot import Zoobot
from sfnetlab.models.backbones import ALIASES, ImageEncoder, input_convention, make_backbone
from sfnetlab.models.conventions import TABLE, convention_of

SIDE = 80
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NOTHING = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CONFIG_OF_THE_HUB = {"mean": IMAGENET[0], "std": IMAGENET[1], "input_size": (3, 224, 224), "interpolation": "bicubic"}
ZOOBOT = ["hf_hub:mwalmsley/zoobot-encoder-resnet18", "hf-hub:mwalmsley/zoobot-encoder-euclid@main", "zoobot:resnet18"]


def galaxy(seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    light = np.exp(-np.hypot(x / 9, y / 5))[..., None] * [200, 150, 90]
    return np.clip(light + rng.normal(20, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def through_pillow(image, side, resampling, mean, std):
    """One image as PIL and torchvision prepare it: resized, 0 to 1, standardised, channels first; no rounding."""
    planes = []
    for channel in range(3):
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        resized = np.asarray(plane.resize((side, side), RESAMPLING[resampling])) if side else np.asarray(plane)
        planes.append((np.clip(resized / 255, 0, 1) - mean[channel]) / std[channel])
    return torch.from_numpy(np.stack(planes)[None].astype(np.float32))


def ours(name, backbone, image, image_size=None):
    convention = input_convention(name)
    encoder = ImageEncoder(
        backbone,
        convention.mean,
        convention.std,
        image_size or convention.image_size,
        resampling=convention.resampling,
        pooling=convention.pooling,
    )
    with torch.inference_mode():
        return encoder.eval()(torch.from_numpy(image[None]))


def wrong_by(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("name", "image_size", "expected"),
    [
        ("zoobot:test_resnet", None, (224, "bilinear", *NOTHING)),
        ("resnet18", None, (None, "bilinear", *IMAGENET)),
        ("resnet18", 64, (64, "bicubic", *IMAGENET)),
        ("tf_efficientnet_lite0", 96, (96, "bicubic", (0.5,) * 3, (0.5,) * 3)),
        ("mobilenetv3_small_050", 96, (96, "bicubic", *IMAGENET)),
    ],
)
def test_features_are_those_of_an_independent_pipeline(name, image_size, expected):
    backbone = make_backbone(name, "random", 0).eval()
    image = galaxy()
    with torch.inference_mode():
        features = backbone(through_pillow(image, *expected))
    assert wrong_by(ours(name, backbone, image, image_size), features) < 1e-4


def test_another_normalisation_would_be_noticed():
    backbone = make_backbone("test_resnet", "random", 0).eval()
    with torch.inference_mode():
        standardised = backbone(through_pillow(galaxy(), 224, "bilinear", *IMAGENET))
    assert wrong_by(ours("zoobot:test_resnet", backbone, galaxy()), standardised) > 0.1


@pytest.mark.parametrize("name", ZOOBOT)
def test_zoobot_takes_0_to_1_whatever_its_config_says(name):
    convention = convention_of(name, CONFIG_OF_THE_HUB)
    assert (convention.mean, convention.std, convention.image_size) == (*NOTHING, 224)
    assert convention.pooling == "model"


def test_other_models_of_the_hub_follow_their_config():
    convention = convention_of("hf_hub:someone/model", CONFIG_OF_THE_HUB)
    assert (convention.mean, convention.std, convention.image_size) == (*IMAGENET, 224)
    assert convention.resampling == "bicubic"


def test_timm_models_keep_the_size_of_the_survey():
    assert input_convention("resnet18").image_size is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hf_hub:mwalmsley/zoobot-encoder-greyscale-convnext_nano", "takes one channel"),
        ("hf_hub:someone/model", "no configuration says with which mean and std"),
    ],
)
def test_a_backbone_whose_images_are_not_known_or_not_ours_is_an_error(name, problem):
    with pytest.raises(DataError, match=problem):
        convention_of(name, {})


def test_every_row_of_the_table_names_its_source():
    assert all(len(convention.source) > 40 for convention in TABLE.values())


@pytest.mark.parametrize("kind", [Encoder, partial(Zoobot, target="t")])
@pytest.mark.parametrize(
    ("backbone", "weights", "problem"),
    [
        ("hf_hub:me/tiny", "imagenet", 'weights = "hub" are those of a backbone "hf_hub:owner/name"'),
        ("resnet18", "hub", 'weights = "hub" are those of a backbone "hf_hub:owner/name"'),
        ("zoobot:resnet18", "random", "are for weights in a file"),
        ("resnet18", "w.ckpt", 'does not say what images its weights expect: the backbone must, as "zoobot:resnet18"'),
        ("resnet18", "w.bin", "weights must be"),
    ],
)
def test_settings_that_leave_the_convention_open_are_an_error(kind, backbone, weights, problem):
    with pytest.raises(ValueError, match=problem):
        kind(name="e", backbone=backbone, weights=weights)


# --- the Euclid MAE ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mae():
    return make_backbone("zoobot_vit_small_patch8_224", "random", 0).eval()


def test_the_euclid_mae_has_the_published_shape(mae):
    assert "zoobot_vit_small_patch8_224" in ALIASES
    assert (len(mae.blocks), mae.embed_dim, mae.blocks[0].attn.num_heads) == (12, 384, 6)
    assert mae.patch_embed.patch_size == (8, 8)
    assert mae.pos_embed.shape == (1, 1 + 28 * 28, 384)


def test_its_embedding_is_the_mean_over_patch_tokens_of_block_11_without_a_norm(mae):
    seen = []
    hook = mae.blocks[11].register_forward_hook(lambda module, inputs, output: seen.append(output))
    name = "hf_hub:mwalmsley/euclid_encoder_mae_zoobot_vit_small_patch8_224"
    convention = convention_of(name, {})
    assert convention.image_size == 224
    encoder = ImageEncoder(mae, convention.mean, convention.std, 64, pooling=convention.pooling)  # 64: for speed
    with torch.inference_mode():
        features = encoder(torch.from_numpy(galaxy()[None]))
        hook.remove()
        tokens = mae.forward_features(through_pillow(galaxy(), 64, "bilinear", *NOTHING))
    torch.testing.assert_close(features, seen[0][:, 1:].mean(dim=1))  # the first token is the class token
    assert wrong_by(features, tokens[:, 1:].mean(dim=1)) < 1e-4
    assert features.shape == (1, encoder.n_features)
