"""The public function: evaluate, compose, render, write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from bottleneck.cache.files import write_whole
from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.estimators import TransferClassifier
from bottleneck.estimators.parse import open_cache
from bottleneck.images import as_image_source
from bottleneck.optional import require
from bottleneck.report.evaluate import evaluate
from bottleneck.report.gallery import collect_gallery
from bottleneck.report.overlap import find_overlap
from bottleneck.report.page import compose_page
from bottleneck.report.render import render


def write_report(
    classifier: TransferClassifier,
    X_test: object,
    y_test: ArrayLike | None = None,
    *,
    path: str | os.PathLike[str],
    X_train: object = None,
) -> Path:
    """Write what a classifier does on a test set, and how it came about, as one HTML file.

    It holds the plan and its alternatives, the accuracy against the probe and the majority class, scores of each class,
    the confusion matrix, reliability, the learning curve, the training, a map of the features, the most certain
    mistakes, labels that are probably wrong, copies, and a search through every image.

    The file needs no network and nothing beside it. It appears whole or not at all, and replaces an older report of
    the same name. The same classifier and images give the same file. Small copies of the test images are in it, and
    their paths: of up to 3,000 images all, else mistakes and a random sample. It stays under 15 MB.

    Parameters
    ----------
    classifier : TransferClassifier
        Fitted. Images that cannot be read are an error or listed in the report, as its ``on_error`` says.
    X_test : images in any form that ``fit`` takes
        At least two classes of them. Images of a class that training never saw count as wrong, in rows of their own.
    y_test : array-like (n_samples,) or None
        Labels; None where ``X_test`` has its own (a folder of class folders, a Dataset of image and label).
    path : path
        The file to write, in a folder that exists.
    X_train : images in any form that ``fit`` takes, or None
        What the classifier was fitted on, to find test images that are among them: their content is compared, no pixel.
        The report then warns of them, and says the accuracy without them.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    InvalidInputError
        ``path`` cannot be written, the images or labels cannot be used, or no label is a class of the classifier.
    MissingDependencyError
        Jinja2 is not installed (the extra ``report`` brings it).
    sklearn.exceptions.NotFittedError
        The classifier is not fitted.

    Examples
    --------
    >>> write_report(clf, "photos/test", path="report.html")  # doctest: +SKIP
    PosixPath('report.html')
    """
    if not isinstance(classifier, TransferClassifier):
        raise wrong_parameter("write_report", "classifier", "a fitted TransferClassifier", classifier)
    check_is_fitted(classifier)
    require("jinja2", extra="report")  # what is missing is said before the images are predicted, not after
    target = Path(path)
    with one_clear_error(target):
        check_target(target)
    training = None if X_train is None else as_image_source(X_train, image_shape=classifier.image_shape)
    evaluation = evaluate(classifier, X_test, y_test)
    overlap = None if training is None else find_overlap(evaluation, training, open_cache(classifier.cache_dir))
    gallery = collect_gallery(classifier, evaluation, overlap)
    html = render(compose_page(classifier, evaluation, gallery, overlap))
    with one_clear_error(target):
        write_whole(target, html.encode("utf-8"))
    return target


@contextmanager
def one_clear_error(target: Path) -> Iterator[None]:
    """Turn what the operating system says about the report's path into an InvalidInputError."""
    try:
        yield
    except OSError as exc:
        raise InvalidInputError(
            f"The report {target} cannot be written: {exc.strerror or exc}. Make room or change the permissions there, "
            "or choose another path."
        ) from exc


def check_target(target: Path) -> None:
    """Raise if the file to write is a folder, or in a folder that does not exist.

    Raises
    ------
    InvalidInputError
        Says which of the two, and what to do.
    """
    if target.is_dir():
        raise wrong_parameter("write_report", "path", "a file", str(target), f"Try {str(target / 'report.html')!r}.")
    if not target.parent.is_dir():
        hint = f"Create {str(target.parent)!r} first."
        raise wrong_parameter("write_report", "path", "a file in an existing folder", str(target), hint)
