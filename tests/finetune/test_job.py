import numpy as np
import torch

from bottleneck.finetune.job import open_job
from tests.finetune.tasks import make_job


def test_images_reach_the_network_as_features_are_extracted_from_them(colours):
    job = make_job(colours)
    pixels = next(job.exact.batches(np.arange(5), batch_size=5))

    images = job.as_input(pixels)

    expected = colours.backbone.preprocess.normalise(torch.from_numpy(colours.pixels[:5].transpose(0, 3, 1, 2).copy()))
    assert torch.equal(images, expected)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_opened_job_has_the_images_of_the_source(colours):
    given = make_job(colours)

    job = open_job(
        colours.source,
        backbone=colours.backbone,
        recipe=given.recipe,
        weights=given.weights,
        device=given.device,
        seed=3,
        workers=0,
        memory_limit=None,
        deadline=None,
        clock=given.clock,
        progress=given.progress,
        history=[],
    )

    (pixels,) = job.roomy.batches(np.arange(60), batch_size=60)
    assert np.array_equal(pixels.permute(0, 2, 3, 1).numpy(), colours.pixels)
    assert (job.seed, job.micro_batch.most) == (3, None)
