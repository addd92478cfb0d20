"""Options that several commands share, and how their text becomes what the API takes."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bottleneck.cli.config import join_head_settings, join_settings, parse_setting, read_config
from bottleneck.cli.output import log_to_stderr
from bottleneck.errors import InvalidInputError, did_you_mean

if TYPE_CHECKING:
    from bottleneck import TransferClassifier


def one_of(*names: str) -> Callable[[], list[str]]:
    """Return what shells complete a value with."""
    return lambda: list(names)


def _start_log(wanted: bool) -> bool:
    if wanted:
        log_to_stderr()
    return wanted


OFTEN_USED = (
    "embedded", "mobilenet_v2", "mobilenet_v3_large", "resnet18", "resnet50", "efficientnet_b0", "convnext_tiny",
    "vit_b_16", "swin_t",
)  # fmt: skip
"""What shells complete --backbone with: the whole list would cost an import of torchvision at every Tab."""

Data = Annotated[
    Path, typer.Argument(help="Folder with one folder of images per class.", metavar="DATA", show_default=False)
]
Model = Annotated[
    Path, typer.Argument(help="Folder that `bottleneck fit --out` wrote.", metavar="MODEL", show_default=False)
]
BackboneName = Annotated[
    str,
    typer.Option(
        "--backbone",
        "-b",
        help="Pretrained network: embedded (small, in this package), a torchvision model (resnet50), or timm:NAME.",
        autocompletion=one_of(*OFTEN_USED),
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        help="default, the name of other weights of that network, a .safetensors or .pth file, or none (random).",
        autocompletion=one_of("default", "none"),
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", help="Folder of the feature cache; by default beside torch's own (TORCH_HOME)."),
]
Device = Annotated[
    str,
    typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, ...", autocompletion=one_of("auto", "cpu", "cuda")),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Arithmetic of the network: float32, bfloat16, or auto (bfloat16 where that is fast and agrees).",
        autocompletion=one_of("auto", "float32", "bfloat16"),
    ),
]
BatchSize = Annotated[str, typer.Option(help="Images in one forward pass, or auto.")]
OnError = Annotated[
    str,
    typer.Option(
        "--on-error",
        help="Images that cannot be read: raise (one error lists them all) or skip (a warning does).",
        autocompletion=one_of("raise", "skip"),
    ),
]
Strategy = Annotated[
    str,
    typer.Option(
        "--strategy",
        "-s",
        help="auto (the planner decides), probe (linear, on frozen features), all_stages_probe (on features of every "
        "stage), finetune, or scratch (from random weights).",
        autocompletion=one_of("auto", "probe", "all_stages_probe", "finetune", "scratch"),
    ),
]
TimeBudget = Annotated[
    float | None, typer.Option("--time-budget", help="Seconds that the whole fit may take; by default no limit.")
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit", help="Bytes (2e9 are 2 GB) that network, images, features and head may take in memory."
    ),
]
DiskLimit = Annotated[
    float | None,
    typer.Option("--disk-limit", help="Bytes (5e8 are 500 MB) that may be added to the cache and for checkpoints."),
]
Risk = Annotated[
    str,
    typer.Option(
        help="How clearly fine-tuning must beat the probe to replace it: balanced or safe.",
        autocompletion=one_of("balanced", "safe"),
    ),
]
Head = Annotated[
    str,
    typer.Option(
        help="Classifier on the features: logistic (regression) or svm; only the first can be fine-tuned from.",
        autocompletion=one_of("logistic", "svm"),
    ),
]
ClassWeight = Annotated[
    str,
    typer.Option(
        help="none (every image counts the same) or balanced (every class does).",
        autocompletion=one_of("none", "balanced"),
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random: the same again gives the same result.")]
HeadSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A knob of the head (head.normalize=l2); again for each.",
        callback=join_head_settings,
        metavar="head.NAME=VALUE",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A knob of fine-tuning (finetune.lr=0.01) or of the head (head.normalize=l2); again for each.",
        callback=join_settings,
        metavar="OWNER.NAME=VALUE",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="TOML file with options as keys (time-budget = 60); what is typed wins.",
        is_eager=True,
        callback=read_config,
    ),
]
WriteConfig = Annotated[
    Path | None, typer.Option("--write-config", help="TOML file to write, with which --config does the same again.")
]
"""Written by config.Repeatable: commands have the parameter and do nothing with it, and the same goes for --config."""
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
"""Every command that goes through images has it."""
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Also log what is measured, tried and given up.", callback=_start_log),
]
"""Acts through its callback: every command but doctor has the parameter, and does nothing with it."""

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
    raise _wrong_option("--head", ("logistic", "svm"), head)


def parse_class_weight(class_weight: str) -> str | None:
    """Return what ``class_weight=`` takes.

    Raises
    ------
    InvalidInputError
        It is neither "none" nor "balanced".
    """
    if class_weight not in ("none", "balanced"):
        raise _wrong_option("--class-weight", ("none", "balanced"), class_weight)
    return None if class_weight == "none" else class_weight


def check_images(images: str) -> None:
    """Raise unless there is such a folder or file, or it is an address, of which only reading it tells.

    Raises
    ------
    InvalidInputError
        It does not exist.
    """
    if "://" not in images and not Path(images).exists():
        raise InvalidInputError(f"No such file or folder: {images}.")


def apply_settings(classifier: "TransferClassifier", settings: Sequence[str]) -> None:
    """Set what was typed after --set.

    Raises
    ------
    InvalidInputError
        There is no such knob.
    """
    for owner, name, value in map(parse_setting, settings):
        if owner not in ("finetune", "head"):
            raise _wrong_option("--set", ("finetune.NAME=VALUE", "head.NAME=VALUE"), owner)
        knobs = [param.partition("__") for param in classifier.get_params()]
        _check_knob(owner, name, [knob for of, _, knob in knobs if of == owner and knob])
        classifier.set_params(**{f"{owner}__{name}": value})


def with_settings(head: Any, settings: Sequence[str]) -> Any:
    """Return a head with what was typed after --set, where there is nothing else to set.

    Raises
    ------
    InvalidInputError
        There is no such knob, or it is not the head's.
    """
    for owner, name, value in map(parse_setting, settings):
        if owner != "head":
            raise InvalidInputError(f"--set must be head.NAME=VALUE here, where nothing else is fitted. Got {owner!r}.")
        _check_knob(owner, name, head.get_params())
        head.set_params(**{name: value})
    return head


def _check_knob(owner: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        hint = did_you_mean(name, sorted(known)) or f"There are: {', '.join(sorted(known))}."
        raise InvalidInputError(f"--set {owner}.{name}: no such setting. {hint}")


def parse_data(data: Path) -> Path:
    """Return the folder unless its subfolders are the parts of a split rather than classes.

    Raises
    ------
    InvalidInputError
        There is no such folder, or it is a file, or its subfolders are called train, test and the like: the classes
        are one level down.
    """
    if not data.exists():
        raise InvalidInputError(f"No such folder: {data}. Name a folder with one folder of images per class.")
    if not data.is_dir():
        raise InvalidInputError(f"{data} is a file. Name a folder with one folder of images per class.")
    parts = [entry for entry in data.iterdir() if entry.is_dir()]
    if parts and {part.name.lower() for part in parts} <= SPLIT_NAMES:
        raise InvalidInputError(
            f"The folders in {data} are parts of a split ({', '.join(sorted(part.name for part in parts))}), not "
            f"classes. Name one of them, such as {sorted(parts, key=lambda part: part.name != 'train')[0]}."
        )
    return data


def _wrong_option(option: str, allowed: Sequence[str], value: str) -> InvalidInputError:
    """Return the error for an option outside its values."""
    one_of_them = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
    return InvalidInputError(
        f"{option} must be {one_of_them}. Got {value!r} instead. {did_you_mean(value, allowed)}".rstrip()
    )
