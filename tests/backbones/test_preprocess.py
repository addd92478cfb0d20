import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from bottleneck.backbones import load_backbone
from bottleneck.backbones.preprocess import Preprocess, parse_preprocess
from bottleneck.backbones.torchvision import published_preprocess
from bottleneck.errors import InvalidInputError, WeightsError
from bottleneck.images import as_image_source, load_batch
from bottleneck.torchvision_door import torchvision

PREPROCESS = Preprocess(resize=8, crop=(8, 8), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))

# One of each kind of resampling and of size that torchvision's classification weights ask for.
PUBLISHED = [
    ("resnet50", "IMAGENET1K_V1"),
    ("resnet50", "IMAGENET1K_V2"),
    ("efficientnet_b0", "IMAGENET1K_V1"),
    ("efficientnet_v2_l", "IMAGENET1K_V1"),
    ("regnet_y_16gf", "IMAGENET1K_SWAG_E2E_V1"),
    ("swin_v2_t", "IMAGENET1K_V1"),
    ("inception_v3", "IMAGENET1K_V1"),
]
SIZES = [(256, 256), (224, 224), (301, 200), (200, 301), (97, 640), (640, 97), (30, 20), (233, 231), (1, 1), (600, 511)]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.RandomState(width * 1000 + height).randint(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def read_whole(path: str) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def ours(preprocess: Preprocess, image: Image.Image) -> torch.Tensor:
    return preprocess.normalise(torch.from_numpy(preprocess(image))[None])[0]


@pytest.mark.parametrize("name, member", PUBLISHED)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_and_arithmetic_equal_torchvisions_transforms_within_one_grey_level(name, member, size):
    image = noise(*size)
    oracle = torchvision().models.get_model_weights(name)[member].transforms()
    preprocess = published_preprocess(name, member)

    result = ours(preprocess, image)

    grey_levels = (result - oracle(image)).abs() * 255 * torch.tensor(preprocess.std).view(3, 1, 1)
    assert result.shape == oracle(image).shape
    assert (grey_levels > 0.5).float().mean() < 0.02
    assert (grey_levels > 1.001).float().mean() < 1e-4  # noise is the worst case: rounded twice the wrong way
    assert grey_levels.max() < 2.001


def test_arithmetic_equals_torchvisions_to_the_last_bit():
    functional = torchvision().transforms.functional
    image = noise(16, 12)

    expected = functional.normalize(functional.to_tensor(image), PREPROCESS.mean, PREPROCESS.std)

    result = ours(replace(PREPROCESS, resize=None, crop=(12, 16)), image)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(2000, 40), (30, 900)])
def test_long_pictures_are_resized_where_they_are_seen(interpolation, size, monkeypatch):
    preprocess = replace(PREPROCESS, resize=64, crop=(56, 56), interpolation=interpolation)
    image = noise(*size)

    in_part = preprocess(image)
    monkeypatch.setattr("bottleneck.backbones.preprocess.MOST_RESIZED_PER_CROP", 1000)
    whole = preprocess(image)

    assert np.abs(in_part.astype(int) - whole).max() <= 2
    assert (in_part != whole).mean() < 0.02


def test_a_banner_takes_no_more_memory_than_its_crop():
    banner = np.zeros((2, 100_000, 3), dtype=np.uint8)  # 39 gigabytes at 512 pixels of height
    banner[:, 50_000:] = 255

    pixels = replace(PREPROCESS, resize=512, crop=(512, 512))(banner)

    assert pixels.shape == (3, 512, 512)
    assert (pixels[:, :, :128] == 0).all()
    assert (pixels[:, :, -128:] == 255).all()


@pytest.mark.parametrize("size", [(31, 52), (9, 7), (300, 200)])
def test_nearest_takes_the_pixels_that_pillow_takes(size):
    preprocess = replace(PREPROCESS, resize=(24, 20), crop=(16, 12), interpolation="nearest")
    image = noise(*size)

    expected = np.asarray(image.resize((20, 24), Image.Resampling.NEAREST).crop((4, 4, 16, 20)))

    np.testing.assert_array_equal(preprocess(image), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("crop", [(31, 31), (32, 31), (7, 50), (64, 64)])
@pytest.mark.parametrize("size", [(31, 32), (32, 32), (33, 34), (40, 61)])
def test_centre_crop_rounds_and_pads_like_torchvision(crop, size):
    functional = torchvision().transforms.functional
    image = noise(*size)
    preprocess = Preprocess(resize=None, crop=crop, mean=PREPROCESS.mean, std=PREPROCESS.std)

    expected = functional.pil_to_tensor(functional.center_crop(image, list(crop))).numpy()

    np.testing.assert_array_equal(preprocess(image), expected)


def test_exact_resize_ignores_the_aspect_ratio():
    preprocess = Preprocess(resize=(6, 9), crop=(6, 9), mean=PREPROCESS.mean, std=PREPROCESS.std)
    image = noise(40, 21)

    expected = np.asarray(image.resize((9, 6), Image.Resampling.BILINEAR)).transpose(2, 0, 1)

    np.testing.assert_allclose(preprocess(image), expected, rtol=0, atol=1)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_image_of_another_mode_is_the_same_image_in_rgb(mode):
    image = noise(20, 30, mode)

    np.testing.assert_array_equal(PREPROCESS(image), PREPROCESS(image.convert("RGB")))


def test_an_array_is_the_same_image():
    pixels = np.asarray(noise(20, 30))

    for array in (pixels, pixels[::-1][::-1], np.asfortranarray(pixels)):
        np.testing.assert_array_equal(PREPROCESS(array), PREPROCESS(noise(20, 30)))


@pytest.mark.parametrize("resize", [8, None])
@pytest.mark.parametrize("crop", [(8, 8), (40, 40)])
def test_pixels_are_uint8_with_channels_last_in_memory(resize, crop):
    pixels = replace(PREPROCESS, resize=resize, crop=crop)(noise(20, 30))

    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, *crop)
    assert pixels.strides[0] == 1
    assert pixels.strides[2] == 3


def test_normalising_leaves_the_pixels_as_they_are():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    before = pixels.clone()

    PREPROCESS.normalise(pixels)

    assert torch.equal(pixels, before)


@pytest.mark.parametrize("resize", [8, (8, 9), None])
def test_description_is_json_that_gives_the_record_back(resize):
    preprocess = Preprocess(resize=resize, crop=(8, 7), mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic")

    assert Preprocess(**json.loads(json.dumps(preprocess.describe()))) == preprocess


@pytest.fixture(scope="module")
def photographs(shared):
    """Return, for each folder, what torchvision's functions make of whole photographs, and our batch of them."""
    functional = torchvision().transforms.functional
    preprocess = replace(PREPROCESS, resize=256, crop=(224, 224))
    both = {}
    for folder in ("clothing", "dtd10", "large_photos"):
        paths = sorted(str(path) for path in (shared / "data" / folder).rglob("*.jpg"))
        paths = paths[:: max(1, len(paths) // 8)]
        resized = [functional.resize(read_whole(path), [256]) for path in paths]
        whole = torch.stack([functional.pil_to_tensor(functional.center_crop(image, [224])) for image in resized])
        batch = load_batch(as_image_source(paths), range(len(paths)), preprocess=preprocess, decode_min_side=256)
        assert not batch.failures
        both[folder] = (whole, torch.from_numpy(batch.pixels))
    return both


@pytest.mark.shared
@pytest.mark.parametrize(
    "name, file",
    [
        ("mobilenet_v2", "mobilenet_v2_imagenet_tf_hmirror.safetensors"),
        ("squeezenet1_0", "squeezenet1_0_imagenet.safetensors"),
    ],
)
@pytest.mark.parametrize("folder, least", [("clothing", 0.9999), ("dtd10", 0.9999), ("large_photos", 0.999)])
def test_features_of_photographs_are_those_of_torchvisions_transforms(shared, photographs, name, file, folder, least):
    backbone = load_backbone(name, shared / "weights" / file)
    assert (backbone.preprocess.resize, backbone.preprocess.crop) == (256, (224, 224))

    expected, features = (backbone.forward_layers(pixels)["penultimate"] for pixels in photographs[folder])

    assert torch.nn.functional.cosine_similarity(features, expected).min() >= least


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["clothing", "dtd10"])
def test_pixels_of_small_photographs_are_within_one_grey_level_of_torchvisions(photographs, folder):
    expected, pixels = photographs[folder]

    assert (pixels.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    "field, value",
    [
        *(("resize", value) for value in (0, -1, 2.5, (3,), (0, 4))),
        *(("crop", value) for value in (224, (0, 1), (1, 2, 3))),
        *(("mean", value) for value in (0.5, (0.5, 0.5), ("a", "b", "c"))),
        *(("std", value) for value in ((0, 1, 1), None)),
        ("interpolation", "lanczos"),
    ],
)
def test_value_that_makes_no_sense_is_refused_by_name(field, value):
    fields = {"resize": 8, "crop": (8, 8), "mean": (0, 0, 0), "std": (1, 1, 1), field: value}

    with pytest.raises(InvalidInputError, match=f"'{field}' parameter of Preprocess"):
        Preprocess(**fields)


@pytest.mark.parametrize(
    "metadata, resize, crop",
    [
        ({"crop": "224"}, 256, (224, 224)),
        ({"crop": "160", "resize": "170"}, 170, (160, 160)),
        ({"input_size": "32"}, 32, (32, 32)),
        ({"input_size": "3,48,64"}, (48, 64), (48, 64)),
        ({"input": "RGB 0..1, 32x32"}, 32, (32, 32)),
    ],
)
def test_metadata_of_a_weights_file_is_enough(metadata, resize, crop):
    stated = {"mean": "0.5,0.5,0.5", "std": "[0.25, 0.25, 2.5e-1]", **metadata}

    preprocess = parse_preprocess(stated)

    assert preprocess == Preprocess(resize=resize, crop=crop, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("missing", ["mean", "std", "crop"])
def test_metadata_that_says_too_little_is_not_completed_by_guessing(missing):
    stated = {"mean": "0,0,0", "std": "1,1,1", "crop": "8"}
    del stated[missing]

    assert parse_preprocess(stated) is None


def test_metadata_takes_the_rest_from_what_belongs_to_the_network():
    assert parse_preprocess({}, base=PREPROCESS) == PREPROCESS
    assert parse_preprocess({"mean": "0,0,0"}, base=PREPROCESS).std == PREPROCESS.std
    assert parse_preprocess({"interpolation": "bicubic"}, base=PREPROCESS).interpolation == "bicubic"


@pytest.mark.parametrize("metadata", [{"mean": "0.5"}, {"std": "one, two, three"}, {"crop": "large"}])
def test_metadata_that_cannot_be_read_is_an_error(metadata):
    with pytest.raises(WeightsError, match="metadata"):
        parse_preprocess(metadata, base=PREPROCESS)


@pytest.mark.parametrize("stated", ["BGR 0..1", "RGB 0..255"])
def test_other_inputs_than_rgb_from_0_to_1_are_refused(stated):
    with pytest.raises(WeightsError, match="RGB from 0 to 1"):
        parse_preprocess({"input": stated}, base=PREPROCESS)
