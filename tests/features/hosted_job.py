"""The caching job as a process on some host: images, cache folder, scheduler. Prints each event, then the counts."""

import json
import sys

from bottleneck import cache_features
from bottleneck.extraction import ExtractionSettings
from tests.conftest import make_tiny_backbone

images, cache_dir, scheduler = sys.argv[1:]
report = cache_features(
    images,
    make_tiny_backbone(),
    cache_dir,
    settings=ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4),
    engine="dask",
    scheduler=scheduler,
    n_jobs=2,
    progress=lambda event: print(event.done, flush=True),  # noqa: T201 (tells the test how far it is)
)
print(json.dumps({"extracted": report.rows_extracted, "cached": report.rows_cached}))  # noqa: T201
