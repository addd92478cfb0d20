"""Which arithmetic features are computed in, and who pays for finding out."""

import pytest
import torch
from torch import nn

from bottleneck import Preprocess, load_backbone
from bottleneck.cache import FeatureCache
from bottleneck.extraction import CompileFacts, ExtractionSettings, Extractor
from bottleneck.features import settle_precision
from bottleneck.features.chunks import feature_chunks
from bottleneck.features.space import (
    COMPILING,
    MOST_LOOKED_AT,
    _hardware,
    feature_space,
    recall_compiling,
    remember_compiling,
)
from bottleneck.images import ImageReadError, as_image_source
from tests.conftest import coloured_images


class OnBfloat16(Extractor):
    """An extractor on hardware that multiplies in bfloat16."""

    @property
    def candidate_precision(self):
        return self.asked_precision or "bfloat16"


class Cancelling(nn.Module):
    """Features that are small differences of large numbers, which eight bits cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spread, self.mix = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 16, 1, bias=False)
        with torch.no_grad():
            self.spread.bias.fill_(1000)
            self.mix.weight -= self.mix.weight.mean(dim=1, keepdim=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.spread(x)).mean(dim=(2, 3)))


@pytest.fixture
def source():
    return as_image_source(coloured_images(8)[0])


def extractor_of(backbone, precision="auto") -> OnBfloat16:
    return OnBfloat16(backbone, ExtractionSettings(device="cpu", precision=precision, workers=0))


@pytest.fixture
def cancelling():
    preprocess = Preprocess(resize=16, crop=(16, 16), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
    return load_backbone(Cancelling(), preprocess=preprocess)


def test_faithful_arithmetic_is_used(tiny_backbone, source, tmp_path):
    assert settle_precision(extractor_of(tiny_backbone), FeatureCache(tmp_path), source) == "bfloat16"


def test_unfaithful_arithmetic_is_not_used_unless_it_is_insisted_on(cancelling, source, tmp_path):
    assert settle_precision(extractor_of(cancelling), None, source) == "float32"
    assert settle_precision(extractor_of(cancelling), FeatureCache(tmp_path), source) == "float32"
    assert settle_precision(extractor_of(cancelling, "bfloat16"), FeatureCache(tmp_path), source) == "bfloat16"


@pytest.mark.parametrize("name", ["tiny_backbone", "cancelling"])
def test_verdict_is_remembered_so_that_the_next_run_makes_no_forward_pass(name, source, tmp_path, request):
    backbone = request.getfixturevalue(name)
    first = settle_precision(extractor_of(backbone), FeatureCache(tmp_path), source)

    again = extractor_of(backbone)
    second = settle_precision(again, FeatureCache(tmp_path), source)

    assert second == first
    assert again.forward_passes == 0


def test_nothing_is_remembered_of_images_that_cannot_be_read(tiny_backbone, source, tmp_path):
    unreadable = as_image_source([b"no image"] * 8)

    assert settle_precision(extractor_of(tiny_backbone), FeatureCache(tmp_path), unreadable) == "float32"
    assert settle_precision(extractor_of(tiny_backbone), FeatureCache(tmp_path), source) == "bfloat16"


@pytest.mark.parametrize("cached", [False, True])
def test_unreadable_first_images_do_not_change_the_arithmetic(tiny_backbone, cancelling, tmp_path, cached):
    cache = FeatureCache(tmp_path) if cached else None
    late = as_image_source([b"no image"] * 21 + [*coloured_images(8)[0]])

    assert settle_precision(extractor_of(tiny_backbone), cache, late) == "bfloat16"
    assert settle_precision(extractor_of(cancelling), cache, late) == "float32"


def test_search_for_readable_images_ends(tiny_backbone, source):
    class Counting:
        ids = ["x"] * 10_000
        n_read = 0

        def __len__(self):
            return len(self.ids)

        def read(self, row):
            self.n_read += 1
            raise ImageReadError("broken")

        def stat(self, row):
            return None

    counting = Counting()

    assert settle_precision(extractor_of(tiny_backbone), None, counting) == "float32"
    assert counting.n_read == MOST_LOOKED_AT


def test_features_that_are_not_finite_are_not_faithful(tiny_backbone, source):
    class Overflowing(OnBfloat16):
        def _forward_once(self, pixels, precision):
            layers = super()._forward_once(pixels, precision)
            return {name: x * float("nan") for name, x in layers.items()} if precision == "bfloat16" else layers

    extractor = Overflowing(tiny_backbone, ExtractionSettings(device="cpu", workers=0))

    assert settle_precision(extractor, None, source) == "float32"


@pytest.mark.parametrize("by", ["itself", "a pass"])
def test_what_compiling_took_is_known_to_the_next_run(tiny_backbone, source, tmp_path, by):
    cache, facts = FeatureCache(tmp_path), CompileFacts(compile_seconds=12.5, gain=1.25)
    first = extractor_of(tiny_backbone)
    first.compile_facts, first.compiled_now = facts, True
    if by == "itself":
        remember_compiling(first, cache, "bfloat16")
    else:
        list(feature_chunks(source, first, cache, precision="bfloat16"))
    assert not first.compiled_now

    second = extractor_of(tiny_backbone)
    settle_precision(second, cache, source)

    assert second.compile_facts == facts


@pytest.mark.parametrize("note", [{}, {"hardware": "another"}, {"gain": 2.0}], ids=str)
def test_note_about_compiling_that_does_not_apply_is_ignored(tiny_backbone, tmp_path, note):
    cache, extractor = FeatureCache(tmp_path), extractor_of(tiny_backbone)
    hardware = {} if note == {} else {"hardware": note.get("hardware", _hardware(extractor))}
    cache.space(feature_space(tiny_backbone, "bfloat16")).write_note(COMPILING, {**note, **hardware})

    recall_compiling(extractor, cache, "bfloat16")

    assert extractor.compile_facts is None
