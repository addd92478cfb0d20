"""The images that were classified wrongly with the greatest certainty."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePath

import numpy as np

from bottleneck.images import ImageReadError, ImageSource, decode
from bottleneck.report.evaluate import Evaluation

MOST_MISTAKES = 24
"""As many as fill a screen."""

SIDE = 96
"""Pixels of a thumbnail's longer side, at most."""

JPEG_QUALITY = 82


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One wrongly classified image.

    Attributes
    ----------
    id, name : str
        What errors call the image, and the last part of it.
    true, predicted : str
    certainty : float
        As in Evaluation.
    thumbnail : str
        A data URI, empty if the image can no longer be read.
    """

    id: str
    name: str
    true: str
    predicted: str
    certainty: float
    thumbnail: str


def worst_mistakes(evaluation: Evaluation) -> tuple[Mistake, ...]:
    """Return the wrong predictions of the greatest certainty, at most ``MOST_MISTAKES``, the most certain first."""
    wrong = np.flatnonzero(~evaluation.correct)
    order = wrong[np.argsort(-evaluation.certainty[wrong], kind="stable")]
    return tuple(_mistake(evaluation, i) for i in order[:MOST_MISTAKES].tolist())


def _mistake(evaluation: Evaluation, i: int) -> Mistake:
    row = int(evaluation.rows[i])
    name = evaluation.source.ids[row]
    return Mistake(
        id=name,
        name=PurePath(name).name,
        true=evaluation.labels[evaluation.true[i]],
        predicted=evaluation.labels[evaluation.predicted[i]],
        certainty=float(evaluation.certainty[i]),
        thumbnail=thumbnail(evaluation.source, row),
    )


def thumbnail(source: ImageSource, row: int) -> str:
    """Return a small JPEG of one image as a data URI; nothing, rather than another picture, if it is gone by now."""
    try:
        image = decode(source.read(row), min_side=SIDE)
    except ImageReadError:
        return ""
    image.thumbnail((SIDE, SIDE))
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(encoded.getvalue()).decode('ascii')}"
