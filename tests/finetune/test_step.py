import pytest
import torch
from torch import nn

from bottleneck.finetune.batches import prepare_lesson, shuffled_batches
from bottleneck.finetune.loop import run_training
from bottleneck.finetune.step import adapt_rates, compute_gradients
from tests.finetune.tasks import flat, make_training

pytestmark = pytest.mark.usefixtures("one_thread")


class Cramped(nn.Module):
    """A network that runs out of memory with more than ``most`` images at once."""

    def __init__(self, network: nn.Module, most: int, error: Exception) -> None:
        super().__init__()
        self.network, self.most, self.error = network, most, error
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.network(images)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
]


def cramped(training, most: int, error: Exception) -> Cramped:
    training.network.network = Cramped(training.network.network, most, error)
    return training.network.network


def gradients(training) -> torch.Tensor:
    training.network.requires_grad_(True).train()
    batch = next(shuffled_batches(training.job, training.learned, epoch=1))
    compute_gradients(training, prepare_lesson(training.job, batch, n_classes=2, epoch=1))
    return torch.cat([parameter.grad.flatten() for parameter in training.network.parameters()])


@pytest.mark.parametrize("error", ERRORS, ids=["device", "processor"])
def test_memory_that_is_short_halves_what_is_computed_at_once_and_not_the_batch(colours, error):
    training = make_training(colours)
    expected = gradients(make_training(colours))
    network = cramped(training, 5, error)

    found = gradients(training)

    assert network.seen == [16, 8, 4, 4, 4, 4]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_later_steps_and_trainings_remember_what_fits(colours):
    training = make_training(colours, steps=2)
    network = cramped(training, 8, ERRORS[0])

    gradients(training)
    gradients(training)

    assert network.seen == [16, 8, 8, 8, 8]
    assert training.job.micro_batch.most == 8


def test_image_that_does_not_fit_alone_is_an_error(colours):
    training = make_training(colours)
    cramped(training, 0, ERRORS[1])

    with pytest.raises(torch.OutOfMemoryError, match="DefaultCPUAllocator"):
        gradients(training)


def test_other_errors_are_not_taken_for_short_memory(colours):
    training = make_training(colours)
    network = cramped(training, 5, RuntimeError("shapes do not fit"))

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        gradients(training)
    assert network.seen == [16]


def test_gradient_norm_is_clipped(colours):
    """The first Nesterov step is 1.9 gradients long."""
    training = make_training(colours, steps=1, lr=1.0, clip_norm=1e-3, warmup_fraction=0.0)
    before = flat(training.network.state_dict())

    after = flat(run_training(training))

    assert 0 < (after - before).norm() <= 1.9e-3 * 1.001


def test_loss_that_is_no_number_stops_the_training(colours):
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) at step \d"):
        run_training(make_training(colours, lr=1e20))


def test_layers_with_small_gradients_learn_faster():
    """The formula of Singh et al. (2015) by hand; weight and bias of a layer count together."""
    shallow, deep, bias = (nn.Parameter(torch.zeros(n)) for n in (4, 3, 1))
    shallow.grad, deep.grad, bias.grad = torch.full((4,), 0.005), torch.tensor([3.0, 0, 0]), torch.tensor([4.0])
    optimizer = torch.optim.SGD(
        [
            {"params": [parameter], "lr": 0.5, "layer": layer}
            for parameter, layer in ((shallow, "a"), (deep, "b"), (bias, "b"))
        ]
    )

    adapt_rates(optimizer)

    log = torch.log(torch.tensor([1 + 1 / 0.01, 1 + 1 / 5]))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.5 * (1 + log[0].item()), *[0.5 * (1 + log[1].item())] * 2], rel=1e-5
    )
