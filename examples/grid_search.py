"""Searches over heads, their knobs and what they see; folds and candidates share the features of the cache."""

import tempfile

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from bottleneck import FeatureExtractor, LogisticHead, SVMHead, TransferClassifier

digits = load_digits()
X, y = (digits.images[:200] / 16).astype("float32"), digits.target[:200]
folds = StratifiedKFold(3, shuffle=True, random_state=0)

with tempfile.TemporaryDirectory() as cache_dir:
    # Which head, and which of its knobs: nested parameters reach into it.
    search = GridSearchCV(
        TransferClassifier(strategy="probe", cache_dir=cache_dir, random_state=0),
        [
            {"head": [LogisticHead(cv=3)], "head__normalize": ["center", "l2"]},
            {"head": [SVMHead(cv=3)], "head__kernel": ["linear", "rbf"]},
        ],
        cv=folds,
    ).fit(X, y)
    for params, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        knobs = ", ".join(f"{name}={value}" for name, value in params.items() if name != "head")
        print(f"{type(params['head']).__name__:<14}{knobs:<24}{score:.3f}")
    print("images extracted by the last fit:", search.best_estimator_.cache_report_.rows_extracted)

    # The same as a pipeline, where what the head sees is a choice too.
    pipeline = Pipeline([("features", FeatureExtractor(cache_dir=cache_dir)), ("head", LogisticHead(cv=3))])
    search = GridSearchCV(pipeline, {"features__layers": ["penultimate", "all_stages"]}, cv=folds).fit(X, y)
    print("best layers:", search.best_params_["features__layers"], f"{search.best_score_:.3f}")
