"""The main job on real images: test accuracy, and how much faster a second fit is up to the head.

    python tests/benchmarks/main_job.py [--shared FOLDER] [--datasets clothing hymenoptera dtd10]

Prints one JSON line a data set. The second fit sees the same images in another order; "up to the head" is the time
until all features are in memory. The rival is the textbook probe on the very same features: StandardScaler and
LogisticRegression with C by 3-fold cross-validation.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottleneck import FeatureExtractor, TransferClassifier
from bottleneck.images import as_labelled_source

BACKBONE = "mobilenet_v2"
WEIGHTS = "mobilenet_v2_imagenet_tf_hmirror.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[3] / "shared")
    parser.add_argument("--datasets", nargs="+", default=["hymenoptera", "dtd10", "clothing"])
    parser.add_argument("--strategy", default="auto")
    arguments = parser.parse_args()
    for dataset in arguments.datasets:
        print(json.dumps(measure(arguments.shared, dataset, arguments.strategy)), flush=True)


def measure(shared: Path, dataset: str, strategy: str) -> dict[str, object]:
    source, y = as_labelled_source(shared / "data" / dataset / "train", None)
    test, y_test = as_labelled_source(shared / "data" / dataset / "test", None)
    paths, test_paths = list(source.ids), list(test.ids)
    with tempfile.TemporaryDirectory() as cache_dir:
        given = {"weights": str(shared / "weights" / WEIGHTS), "cache_dir": cache_dir}
        classifier = TransferClassifier(BACKBONE, strategy=strategy, random_state=0, **given)
        extractor = FeatureExtractor(BACKBONE, **given)

        cold = seconds(lambda: extractor.fit(paths).transform(paths))
        order = np.random.RandomState(0).permutation(len(paths))
        shuffled = [paths[i] for i in order]
        warm = np.median([seconds(lambda: extractor.fit(shuffled).transform(shuffled)) for _ in range(5)])

        whole = seconds(lambda: classifier.fit(shuffled, y[order]))
        again = classifier.cache_report_
        accuracy = classifier.score(test_paths, y_test)
        X, X_test = extractor.transform(paths), extractor.transform(test_paths)
    return {
        "dataset": dataset,
        "n_train": len(paths),
        "n_test": len(test_paths),
        "strategy": classifier.strategy_,
        "normalize": getattr(classifier.head_, "normalize_", None),
        "accuracy": round(accuracy, 4),
        "accuracy_textbook_probe": round(textbook_probe(X, y, X_test, y_test), 4),
        "accuracy_cv": round(classifier.accuracy_cv_, 4),
        "precision": classifier.precision_,
        "seconds_cold_to_features": round(cold, 2),
        "seconds_warm_to_features": round(float(warm), 3),
        "ratio": round(cold / float(warm), 1),
        "seconds_warm_fit": round(whole, 2),
        "rows_extracted_by_second_fit": again.rows_extracted,
        "rows_cached_by_second_fit": again.rows_cached,
    }


def textbook_probe(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> float:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1]}
    return float(GridSearchCV(pipeline, grid, cv=3).fit(X, y).score(X_test, y_test))


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
