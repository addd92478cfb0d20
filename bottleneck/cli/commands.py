"""The commands about classifiers: each parses, calls the public API, and prints."""

import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit, plan_fields, table
from bottleneck.planner import percent


def plan(
    data: opt.Data,
    backbone: opt.BackboneName = "embedded",
    weights: opt.Weights = "default",
    strategy: opt.Strategy = "auto",
    time_budget: opt.TimeBudget = None,
    risk: opt.Risk = "balanced",
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    json: opt.Json = False,
) -> None:
    """Say what `fit` would do with these images, why, and what everything would cost. Trains nothing."""
    from bottleneck import TransferClassifier

    classifier = TransferClassifier(
        backbone,
        weights=opt.parse_weights(weights),
        strategy=strategy,
        time_budget=time_budget,
        risk=risk,
        cache_dir=cache_dir,
        device=device,
        precision=precision,
    )
    made = classifier.plan(opt.parse_data(data))
    print(made)
    emit(json, **plan_fields(made))


def fit(
    data: opt.Data,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to save the classifier in.")] = None,
    backbone: opt.BackboneName = "embedded",
    weights: opt.Weights = "default",
    strategy: opt.Strategy = "auto",
    time_budget: opt.TimeBudget = None,
    risk: opt.Risk = "balanced",
    head: Annotated[str, typer.Option(help="logistic or svm.")] = "logistic",
    class_weight: Annotated[str, typer.Option(help="none or balanced.")] = "none",
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    batch_size: opt.BatchSize = "auto",
    on_error: opt.OnError = "raise",
    seed: opt.Seed = 0,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Plan, extract, fit and, where it wins, fine-tune: a classifier from a folder of class folders."""
    from bottleneck import TransferClassifier, save
    from bottleneck.persistence import check_target

    began = monotonic()
    if out is not None:
        check_target(out)  # before minutes of work, not after
    classifier = TransferClassifier(
        backbone,
        weights=opt.parse_weights(weights),
        strategy=strategy,
        time_budget=time_budget,
        risk=risk,
        head=opt.parse_head(head),
        class_weight=opt.parse_class_weight(class_weight),
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        batch_size=opt.parse_batch_size(batch_size),
        on_error=on_error,
        random_state=seed,
        verbose=not quiet,
    )
    classifier.fit(opt.parse_data(data))
    if out is not None:
        save(classifier, out)
    report, n_classes = classifier.cache_report_, len(classifier.classes_)
    n_samples = report.rows_extracted + report.rows_cached
    print(classifier.plan_)
    print(f"\nOutcome    {classifier.outcome_}")
    print(f"Accuracy   {percent(classifier.accuracy_cv_)} out of fold, on {n_samples} images of {n_classes} classes")
    print(f"Features   {report.rows_extracted} images extracted, {report.rows_cached} found in the cache")
    print(f"Model      {out if out is not None else 'not saved: name a folder with --out'}")
    emit(
        json,
        strategy=classifier.strategy_,
        accuracy_cv=classifier.accuracy_cv_,
        n_samples=n_samples,
        n_classes=n_classes,
        rows_extracted=report.rows_extracted,
        rows_cached=report.rows_cached,
        seconds=monotonic() - began,
        model=None if out is None else str(out),
    )


def evaluate(
    model: opt.Model,
    data: opt.Data,
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    on_error: opt.OnError = "raise",
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Measure a saved classifier on a folder of class folders that it has not seen."""
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    from bottleneck import load
    from bottleneck.images import as_labelled_source

    classifier = load(model).set_params(cache_dir=cache_dir, device=device, on_error=on_error, verbose=not quiet)
    source, labels = as_labelled_source(opt.parse_data(data), None, min_classes=1)
    predicted = classifier.predict(source)
    # Names of folders are texts; classes of any other kind were given in Python and are compared as texts.
    known = [i for i, label in enumerate(predicted) if label is not None]
    truth, predicted = labels[known].astype(str), np.array([str(predicted[i]) for i in known])
    classes = sorted(set(truth) | set(map(str, classifier.classes_)))
    precision, recall, _, n_images = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0)
    unknown = sorted(set(truth.tolist()) - set(map(str, classifier.classes_)))
    if unknown:
        names, known_names = (", ".join(map(repr, group)) for group in (unknown, classifier.classes_.tolist()))
        print(
            f"warning: The classifier does not know {names}: every image of theirs counts as wrong. "
            f"It was fitted on {known_names}.",
            file=sys.stderr,
        )
    accuracy = float((truth == predicted).mean())
    per_class = zip(classes, n_images, recall, precision, strict=True)
    print(
        table(
            ["class", "images", "recall", "precision"],
            [[name, str(n), percent(share), percent(exact)] for name, n, share, exact in per_class],
        )
    )
    print(f"\nAccuracy   {percent(accuracy)} on {len(truth)} images")
    emit(json, accuracy=accuracy, n_samples=len(truth), unknown_classes=unknown)


def predict(
    model: opt.Model,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.", show_default=False)],
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    on_error: opt.OnError = "skip",
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of CSV.")] = False,
) -> None:
    """Print each image's class and its probability as CSV, in the order given."""
    import csv

    from bottleneck import load

    classifier = load(model).set_params(cache_dir=cache_dir, device=device, on_error=on_error)
    paths = opt.list_images(images)
    proba = classifier.predict_proba(paths)
    writer = csv.writer(sys.stdout)
    if not json:
        writer.writerow(["path", "class", "probability"])
    for path, row in zip(paths, proba, strict=True):
        missing = bool(row[0] != row[0])  # NaN: the image could not be read, and a warning said why
        best = 0 if missing else int(row.argmax())
        name, share = ("", None) if missing else (str(classifier.classes_[best]), float(row[best]))
        if json:
            emit(True, path=str(path), **{"class": name or None}, probability=share)
        else:
            writer.writerow([path, name, "" if share is None else f"{share:.4f}"])


def report(
    model: opt.Model,
    data: opt.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
) -> None:
    """Write one HTML file about a saved classifier and a test set: what it chose, how good it is, where it errs."""
    from bottleneck import load, write_report

    classifier = load(model).set_params(cache_dir=cache_dir, device=device)
    write_report(classifier, opt.parse_data(data), None, path=out)
    print(f"Report     {out}")
