from bottleneck.finetune.memory import MicroBatch


def lengths(micro_batch: MicroBatch, n_images: int) -> list[int]:
    return [part.stop - part.start for part in micro_batch.parts(n_images)]


def test_whole_batches_until_memory_was_short():
    micro_batch = MicroBatch()

    assert lengths(micro_batch, 33) == [33]
    assert micro_batch.halve(33)
    assert lengths(micro_batch, 33) == [16, 17]
    assert micro_batch.halve(33)
    assert lengths(micro_batch, 33) == [8, 8, 8, 9]
    assert lengths(micro_batch, 5) == [5]


def test_one_image_cannot_be_halved():
    micro_batch = MicroBatch()

    halvings = [micro_batch.halve(4) for _ in range(3)]

    assert halvings == [True, True, False]
    assert lengths(micro_batch, 3) == [1, 1, 1]


def test_limit_that_was_given_holds_from_the_first_batch_on():
    micro_batch = MicroBatch(10)

    assert [part.stop - part.start for part in micro_batch.parts(32)] == [8, 8, 8, 8]
    assert (micro_batch.size_up_to(32), micro_batch.size_up_to(4)) == (10, 4)
    assert MicroBatch().size_up_to(32) == 32
