"""Whatever stands in a folder: no code is run, and nothing is raised but the library's own errors."""

import warnings

import numpy as np
import pytest

from bottleneck import Backbone, SVMHead, TransferClassifier, load, save
from bottleneck.errors import TransferError
from tests.conftest import coloured_images, make_tiny_backbone
from tests.persistence.mutations import mutate, write

IMAGES, LABELS = coloured_images(24)


class Folders:
    """Two saved classifiers: a probe on all stages, and an RBF machine for three classes."""

    def __init__(self, folder) -> None:
        self.network: Backbone = make_tiny_backbone()
        self.folder, self.cache = folder / "mutated", folder / "cache"
        linear = self.fit(np.array(["bluish", "reddish"])[LABELS], strategy="all_stages_probe")
        kernel = self.fit(np.arange(24) % 3, strategy="probe", head=SVMHead(kernel="rbf"))
        self.pairs = []
        for number, classifier in enumerate((linear, kernel)):
            saved = save(classifier, folder / str(number), include_backbone=True)
            self.pairs.append({path.name: path.read_bytes() for path in saved.iterdir()})
        self.folder.mkdir()

    def fit(self, labels, **params) -> TransferClassifier:
        classifier = TransferClassifier(self.network, cache_dir=self.cache, random_state=0, **params)
        return classifier.fit(IMAGES, labels)

    def try_one(self, number: int) -> str:
        """Load mutated folder ``number``, predict if that works, and say what happened."""
        files, others = self.pairs[number % 2], self.pairs[1 - number % 2]
        write(mutate(files, others, number), self.folder)
        try:
            loaded = load(self.folder, backbone=self.network if number % 3 else None)
            loaded.set_params(cache_dir=self.cache)
        except TransferError:
            return "refused"
        try:
            assert len(loaded.predict_proba(IMAGES[:2])) == len(loaded.predict(IMAGES[:2])) == 2
        except TransferError:
            return "refused later"
        return "loaded"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    return Folders(tmp_path_factory.mktemp("mutations"))


def try_all(folders: Folders, numbers: range) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [folders.try_one(number) for number in numbers]


def test_150_mutated_folders_are_refused_or_harmless(folders):
    outcomes = try_all(folders, range(150))

    assert outcomes.count("refused") > 100
    assert outcomes.count("loaded") > 0


@pytest.mark.slow
def test_1000_mutated_folders_are_refused_or_harmless(folders):
    outcomes = try_all(folders, range(150, 1150))

    assert outcomes.count("refused") > 700
