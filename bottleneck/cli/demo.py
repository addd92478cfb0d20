"""`bottleneck demo`: the main job on scikit-learn's digits, with nothing to download."""

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottleneck.cli import options as opt
from bottleneck.cli.output import emit
from bottleneck.errors import InvalidInputError
from bottleneck.planner import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

N_TURNED = 1000
TURNED_SETTINGS: dict[str, Any] = {"min_crop_scale": 0.9, "augment": "crop"}
"""Crops that keep the digit whole; for the rest it is as planned."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the classifier (model) and report.html.")] = Path(
        "bottleneck-demo"
    ),
    finetune: Annotated[
        bool,
        typer.Option("--finetune", help="A harder task, which way a digit is turned, where fine-tuning wins: minutes."),
    ] = False,
    cache_dir: opt.CacheDir = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    json: opt.Json = False,
) -> None:
    """Plan, fit and evaluate on handwritten digits, with the backbone inside the package, and write the report."""
    from sklearn.model_selection import train_test_split

    from bottleneck import FineTuneSettings, TransferClassifier, save, write_report
    from bottleneck.persistence import check_target

    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"{out} is a file. Name the folder for the classifier and the report.")
    check_target(out / "model")
    began = monotonic()
    images, labels = _turned_digits() if finetune else _digits()
    X_train, X_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)
    classifier = TransferClassifier(
        strategy="finetune" if finetune else "auto",
        finetune=FineTuneSettings(**TURNED_SETTINGS) if finetune else FineTuneSettings(),
        cache_dir=cache_dir,
        random_state=0,
        verbose=not quiet,
    ).fit(X_train, y_train)
    accuracy = classifier.score(X_test, y_test)
    report, backbone = classifier.cache_report_, classifier.backbone_
    print(f"Backbone   {backbone.name}: {backbone.weights}. A larger one: --backbone resnet50, as of `bottleneck fit`")
    print(f"\n{classifier.plan_}\n")
    print(f"Outcome    {classifier.outcome_}")
    print(f"Accuracy   {percent(accuracy)} on {len(X_test)} digits that it has not seen")
    print(f"Features   {report.rows_extracted} images extracted, {report.rows_cached} found in the cache")
    save(classifier, out / "model")
    write_report(classifier, X_test, y_test, path=out / "report.html")
    print(f"Model      {out / 'model'}\nReport     {out / 'report.html'}")
    print("\nYour own pictures, in one folder a class: bottleneck fit FOLDER --backbone resnet50")
    emit(
        json,
        strategy=classifier.strategy_,
        accuracy=accuracy,
        n_samples=len(X_train),
        rows_extracted=report.rows_extracted,
        rows_cached=report.rows_cached,
        seconds=monotonic() - began,
        model=str(out / "model"),
        report=str(out / "report.html"),
    )


def _digits() -> "tuple[NDArray[np.float32], NDArray[Any]]":
    """Return 1,797 images of 8 x 8 pixels from 0 to 1, and what they show."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Pixels count from 0 to 16; float images are expected from 0 to 1.
    return (digits.images / 16).astype("float32"), digits.target


def _turned_digits() -> "tuple[NDArray[np.float32], NDArray[Any]]":
    """Return digits turned by a random quarter, and by how much."""
    import numpy as np

    images, _ = _digits()
    quarters = np.random.default_rng(0).integers(4, size=N_TURNED)
    turned = np.stack([np.rot90(image, quarter) for image, quarter in zip(images, quarters, strict=False)])
    return turned, np.array(["upright", "90 degrees", "180 degrees", "270 degrees"])[quarters]
