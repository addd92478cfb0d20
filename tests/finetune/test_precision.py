import logging

import pytest
import torch
from torch import nn

from bottleneck.extraction import fastest_precision
from bottleneck.finetune.precision import LOGIT_TOLERANCE, choose_precision, logit_error

IMAGES = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Offset(nn.Module):
    """Logits that are small differences of large numbers: bfloat16 has no digits left for them."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 6 * 6, 4)
        with torch.no_grad():
            self.linear.bias.fill_(offset)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1))


@pytest.fixture
def plain() -> Offset:
    torch.manual_seed(0)
    return Offset(0.0)


def test_automatic_is_the_fastest_that_keeps_the_logits(plain, caplog):
    caplog.set_level(logging.INFO, logger="bottleneck")

    assert choose_precision(plain, IMAGES) == fastest_precision(torch.device("cpu"))
    assert not caplog.records


def test_arithmetic_that_changes_the_logits_is_not_used_and_the_log_says_so(caplog):
    caplog.set_level(logging.INFO, logger="bottleneck")

    assert choose_precision(Offset(1e4), IMAGES) == "float32"
    if fastest_precision(torch.device("cpu")) == "bfloat16":
        assert "training in float32" in caplog.text


def test_error_is_relative_to_what_tells_classes_apart(plain):
    assert 0 < logit_error(plain, IMAGES, precision="bfloat16") < LOGIT_TOLERANCE
    assert logit_error(Offset(1e4), IMAGES, precision="bfloat16") > LOGIT_TOLERANCE
    assert logit_error(plain, IMAGES, precision="float32") == 0


def test_equal_logits_of_a_fresh_head_are_no_error(plain):
    for parameter in plain.parameters():
        nn.init.zeros_(parameter)

    assert logit_error(plain, IMAGES, precision="bfloat16") == 0
