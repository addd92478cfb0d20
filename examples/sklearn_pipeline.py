"""The library inside scikit-learn: a pipeline, a grid search, cross-validation, all on features computed once."""

import tempfile

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bottleneck import FeatureExtractor, LogisticHead, TransferClassifier

digits = load_digits()
X = (digits.images[:600] / 16).astype("float32")  # float images count from 0 to 1
y = digits.target[:600]

with tempfile.TemporaryDirectory() as cache_dir:
    pipeline = make_pipeline(FeatureExtractor(cache_dir=cache_dir), StandardScaler(), LogisticRegression(max_iter=1000))
    print("pipeline, 3 folds:", cross_val_score(pipeline, X, y, cv=3).round(3))

    classifier = TransferClassifier(strategy="probe", head=LogisticHead(), cache_dir=cache_dir, random_state=0)
    search = GridSearchCV(classifier, {"head__normalize": ["center", "l2", "standardize"]}, cv=3)
    search.fit(X, y)
    print("best normalisation:", search.best_params_, f"{search.best_score_:.3f}")
    # The search refitted on all images, and found every feature in the cache.
    report = search.best_estimator_.cache_report_
    print(f"last fit: {report.rows_extracted} images extracted, {report.rows_cached} found in the cache")
