"""What one process alone does; several are in ``tests/finetune/test_ranks.py``, where they are started once for all."""

import numpy as np

from bottleneck.estimators.together import as_on_first, extract_share, to_train_together
from bottleneck.features import Features
from bottleneck.finetune.ranks import ALONE
from bottleneck.progress import silent


def test_alone_nobody_is_waited_for():
    for strategy in ("finetune", "probe"):
        with to_train_together(strategy, "cpu", verbose=False) as (ranks, progress):
            assert ranks is ALONE
            assert progress is silent


def test_probes_of_several_processes_are_fitted_by_each_alone(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with to_train_together("probe", "cpu", verbose=False) as (ranks, _):
        assert ranks is ALONE


def test_alone_features_stay_as_they_are_and_no_share_is_extracted():
    features = Features(kept=np.arange(2), layers={}, report=None)

    assert as_on_first(ALONE, features, n_extracted=0) is features
    assert extract_share(ALONE, None, None, None, precision="float32", layers=()) == 0
