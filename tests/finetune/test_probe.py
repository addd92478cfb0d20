from dataclasses import replace

import numpy as np
import pytest

from bottleneck.finetune.probe import codes_of, take_rows
from tests.finetune.tasks import Blocks, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_codes_are_the_places_of_the_labels_among_the_classes(colours):
    assert list(colours.head.classes_[codes_of(colours.labels, colours.head)]) == list(colours.labels)


def test_probe_of_a_fold_is_chosen_by_groups(chance):
    """Each image is there three times, with a little noise: only groups say that these are no news."""
    rng = np.random.default_rng(0)
    repeated = np.tile(np.arange(60), 3)
    features = rng.standard_normal((60, 80))[repeated] + 0.3 * rng.standard_normal((180, 80))
    labels = chance.labels[repeated]
    probe = replace(probe_of(chance), features=features, labels=labels, sample_weight=np.ones(180), groups=repeated)

    by_groups = probe.refitted_on(np.arange(180), seed=0)
    by_images = replace(probe, groups=None).refitted_on(np.arange(180), seed=0)

    assert by_groups.accuracy_cv_ < 0.65 < by_images.accuracy_cv_


def test_folds_of_features_in_blocks_are_those_of_the_array(colours):
    in_memory, rows = probe_of(colours), np.array([5, 3, 40])
    in_blocks = replace(in_memory, features=Blocks(array=colours.features))

    from_array, from_blocks = (probe.deal_folds(3, np.random.default_rng(0)) for probe in (in_memory, in_blocks))

    np.testing.assert_array_equal(from_blocks.held_out, from_array.held_out)
    np.testing.assert_array_equal(np.concatenate(list(take_rows(in_blocks.features, rows))), colours.features[rows])


def test_every_fold_has_the_normalisation_of_the_probe(colours):
    probe = probe_of(colours)
    heads = [probe.refitted_on(rows, seed=0) for rows in (np.arange(0, 40), np.arange(20, 60))]

    assert [head.normalize_ for head in heads] == [probe.head.normalize_] * 2
