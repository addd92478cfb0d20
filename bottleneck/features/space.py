"""Which feature space a run writes to and reads from."""

import dataclasses
import json
import logging
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.backbones import Backbone
from bottleneck.cache import FeatureCache, FeatureSpace
from bottleneck.extraction import CHECKED_ROWS, MIN_COSINE, CompileFacts, Extractor, Precision, decode_min_side
from bottleneck.images import DECODE_VERSION, ImageSource, load_batches

logger = logging.getLogger(__name__)

STORED_DTYPE = "float16"
STORED_BYTES = 2
VERDICTS = "precision"
"""Name of the note with the lowest cosine that each faster arithmetic kept with float32."""
MOST_LOOKED_AT = 512
"""How many images are tried, at most, until there are enough readable ones to compare the arithmetics on."""
COMPILING = "compiling"
"""Name of the note with what compiling took and gained."""


def feature_space(backbone: Backbone, precision: Precision) -> FeatureSpace:
    """Return the space that the backbone's features live in: everything that changes a feature."""
    return FeatureSpace(
        weights=backbone.weights_digest,
        layers=tuple(backbone.layer_widths.items()),
        pooling="mean",
        preprocess=json.dumps({"decode": DECODE_VERSION, **backbone.preprocess.describe()}, sort_keys=True),
        dtype=STORED_DTYPE,
        precision=precision,
    )


def default_cache_dir() -> Path:
    """Return the folder for caches that nobody named: beside torch's own, so TORCH_HOME and XDG_CACHE_HOME move it."""
    return Path(torch.hub.get_dir()).parent / "bottleneck"


def settle_precision(extractor: Extractor, cache: FeatureCache | None, source: ImageSource) -> Precision:
    """Return the arithmetic asked for, else the fastest whose features of the first images agree with float32.

    The verdict is kept in the cache, so that only the first run with a backbone pays for it.
    """
    precision = _settled(extractor, cache, source)
    if cache is not None:
        recall_compiling(extractor, cache, precision)
    return precision


def _settled(extractor: Extractor, cache: FeatureCache | None, source: ImageSource) -> Precision:
    candidate = extractor.candidate_precision
    if extractor.asked_precision or candidate == "float32":
        return candidate
    if cache is None:
        cosine = _lowest_cosine_of_first_images(extractor, candidate, source)
    else:
        # The verdict is about the backbone, and float32 is the space that every backbone has.
        store = cache.space(feature_space(extractor.backbone, "float32"))
        known = (store.read_note(VERDICTS) or {}).get(candidate)
        if isinstance(known, float):
            cosine = known
        else:
            cosine = _lowest_cosine_of_first_images(extractor, candidate, source)
            if cosine is not None:
                store.write_note(VERDICTS, {candidate: cosine})
    if cosine is None or cosine < MIN_COSINE:
        logger.info("%s features keep a cosine of %s with float32, so float32 is used", candidate, cosine)
        return "float32"
    return candidate


def recall_compiling(extractor: Extractor, cache: FeatureCache, precision: Precision) -> None:
    """Tell an extractor what an earlier run on such hardware measured about compiling this backbone, if any did."""
    note = cache.space(feature_space(extractor.backbone, precision)).read_note(COMPILING)
    if note is None or note.pop("hardware", None) != _hardware(extractor):
        return
    try:
        extractor.compile_facts = CompileFacts(**note)  # type: ignore[arg-type]  # a note of another version is refused below
    except TypeError as exc:
        logger.info("what compiling takes is measured again: %s", exc)


def remember_compiling(extractor: Extractor, cache: FeatureCache, precision: Precision) -> None:
    """Keep what this run measured about compiling, if it compiled, for the next."""
    if extractor.compiled_now and extractor.compile_facts is not None:
        note = {**dataclasses.asdict(extractor.compile_facts), "hardware": _hardware(extractor)}
        cache.space(feature_space(extractor.backbone, precision)).write_note(COMPILING, note)
        extractor.compiled_now = False


def _hardware(extractor: Extractor) -> str:
    return f"{extractor.device.type}, {torch.backends.cpu.get_cpu_capability()}, batches of {extractor.batch_size}"


def _lowest_cosine_of_first_images(extractor: Extractor, candidate: Precision, source: ImageSource) -> float | None:
    """Return the lowest cosine on the first images that can be read, or None if ``MOST_LOOKED_AT`` cannot."""
    rows = range(min(MOST_LOOKED_AT, len(source)))
    batches = load_batches(
        source,
        rows,
        preprocess=extractor.backbone.preprocess,
        batch_size=CHECKED_ROWS,
        workers=0,
        decode_min_side=decode_min_side(extractor.backbone),
    )
    readable: list[NDArray[np.uint8]] = []
    with closing(batches):
        for batch in batches:
            readable += [*batch.pixels] if len(batch.rows) else []
            if len(readable) >= CHECKED_ROWS:
                break
    return extractor.lowest_cosine(np.stack(readable[:CHECKED_ROWS]), candidate) if readable else None
