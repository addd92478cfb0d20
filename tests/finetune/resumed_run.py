"""A tiny training in a process of its own, which tests kill: ``python -m tests.finetune.resumed_run KIND FOLDER``.

It keeps a checkpoint after every step, tells its progress on its output, and leaves what it gave in ``FOLDER/result``.
"""

import dataclasses
import json
import sys
from pathlib import Path

import torch

from bottleneck.finetune import FineTuneSettings, checkpoints, finetune, train_from_scratch
from bottleneck.progress import Progress, ProgressCallback, silent
from tests.finetune.tasks import Task, colour_blind_backbone, coloured_noise, make_task

SETTINGS = FineTuneSettings(
    steps=45, batch_size=16, precision="float32", ema=0.9, mixup=0.2, unfreeze_every=3, freeze_epochs=1
)


def tell(event: Progress) -> None:
    sys.stdout.write(f"{event.stage}: {event.done}\n")
    sys.stdout.flush()


def run(kind: str, task: Task, folder: Path | None = None, progress: ProgressCallback = silent):
    """Run the training with everything that must survive: random states, moments, averages, groups that open."""
    shared = {"backbone": task.backbone, "progress": progress, "checkpoint_dir": folder}
    match kind:
        case "scratch":
            return train_from_scratch(task.source, task.labels, settings=SETTINGS, **shared)
        case "finetune":
            settings = dataclasses.replace(SETTINGS, steps=90, lr=0.1, lr_decay=1.0, unfreeze_every=0, freeze_epochs=0)
            return finetune(
                task.source, task.labels, head=task.head, features=task.features, settings=settings, **shared
            )


def tiny_task() -> Task:
    """Return a task that fine-tuning is accepted for; dropout draws from torch's global generator."""
    return make_task(*coloured_noise(60, seed=0), colour_blind_backbone(dropout=0.1), random_state=0)


def result_of(result) -> dict[str, object]:
    history = [dataclasses.asdict(record) for record in result.history]
    return {"weights": result.backbone.weights_digest, "head": result.head.coef_.tolist(), "history": history}


if __name__ == "__main__":
    torch.set_num_threads(1)
    checkpoints.LEAST_SECONDS, checkpoints.WRITES_APART = 0.0, 0
    found = run(sys.argv[1], tiny_task(), Path(sys.argv[2]), tell)
    Path(sys.argv[2], "result").write_text(json.dumps(result_of(found)))
