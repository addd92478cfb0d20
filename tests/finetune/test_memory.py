import pytest
import torch

from bottleneck.finetune.memory import MicroBatch, is_out_of_memory


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


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_short_memory_is_told_from_other_errors(error: RuntimeError, expected: bool):
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_the_processor_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)
