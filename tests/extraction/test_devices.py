import pytest
import torch

from bottleneck.errors import InvalidInputError
from bottleneck.extraction import device_memory, is_out_of_memory
from bottleneck.extraction.devices import resolve_device
from bottleneck.memory import available_memory


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_short_memory_is_told_from_other_errors(error: RuntimeError, expected: bool):
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_the_processor_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)


def test_memory_of_the_processor_is_what_the_system_says_is_available():
    """Within a factor: other programs come and go. Free memory alone is a small part of it once files were read."""
    available = available_memory()

    assert available / 2 < device_memory(torch.device("cpu")) < 2 * available


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_memory_of_a_gpu_is_its_own():
    _, everything = torch.cuda.mem_get_info()

    assert 0 < device_memory(torch.device("cuda")) <= everything


def test_device_that_is_none_gets_a_short_error():
    with pytest.raises(InvalidInputError, match=r"'device' parameter.*'auto', 'cpu', 'cuda'.*Got 'gpu' instead\.$"):
        resolve_device("gpu")
