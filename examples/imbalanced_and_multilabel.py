"""Rare classes, and images with any number of labels."""

import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, balanced_accuracy_score, recall_score
from sklearn.model_selection import train_test_split

from bottleneck import FeatureExtractor, LogisticHead, TransferClassifier

digits = load_digits()
images = (digits.images / 16).astype("float32")

with tempfile.TemporaryDirectory() as cache_dir:
    # Imbalanced: noisy digits, of which one in 12 is an eight.
    is_eight = digits.target == 8
    rows = np.concatenate([np.flatnonzero(~is_eight)[:460], np.flatnonzero(is_eight)[:40]])
    noise = np.random.default_rng(0).random((500, 8, 8), dtype=np.float32)
    X, y = (images[rows] + noise) / 2, np.where(is_eight[rows], "eight", "other")
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
    for class_weight in (None, "balanced"):
        classifier = TransferClassifier(
            strategy="probe", class_weight=class_weight, cache_dir=cache_dir, random_state=0
        ).fit(X_train, y_train)
        predicted = classifier.predict(X_test)
        print(
            f"class_weight={class_weight!s:<9} accuracy {classifier.score(X_test, y_test):.3f}, balanced "
            f"{balanced_accuracy_score(y_test, predicted):.3f}, eights found "
            f"{recall_score(y_test, predicted, pos_label='eight'):.2f}"
        )

    # Multi-label: a head of its own for each label, on features computed once. A digit may be even, above four, a
    # multiple of three, or several of these.
    labels = np.column_stack([digits.target % 2 == 0, digits.target > 4, digits.target % 3 == 0]).astype(int)
    features = FeatureExtractor(cache_dir=cache_dir).fit_transform(images[:450])
    head = LogisticHead(random_state=0).fit(features[:300], labels[:300])
    proba = head.predict_proba(features[300:])
    print("one row a label in coef_:", head.coef_.shape)
    for label, name in enumerate(("even", "above four", "multiple of three")):
        score = average_precision_score(labels[300:450, label], proba[:, label])
        print(f"{name:<18}average precision {score:.3f}, C {head.C_[label]:.3g}")
