"""What is checked before anything is computed."""

import pytest

from bottleneck import FineTuneSettings, SVMHead, TransferClassifier
from bottleneck.errors import InvalidInputError
from tests.conftest import coloured_images


@pytest.fixture
def make(tiny_backbone, tmp_path):
    """Return a factory of classifiers whose cache would be a folder that does not exist yet."""

    def build(**params) -> TransferClassifier:
        return TransferClassifier(tiny_backbone, cache_dir=tmp_path / "cache", device="cpu", **params)

    return build


@pytest.mark.parametrize("strategy", ["auto", "probe", "all_stages_probe", "finetune"])
@pytest.mark.parametrize("method", ["fit", "plan"])
def test_setting_of_fine_tuning_is_checked_before_anything_is_computed(make, tmp_path, strategy, method):
    classifier = make(strategy=strategy).set_params(finetune__lr=-1)

    with pytest.raises(InvalidInputError, match=r"'lr' parameter of FineTuneSettings .* Got -1 instead"):
        getattr(classifier, method)(*coloured_images(12))

    assert not (tmp_path / "cache").exists()


def test_setting_of_fine_tuning_must_suit_the_network(make, tiny_backbone):
    n_groups = len(tiny_backbone.layer_groups)
    classifier = make(head=SVMHead(), finetune=FineTuneSettings(freeze_groups=n_groups + 1))

    with pytest.raises(InvalidInputError, match=f"'freeze_groups' .* an integer from 0 to {n_groups}"):
        classifier.fit(*coloured_images(12))


@pytest.mark.parametrize("settings", [None, {"lr": 0.1}, FineTuneSettings])
def test_settings_of_fine_tuning_are_one_record(make, settings):
    with pytest.raises(InvalidInputError, match=r"'finetune' parameter .* must be a FineTuneSettings"):
        make(finetune=settings).fit(*coloured_images(12))


def test_unknown_strategy_is_the_classifiers_and_nothing_is_measured(make, tmp_path):
    expected = (
        r"'strategy' parameter of TransferClassifier must be 'auto', .* or 'scratch'\. Got 'fine-tune'.*'finetune'"
    )

    with pytest.raises(InvalidInputError, match=expected):
        make(strategy="fine-tune").fit(*coloured_images(12))

    assert not (tmp_path / "cache").exists()
