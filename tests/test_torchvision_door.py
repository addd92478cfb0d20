import subprocess
import sys

from bottleneck.torchvision_door import has_operators, torchvision, transforms_functional


def test_door_opens_and_models_and_transforms_work():
    import torch

    network = torchvision().models.resnet18(weights=None).eval()
    resized = transforms_functional().resize(torch.zeros((3, 8, 8), dtype=torch.uint8), [4, 4])

    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert resized.shape == (3, 4, 4)


def test_door_gives_the_same_module_every_time():
    opened = torchvision()

    import torchvision as imported

    assert opened is imported
    assert torchvision() is opened


def test_operators_are_reported_as_they_are():
    import torch

    works = True
    try:
        torchvision().ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, NotImplementedError):
        works = False

    assert has_operators() == works


def test_door_opens_without_a_warning_even_after_somebody_failed_to_import_torchvision():
    script = """
import sys, warnings
warnings.simplefilter("error")
try:
    import torchvision
except RuntimeError:
    pass
from bottleneck.torchvision_door import torchvision
print(torchvision().models.__name__, sys.modules["torchvision"] is torchvision())
"""

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert (result.stdout.strip(), result.stderr) == ("torchvision.models True", "")
