from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import UnreadableImagesError
from bottleneck.finetune.identity import identify_job
from bottleneck.images import as_image_source
from tests.finetune.tasks import make_job, make_task


def identity(task, source=None, labels=None, **changed) -> dict[str, str]:
    job = replace(make_job(task), **changed)
    return identify_job(
        job, task.source if source is None else source, task.labels if labels is None else labels, workers=0
    )


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    return [name for name in first if first[name] != second[name]]


def test_same_job_is_found_again(colours):
    copied = as_image_source(colours.pixels.copy())

    assert identity(colours) == identity(colours, source=copied, labels=list(colours.labels), clock=lambda: 5.0)


def test_everything_that_changes_the_weights_makes_another_job(colours, staged):
    one, recipe = identity(colours), make_job(colours).recipe
    turned = as_image_source(colours.pixels[::-1])
    other_task = make_task(colours.pixels, colours.labels, staged.backbone)

    assert differing(one, identity(colours, source=turned)) == ["images"]
    assert differing(one, identity(colours, labels=colours.labels[::-1])) == ["labels"]
    assert differing(one, identity(colours, labels=np.char.upper(colours.labels))) == ["labels"]
    assert differing(one, identity(colours, weights=np.full(60, 2, dtype=np.float32))) == ["image weights"]
    assert differing(one, identity(colours, recipe=replace(recipe, mixup=0.1))) == ["settings"]
    assert differing(one, identity(colours, seed=1)) == ["seed"]
    assert "backbone" in differing(one, identity(other_task))


def test_image_that_cannot_be_read_is_an_error(colours, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    source = as_image_source([tmp_path / "a.png"] * 60)
    (tmp_path / "a.png").unlink()

    with pytest.raises(UnreadableImagesError):
        identity(colours, source=source)
