"""Loaded by Dask workers of tests before they start: makes one slow, or its disk small."""

import os
import resource
import time


def dask_setup(worker: object) -> None:
    seconds, file_bytes = float(os.environ["SECONDS_A_BATCH"]), int(os.environ["FILE_BYTES"])
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if seconds:
        from bottleneck.extraction import Extractor

        forward = Extractor._forward_once

        def slow(self, pixels, precision):
            time.sleep(seconds)
            return forward(self, pixels, precision)

        Extractor._forward_once = slow
