"""`bottleneck demo`: the main job on scikit-learn's digits, with nothing to download."""

from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit
from bottleneck.planner import percent


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the classifier (model) and report.html.")
    ] = None,
    cache_dir: opt.CacheDir = None,
    json: opt.Json = False,
) -> None:
    """Plan, fit and evaluate on 1,797 handwritten digits, with the backbone inside the package."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from bottleneck import TransferClassifier, save, write_report

    began = monotonic()
    digits = load_digits()
    # Pixels of 8x8 digits count from 0 to 16; float images are expected from 0 to 1.
    images = (digits.images / 16).astype("float32")
    X_train, X_test, y_train, y_test = train_test_split(
        images, digits.target, test_size=0.25, stratify=digits.target, random_state=0
    )
    classifier = TransferClassifier(cache_dir=cache_dir, random_state=0, verbose=True).fit(X_train, y_train)
    accuracy = classifier.score(X_test, y_test)
    report = classifier.cache_report_
    print(f"Backbone   {classifier.backbone_.name}, weights: {classifier.backbone_.weights}")
    print(f"\n{classifier.plan_}\n")
    print(f"Outcome    {classifier.outcome_}")
    print(f"Accuracy   {percent(accuracy)} on {len(X_test)} digits that it has not seen")
    print(f"Features   {report.rows_extracted} images extracted, {report.rows_cached} found in the cache")
    if out is not None:
        save(classifier, out / "model")
        write_report(classifier, X_test, y_test, path=out / "report.html")
        print(f"Model      {out / 'model'}\nReport     {out / 'report.html'}")
    print("\nA larger backbone: bottleneck fit FOLDER --backbone resnet50. Your own pictures: one folder a class.")
    emit(
        json,
        strategy=classifier.strategy_,
        accuracy=accuracy,
        n_samples=len(X_train),
        rows_extracted=report.rows_extracted,
        rows_cached=report.rows_cached,
        seconds=monotonic() - began,
    )
