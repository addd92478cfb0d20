import random
from dataclasses import replace

import pytest

from bottleneck.cache import FeatureSpace
from bottleneck.errors import CacheError, InvalidInputError

from .rows import SPACE


def test_digest_ignores_order_of_layers_and_spelling_of_json():
    other = FeatureSpace(
        weights=SPACE.weights, layers=SPACE.layers[::-1], pooling="mean", preprocess='{"crop":\n[224,224]}'
    )

    assert other == SPACE
    assert other.digest == SPACE.digest


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "cd" * 32},
        {"layers": (("penultimate", 24),)},
        {"layers": (("penultimate", 25), ("stage1", 5))},
        {"pooling": "max"},
        {"preprocess": '{"crop": [225, 224]}'},
        {"precision": "bfloat16"},
    ],
)
def test_digest_changes_with_everything_that_changes_a_feature(change):
    assert replace(SPACE, **change).digest != SPACE.digest


def test_digest_stays_the_same_between_releases():
    assert SPACE.digest == "1811683627965b83"


def test_description_reads_back_as_the_same_space():
    assert FeatureSpace.from_json(SPACE.to_json()) == SPACE


def test_description_of_a_newer_version_is_refused_with_the_reason():
    text = SPACE.to_json().replace('"format_version": 1', '"format_version": 2')

    with pytest.raises(CacheError, match=r"format version 2.*reads up to 1: upgrade"):
        FeatureSpace.from_json(text)


def test_damaged_description_never_passes_for_another_space():
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(SPACE.to_json().encode())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        try:
            found = FeatureSpace.from_json(content.decode(errors="replace"))
        except CacheError:
            continue
        assert found == SPACE


@pytest.mark.parametrize(
    "layers", [(), (("keys", 3),), (("a/b", 3),), (("a", 0),), (("a", 1), ("a", 2)), ((".", 1),), (("", 1),)]
)
def test_layers_that_cannot_be_datasets_are_refused(layers):
    with pytest.raises(InvalidInputError, match="The 'layers' parameter of FeatureSpace must be"):
        replace(SPACE, layers=layers)


def test_preprocessing_that_is_not_json_is_refused():
    with pytest.raises(InvalidInputError, match="must be JSON"):
        replace(SPACE, preprocess="resize 256")


def test_unknown_layer_is_named_with_those_there_are():
    with pytest.raises(InvalidInputError, match=r"no layer 'stage9' .* only penultimate, stage1"):
        SPACE.n_features("stage9")
