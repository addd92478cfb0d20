"""Options that several commands share, and how their text becomes what the API takes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bottleneck.errors import InvalidInputError, wrong_parameter

Data = Annotated[Path, typer.Argument(help="Folder with one folder of images per class.", show_default=False)]
Images = Annotated[Path, typer.Argument(help="Folder of images, with or without class folders.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="Folder that `bottleneck fit --out` wrote.", show_default=False)]
BackboneName = Annotated[
    str, typer.Option("--backbone", "-b", help="embedded, a torchvision classification model, or timm:NAME.")
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights", "-w", help="default, a member of the network's weights enum, a .safetensors or .pth file, or none."
    ),
]
CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder of the feature cache; by default beside torch's own.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
BatchSize = Annotated[str, typer.Option(help="auto, or images a forward pass.")]
OnError = Annotated[
    str, typer.Option("--on-error", help="Unreadable images: raise (one error lists all) or skip (report and go on).")
]
Strategy = Annotated[str, typer.Option("--strategy", "-s", help="auto, probe, all_stages_probe, finetune or scratch.")]
TimeBudget = Annotated[
    float | None, typer.Option("--time-budget", help="Seconds that the whole fit may take; by default no limit.")
]
Risk = Annotated[str, typer.Option(help="balanced or safe: how clearly fine-tuning must beat the probe.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

SPLIT_NAMES = {"train", "training", "test", "val", "valid", "validation"}


def parse_weights(weights: str) -> str | None:
    """Return what ``weights=`` takes: "none" on a command line is None in Python."""
    return None if weights == "none" else weights


def parse_batch_size(batch_size: str) -> int | str:
    """Return a number where the text is one; anything else is judged by whoever uses it."""
    return int(batch_size) if batch_size.isdecimal() else batch_size


def parse_head(head: str) -> Any:
    """Return the head of that name.

    Raises
    ------
    InvalidInputError
        There is no such head.
    """
    from bottleneck import LogisticHead, SVMHead

    match head:
        case "logistic":
            return LogisticHead()
        case "svm":
            return SVMHead()
    raise wrong_parameter("bottleneck fit", "--head", "'logistic' or 'svm'", head)


def parse_class_weight(class_weight: str) -> str | None:
    """Return what ``class_weight=`` takes.

    Raises
    ------
    InvalidInputError
        It is neither "none" nor "balanced".
    """
    if class_weight not in ("none", "balanced"):
        raise wrong_parameter("bottleneck fit", "--class-weight", "'none' or 'balanced'", class_weight)
    return None if class_weight == "none" else class_weight


def parse_data(data: Path) -> Path:
    """Return the folder unless its subfolders are the parts of a split rather than classes.

    Raises
    ------
    InvalidInputError
        There is no such folder, or its subfolders are called train, test and the like: the classes are one level down.
    """
    if not data.exists():
        raise InvalidInputError(f"No such folder: {data}. Name a folder with one folder of images per class.")
    parts = [entry for entry in data.iterdir() if entry.is_dir()] if data.is_dir() else []
    if parts and {part.name.lower() for part in parts} <= SPLIT_NAMES:
        raise InvalidInputError(
            f"The folders in {data} are parts of a split ({', '.join(sorted(part.name for part in parts))}), not "
            f"classes. Name one of them, such as {sorted(parts, key=lambda part: part.name != 'train')[0]}."
        )
    return data


def list_images(paths: list[Path]) -> list[str]:
    """Return the images that the paths name; a folder stands for every image below it.

    Raises
    ------
    InvalidInputError
        A folder has no images, or a path does not exist.
    """
    from bottleneck.images import as_image_source

    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InvalidInputError(f"No such file or folder: {', '.join(missing)}.")
    return [name for path in paths for name in as_image_source(path).ids]
