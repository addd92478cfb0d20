"""The commands about classifiers: each parses, calls the public API, and prints."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.config import TARGET, check_config_target, data_of_config
from bottleneck.cli.output import emit, health_fields, plan_fields, say_more_images, table
from bottleneck.cli.wording import as_typed, options_of
from bottleneck.errors import InvalidInputError, listed
from bottleneck.planner import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bottleneck import TransferClassifier
    from bottleneck.images import ImageSource


def plan(
    ctx: typer.Context,
    data: opt.Data,
    backbone: opt.BackboneName = "embedded",
    weights: opt.Weights = "default",
    strategy: opt.Strategy = "auto",
    time_budget: opt.TimeBudget = None,
    memory_limit: opt.MemoryLimit = None,
    disk_limit: opt.DiskLimit = None,
    risk: opt.Risk = "balanced",
    head: opt.Head = "logistic",
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Say what `fit` would do with these images, why, and what the alternatives would cost. Trains nothing."""
    from bottleneck import TransferClassifier

    classifier = TransferClassifier(
        backbone,
        weights=opt.parse_weights(weights),
        strategy=strategy,
        time_budget=time_budget,
        memory_limit=memory_limit,
        disk_limit=disk_limit,
        risk=risk,
        head=opt.parse_head(head),
        cache_dir=cache_dir,
        device=device,
        precision=precision,
        verbose=not quiet,
    )
    made = classifier.plan(opt.parse_data(data))
    print(as_typed(str(made), options_of(ctx.command)))
    say_more_images(made)
    emit(json, **plan_fields(made))


def fit(
    ctx: typer.Context,
    data: opt.Data,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to save the classifier in; without it nothing is kept.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a classifier in --out that was fitted on other data.")
    ] = False,
    backbone: opt.BackboneName = "embedded",
    weights: opt.Weights = "default",
    strategy: opt.Strategy = "auto",
    time_budget: opt.TimeBudget = None,
    memory_limit: opt.MemoryLimit = None,
    disk_limit: opt.DiskLimit = None,
    risk: opt.Risk = "balanced",
    head: opt.Head = "logistic",
    class_weight: opt.ClassWeight = "none",
    settings: opt.Settings = None,
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    batch_size: opt.BatchSize = "auto",
    on_error: opt.OnError = "raise",
    seed: opt.Seed = 0,
    config: opt.Config = None,
    config_out: Annotated[
        Path | None,
        typer.Option(
            "--write-config",
            help="TOML file to write, with which --config does the same again; by default OUT.toml, beside the model.",
        ),
    ] = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Make a classifier from a folder of class folders; fine-tune the network where that is worth it."""
    from bottleneck import TransferClassifier, save
    from bottleneck.finetune.ranks import is_first
    from bottleneck.persistence import check_target

    began = monotonic()
    if out is not None:
        check_target(out)  # before minutes of work, not after
        if not overwrite:
            _check_same_data(out, opt.parse_data(data))
    if out is not None and config_out is None:
        config_out = _config_beside(out)
        check_config_target(config_out)
    # Of the processes that torchrun started, one saves and reports.
    ctx.params[TARGET] = config_out if is_first() else None
    classifier = TransferClassifier(
        backbone,
        weights=opt.parse_weights(weights),
        strategy=strategy,
        time_budget=time_budget,
        memory_limit=memory_limit,
        disk_limit=disk_limit,
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
    opt.apply_settings(classifier, settings or ())
    classifier.fit(opt.parse_data(data))
    if not is_first():
        return
    if out is not None:
        save(classifier, out)
    _print_fitted(classifier, options_of(ctx.command), out=out, again=config_out)
    report = classifier.cache_report_
    emit(
        json,
        strategy=classifier.strategy_,
        accuracy_cv=classifier.accuracy_cv_ if isfinite(classifier.accuracy_cv_) else None,
        n_samples=report.rows_extracted + report.rows_cached,
        n_classes=len(classifier.classes_),
        rows_extracted=report.rows_extracted,
        rows_cached=report.rows_cached,
        seconds=monotonic() - began,
        health=health_fields(classifier.plan_),
        model=None if out is None else str(out),
        config=None if config_out is None else str(config_out),
        costs=plan_fields(classifier.plan_)["costs"],
    )


def _config_beside(out: Path) -> Path:
    """Return where the config file of a saved classifier is by default."""
    return out.with_name(f"{out.name}.toml")


def _check_same_data(out: Path, data: Path) -> None:
    """Refuse to replace a classifier that was fitted on other data, as far as the config file beside it tells.

    Raises
    ------
    InvalidInputError
        It was.
    """
    before = data_of_config(_config_beside(out)) if out.is_dir() and any(out.iterdir()) else None
    if before is not None and before.resolve() != data.resolve():
        raise InvalidInputError(
            f"--out {out} holds a classifier fitted on {before}; name another folder or pass --overwrite."
        )


def _print_fitted(
    classifier: "TransferClassifier", options: Mapping[str, str], *, out: Path | None, again: Path | None
) -> None:
    """Say what was fitted, how good it is, and where it is."""
    report = classifier.cache_report_
    n_samples, n_classes = report.rows_extracted + report.rows_cached, len(classifier.classes_)
    print(as_typed(str(classifier.plan_), options))
    say_more_images(classifier.plan_)
    print(f"\nOutcome    {classifier.outcome_}")
    if isfinite(classifier.accuracy_cv_):
        on = f"out of fold, on {n_samples} images of {n_classes} classes"
        print(f"Accuracy   {percent(classifier.accuracy_cv_)} {on}")
    else:
        print("Accuracy   unknown: with one image a class none can be held out")
    print(f"Features   {report.rows_extracted} images extracted, {report.rows_cached} found in the cache")
    print(f"Model      {out if out is not None else 'not saved: name a folder with --out'}")
    if again is not None:
        print(f"Again      bottleneck fit --config {again}")


def evaluate(
    model: opt.Model,
    data: opt.Data,
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    on_error: opt.OnError = "raise",
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Measure the accuracy of a saved classifier on images that it has not seen."""
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    from bottleneck import load

    classifier = load(model).set_params(cache_dir=cache_dir, device=device, on_error=on_error, verbose=not quiet)
    source, labels = _known_images(opt.parse_data(data), classifier)
    predicted = classifier.predict(source)
    # Names of folders are texts; classes of any other kind were given in Python and are compared as texts.
    known = [i for i, label in enumerate(predicted) if label is not None]
    truth, predicted = labels[known].astype(str), np.array([str(predicted[i]) for i in known])
    classes = sorted(map(str, classifier.classes_))
    precision, recall, _, n_images = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=0)
    accuracy = float((truth == predicted).mean())
    per_class = zip(classes, n_images, recall, precision, strict=True)
    print(
        table(
            ["class", "images", "recall", "precision"],
            [[name, str(int(n)), percent(share) if n else "-", percent(exact)] for name, n, share, exact in per_class],
        )
    )
    print(f"\nAccuracy   {percent(accuracy)} on {len(truth)} images")
    emit(json, accuracy=accuracy, n_samples=len(truth))


def _known_images(data: Path, classifier: "TransferClassifier") -> "tuple[ImageSource, NDArray[np.generic]]":
    """Return the images of a folder with their labels, all of which the classifier knows.

    Raises
    ------
    InvalidInputError
        It has classes that the classifier was not fitted on, which would count as wrong whatever it answers.
    """
    from bottleneck.images import as_labelled_source

    source, labels = as_labelled_source(data, None, min_classes=1)
    known = set(map(str, classifier.classes_))
    unknown = sorted(set(map(str, labels)) - known)
    if unknown:
        raise InvalidInputError(
            f"The folder {data} has classes that the classifier does not know:\n{listed(unknown)}\n"
            f"It knows:\n{listed(sorted(known))}\n"
            "Name a folder whose class folders have these names, or fit a classifier on the classes of this one."
        )
    return source, labels


def report(
    model: opt.Model,
    data: opt.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    train: Annotated[
        Path | None,
        typer.Option(help="Folder that the classifier was fitted on, to warn of test images that are in it too."),
    ] = None,
    cache_dir: opt.CacheDir = None,
    device: opt.Device = "auto",
    on_error: opt.OnError = "raise",
    config: opt.Config = None,
    config_out: opt.WriteConfig = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Write an HTML page about a saved classifier and a test set: what it chose, how good it is, where it errs."""
    from bottleneck import load, write_report

    classifier = load(model).set_params(cache_dir=cache_dir, device=device, on_error=on_error, verbose=not quiet)
    source, labels = _known_images(opt.parse_data(data), classifier)
    write_report(classifier, source, labels, path=out, X_train=None if train is None else opt.parse_data(train))
    print(f"Report     {out}")
    emit(json, report=str(out))
