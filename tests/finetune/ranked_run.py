"""Tiny trainings by several processes: ``torchrun --nproc-per-node N -m tests.finetune.ranked_run FOLDER [NAME ...]``.

Each process leaves what it got in ``FOLDER/RANK.json``. Tests call the same functions alone.
"""

import dataclasses
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck import TransferClassifier
from bottleneck.errors import FallbackWarning, ImageFailure, RankError, UnreadableImagesError
from bottleneck.finetune import EpochRecord, FineTuneSettings, checkpoints, finetune, train_from_scratch
from bottleneck.finetune.loop import run_training
from bottleneck.finetune.path import predict_proba, share_of_time
from bottleneck.finetune.pixels import DecodedPixels, Pixels
from bottleneck.finetune.ranks import Ranks, joined, number_in_launch
from bottleneck.finetune.step import Training
from bottleneck.finetune.timing import Ahead
from bottleneck.progress import Progress
from tests.finetune.tasks import Task, coloured_noise, flat, make_job, make_task, make_training
from tests.finetune.tasks import colour_blind_backbone as colour_blind

Answer = dict[str, Any]

WHOLE = FineTuneSettings(
    steps=36, lr=1.0, lr_decay=1.0, batch_size=16, precision="float32", acceptance_z=0.0, check_rates=True
)
DIES_IN = "fine-tuning, fold 2 of 3"


def task() -> Task:
    return make_task(*coloured_noise(60, seed=0), colour_blind(), random_state=0)


def told(training: Training) -> Answer:
    """Train, and tell the loss curve and the weights."""
    weights = run_training(training)
    history = training.job.history
    return {
        "losses": [record.loss for record in history],
        "accuracies": [record.accuracy for record in history],
        "weights": flat(weights).tolist(),
    }


def curve(ranks: Ranks) -> Answer:
    """Train with everything on that looks at more than one image of a batch, and with odd shares."""
    settings = {"steps": 12, "batch_size": 15, "ema": 0.9, "augment": "trivial", "mixup": 0.5, "cutmix": 1.0}
    return told(make_training(task(), ranks=ranks, lr=0.1, weight_decay=1e-3, label_smoothing=0.1, **settings))


def unfreezing(ranks: Ranks) -> Answer:
    """Train groups that begin to learn one after the other; one rank has little memory."""
    settings = {"optimizer": "adamw", "lr": 0.01, "steps": 12, "freeze_epochs": 1, "unfreeze_every": 1}
    training = make_training(task(), ranks=ranks, **settings)
    if ranks.rank == ranks.count - 1:
        training.network.network.register_forward_pre_hook(run_out_of_memory)
    return told(training)


def run_out_of_memory(network: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    """Hold three images and no more."""
    if len(args[0]) > 3:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def batch_norm(ranks: Ranks) -> Answer:
    """Train with statistics of the batch: each rank has those of its share."""
    return told(make_training(task(), ranks=ranks, steps=12, lr=0.01, batch_norm="train"))


def predictions(ranks: Ranks) -> Answer:
    """Predict more images than there are ranks, and fewer."""
    training = make_training(task(), ranks=ranks)
    network = training.network.eval()
    return {str(n): predict_proba(training.job, network, np.arange(n)).tolist() for n in (1, 17)}


def whole(ranks: Ranks) -> Answer:
    """Compare with the probe and refit."""
    given = task()
    result = finetune(
        given.source,
        given.labels,
        backbone=given.backbone,
        head=given.head,
        features=given.features,
        settings=WHOLE,
        ranks=ranks,
    )
    return {
        "accepted": result.accepted,
        "losses": [record.loss for record in result.history],
        "weights": flat(result.backbone.network.state_dict()).tolist(),
        "coef": result.head.coef_.tolist(),
        "accuracy": result.comparison.tuned_accuracy,
    }


def scratch(ranks: Ranks) -> Answer:
    given = task()
    settings = FineTuneSettings(steps=6, batch_size=16, precision="float32", batch_norm="frozen")
    result = train_from_scratch(given.source, given.labels, backbone=given.backbone, settings=settings, ranks=ranks)
    return {"losses": [record.loss for record in result.history], "coef": result.head.coef_.tolist()}


def resumed(ranks: Ranks, folder: Path | None = None) -> Answer:
    """Train with checkpoints; in the first run one process dies in the third epoch, and the next run goes on."""
    given, epochs = task(), []
    folder = Path(sys.argv[1], "checkpoints") if ranks.count > 1 else folder
    is_first_run = folder is not None and not folder.exists()

    def note(record: EpochRecord) -> None:
        epochs.append(record.epoch)
        if is_first_run and ranks.rank == ranks.count - 1 and record.epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.LEAST_SECONDS, checkpoints.WRITES_APART = 0.0, 0
    result = train_from_scratch(
        given.source,
        given.labels,
        backbone=given.backbone,
        settings=FineTuneSettings(steps=15, batch_size=16, precision="float32", batch_norm="frozen", ema=0.9),
        checkpoint_dir=folder,
        on_epoch=note,
        ranks=ranks,
    )
    losses = [record.loss for record in result.history]
    return {"losses": losses, "coef": result.head.coef_.tolist(), "epochs": epochs}


def resumed_whole(ranks: Ranks, folder: Path | None = None) -> Answer:
    """Compare and refit with checkpoints; in the first run one process dies in the second fold, the next goes on."""
    given, stages = task(), []
    folder = Path(sys.argv[1], "checkpoints") if ranks.count > 1 else folder
    is_first_run = folder is not None and not folder.exists()

    def note(event: Progress) -> None:
        if event.unit == "steps" and event.stage not in stages:
            stages.append(event.stage)
        if is_first_run and ranks.rank == ranks.count - 1 and (event.stage, event.done) == (DIES_IN, 7):
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.LEAST_SECONDS, checkpoints.WRITES_APART = 0.0, 0
    result = finetune(
        given.source,
        given.labels,
        backbone=given.backbone,
        head=given.head,
        features=given.features,
        settings=dataclasses.replace(WHOLE, ema=0.9),
        checkpoint_dir=folder,
        progress=note,
        ranks=ranks,
    )
    return {
        "losses": [record.loss for record in result.history],
        "weights": flat(result.backbone.network.state_dict()).tolist(),
        "coef": result.head.coef_.tolist(),
        "accepted": result.accepted,
        "accuracy": result.comparison.tuned_accuracy,
        "stages": stages,
        "message": result.message,
    }


def deadline(ranks: Ranks) -> Answer:
    """Train against a clock that says something else in each process."""
    readings = iter(range(1000))
    job = make_job(task(), ranks=ranks, steps=40, deadline=30.0, clock=lambda: next(readings) * (1.0 + ranks.rank))
    pace = share_of_time(job, 40, Ahead(trainings=1))
    training = dataclasses.replace(make_training(task(), ranks=ranks, steps=40), pace=pace)
    run_training(training)
    return {"steps": pace.step}


def meetings(ranks: Ranks) -> Answer:
    """Ask what ranks agree on."""
    own = float(ranks.rank)
    refused = ""
    try:
        ranks.check_same(seed=0, labels=np.array([own]))
    except RankError as exc:
        refused = str(exc)
    return {
        "first": ranks.first({"rank": own, "none": None}),
        "sum": ranks.sum(np.array([own, 1.0])).tolist(),
        "same": [ranks.is_same(b"a"), ranks.is_same(str(own).encode())],
        "array": ranks.first_array(np.full(3, own, dtype=np.float32)).tolist(),
        "refused": refused,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class TornPixels:
    """Images that one rank cannot read from the second batch on."""

    pixels: Pixels
    error: Exception

    def batches(self, rows: NDArray[np.int64], *, batch_size: int) -> Iterator[torch.Tensor]:
        for number, batch in enumerate(self.pixels.batches(rows, batch_size=batch_size)):
            if number > 0:
                raise self.error
            yield batch


def torn(ranks: Ranks, error: Exception, stops: tuple[type[Exception], ...]) -> str:
    """Return what is raised where the last rank fails in the middle of an epoch."""
    given = task()
    pixels: Pixels = DecodedPixels(images=given.pixels)
    if ranks.rank == ranks.count - 1:
        pixels = TornPixels(pixels=pixels, error=error)
    with ranks.telling(*stops):
        run_training(make_training(given, ranks=ranks, roomy=pixels))
    return "nothing"


def stopping(ranks: Ranks) -> Answer:
    """Let one rank meet an image that it cannot read: all go on with something else."""
    try:
        torn(ranks, UnreadableImagesError([ImageFailure(row=3, id="three", reason="torn")]), (UnreadableImagesError,))
    except (UnreadableImagesError, RankError) as exc:
        return {"raised": type(exc).__name__, "said": str(exc), "after": ranks.sum(np.ones(1)).tolist()}
    return {}


def failing(ranks: Ranks) -> Answer:
    """Let one rank fail in a way that nobody foresaw: all end."""
    return {"raised": torn(ranks, ValueError("shapes do not fit"), ())}


def dying(ranks: Ranks) -> Answer:
    """Let one rank die without a word."""
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return told(make_training(task(), ranks=ranks))


def estimator(ranks: Ranks) -> Answer:
    """Fit the whole classifier, every process without a seed, and with a cache that all share."""
    pixels, labels = coloured_noise(60, seed=0)
    settings = FineTuneSettings(steps=6, lr=0.1, lr_decay=1.0, batch_size=16, precision="float32")
    classifier = TransferClassifier(
        colour_blind(),
        strategy="finetune",
        cache_dir=Path(sys.argv[1], "cache"),
        device="cpu",
        precision="float32",
        finetune=settings,
    ).fit(pixels, labels)
    report = classifier.cache_report_
    return {
        "losses": [record.loss for record in classifier.history_],
        "proba": classifier.predict_proba(pixels[:9]).tolist(),
        "plan": classifier.plan_.to_json(),
        "rows": [report.rows_extracted, report.rows_cached],
    }


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", FallbackWarning)
    work: dict[str, Callable[[Ranks], Answer]] = {name: globals()[name] for name in names}
    with joined("cpu") as ranks:
        answers = {}
        for name, answer in work.items():
            began = time.monotonic()
            answers[name] = {**answer(ranks), "seconds": time.monotonic() - began}
    folder.joinpath(f"{number_in_launch()[0]}.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
