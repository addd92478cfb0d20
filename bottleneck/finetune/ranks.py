"""Several processes, one fine-tuning: torch's launcher starts them, and here they meet.

Every process (a **rank**) runs the same program on the same images: it computes its share of each batch, and
DistributedDataParallel averages the gradients, so that all have the same weights after every step. Whatever depends on
a clock, a random seed or one machine is decided by the first rank. Processes meet at fixed points only, and first tell
each other that nothing went wrong: so one that fails ends the others with its message instead of leaving them waiting.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from bottleneck.errors import RankError, wrong_parameter

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup  # some builds of torch have none

WAIT = timedelta(hours=2)
"""How long one may wait for another that is alive: extraction shares differ. One that died is noticed at once."""

MESSAGE_BYTES = 2048

FINE, STOPPED, FAILED = 0, 1, 2
"""What a rank tells when they meet."""

Value = TypeVar("Value")


class RankStopError(RankError):
    """Another process met something that ends this fine-tuning, but not the program."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ranks:
    """The processes of one run as one of them sees it.

    Attributes
    ----------
    rank, count : int
        Which of how many; the first is 0.
    group : ProcessGroup or None
        For what is not gradients, on the processor (gloo); None alone.
    told : list of BaseException
        What the others know of already.
    """

    rank: int
    count: int
    group: "ProcessGroup | None" = field(default=None, repr=False)
    told: list[BaseException] = field(default_factory=list, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this one decides, prints and writes."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return this rank's part of ``n`` things in a row; parts differ by one at most."""
        return slice(self.rank * n // self.count, (self.rank + 1) * n // self.count)

    def meet(self) -> None:
        """Wait for the others.

        Raises
        ------
        RankError
            One of them has failed, or is gone.
        """
        if self.count > 1:
            self._tell(FINE, "")

    def first(self, value: Value) -> Value:
        """Return what the first rank passed: anything that JSON can say."""
        if self.count == 1:
            return value
        self.meet()
        said = np.frombuffer(json.dumps(value).encode() if self.is_first else b"", np.uint8)
        n_bytes = int(self.broadcast(torch.tensor([len(said)]))[0])
        buffer = torch.from_numpy(said.copy()) if self.is_first else torch.empty(n_bytes, dtype=torch.uint8)
        return cast("Value", json.loads(self.broadcast(buffer).numpy().tobytes()))

    def first_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array of the first rank where not all have the same; shapes and types must be equal."""
        if self.count == 1 or self.is_same(array.tobytes()):
            return array
        return self.broadcast(torch.from_numpy(np.ascontiguousarray(array).copy())).numpy()

    def first_then_others(self, act: Callable[[], Value]) -> Value:
        """Return what ``act`` returns, which the others do when the first rank has done it."""
        if self.is_first:
            done = act()
            self.meet()
            return done
        self.meet()
        return act()

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the sum of the arrays of all ranks, which have one shape."""
        if self.count == 1:
            return array
        self.meet()
        total = torch.from_numpy(array.copy())
        with self._in_contact():
            distributed.all_reduce(total, group=self.group)
        return total.numpy()

    def is_same(self, content: bytes) -> bool:
        """Say whether all ranks passed the same bytes."""
        digest = hashlib.sha256(content).hexdigest()
        return not self.sum(np.array([self.first(digest) != digest], dtype=np.int64)).any()

    def check_same(self, **given: object) -> None:
        """Raise unless all ranks were given the same.

        Raises
        ------
        RankError
            Says what differs.
        """
        if self.count == 1:
            return
        others = [name for name, value in given.items() if not self.is_same(as_bytes(value))]
        if others:
            raise RankError(
                f"The processes that train together must be given the same {' and '.join(others)}, and were not. "
                "Pass the same arguments in each, and a seed (random_state), and keep folders as they are."
            )

    @contextmanager
    def telling(self, *stops: type[BaseException]) -> Iterator[None]:
        """Tell the others, at the point where they meet next, of what is raised inside.

        They raise RankStopError if it is one of ``stops``, which all of them are to survive, else RankError.
        """
        try:
            yield
        except BaseException as exc:
            if self.count > 1 and not isinstance(exc, RankError) and exc not in self.told:
                self.told.append(exc)
                with suppress(RankError):  # they will notice that this one has gone
                    self._tell(STOPPED if isinstance(exc, stops) else FAILED, f"{type(exc).__name__}: {exc}")
            raise

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Replace the values of a tensor on the processor by those of the first rank."""
        with self._in_contact():
            distributed.broadcast(tensor, 0, group=self.group)
        return tensor

    def _tell(self, state: int, message: str) -> None:
        states = torch.zeros(self.count, dtype=torch.int64)
        states[self.rank] = state
        with self._in_contact():
            distributed.all_reduce(states, group=self.group)
        if not states.any():
            return
        messages = torch.zeros(self.count, MESSAGE_BYTES, dtype=torch.uint8)
        said = message.encode()[:MESSAGE_BYTES]
        messages[self.rank, : len(said)] = torch.frombuffer(bytearray(said or b"\0"), dtype=torch.uint8)[: len(said)]
        with self._in_contact():
            distributed.all_reduce(messages, group=self.group)
        if state == FINE:
            culprit = int(states.argmax())
            text = messages[culprit].numpy().tobytes().rstrip(b"\0").decode(errors="replace")
            kind = RankStopError if states[culprit] == STOPPED else RankError
            raise kind(f"process {culprit + 1} of {self.count} stopped with {text}")

    @contextmanager
    def _in_contact(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as exc:
            raise RankError(
                f"process {self.rank + 1} of {self.count} lost contact with another one, which has ended or cannot be "
                f"reached: {str(exc).splitlines()[0]}"
            ) from exc


def as_bytes(value: object) -> bytes:
    """Return the values of an array, or how anything else describes itself."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return np.ascontiguousarray(value).tobytes()
    return repr(value.tolist() if isinstance(value, np.ndarray) else value).encode()


ALONE = Ranks(rank=0, count=1)
"""Not distributed."""


class Touched(nn.Module):
    """Parameters, and a zero that depends on each of them."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__()
        self.touched = nn.ParameterList(parameters)

    def forward(self) -> Tensor:
        """Return 0, with a gradient of zeros."""
        return torch.stack([0 * parameter.sum() for parameter in self.touched]).sum()


class GradientAverage:
    """Averages the gradients of a network over the ranks, by DistributedDataParallel, whenever it is asked to.

    Wrapped in the usual way it would average during the last backward pass, and a rank that ran out of memory in
    that pass would leave the others waiting in the middle of theirs. Here the network is not wrapped: gradients add
    up in it, part by part, as often as memory makes that necessary; ranks tell each other that they have them; and
    then a backward pass that adds zeros makes DistributedDataParallel average what is there.
    """

    def __init__(self) -> None:
        self.learning: list[nn.Parameter] = []
        self.wrapped: DistributedDataParallel | None = None

    def take(self, network: nn.Module) -> None:
        """Replace the gradients of every learning parameter by their mean over the ranks."""
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if self.wrapped is None or list(map(id, learning)) != list(map(id, self.learning)):
            self.learning, self.wrapped = learning, DistributedDataParallel(Touched(learning))
        self.wrapped().backward()


def take_weights_of_first(ranks: Ranks, network: nn.Module) -> None:
    """Give a network the first rank's weights: processors of another kind may have found others in the last bit."""
    if ranks.count == 1:
        return
    ranks.meet()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(ranks.broadcast(tensor.detach().cpu().contiguous()))


def average_statistics(ranks: Ranks, network: nn.Module) -> None:
    """Replace the running statistics of BatchNorm in train mode by their mean over the ranks."""
    statistics = [
        buffer
        for module in network.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
        for buffer in module.buffers()
        if buffer.is_floating_point()
    ]
    if ranks.count == 1 or not statistics:
        return
    own = torch.cat([buffer.flatten().cpu() for buffer in statistics]).numpy()
    mean = np.split(ranks.sum(own) / ranks.count, np.cumsum([buffer.numel() for buffer in statistics])[:-1])
    for buffer, part in zip(statistics, mean, strict=True):
        buffer.copy_(torch.from_numpy(part).view_as(buffer))


def synchronise_batch_norm(ranks: Ranks, network: nn.Module, device: torch.device) -> None:
    """Let BatchNorm in train mode take its statistics over the whole batch, in place, where torch can: on CUDA.

    Elsewhere each rank normalises by the statistics of its own share.
    """
    if ranks.count > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch gives it no types


def has_synchronised_batch_norm(network: nn.Module) -> bool:
    """Say whether ranks meet inside of a forward pass: then all must make it, and equally often."""
    return any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())


def number_in_launch() -> tuple[int, int]:
    """Return which process of how many this is, from torch's launcher or the group that exists; (0, 1) alone."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """Return how many processes of this run share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if number_in_launch()[1] > 1 else 1


def is_first() -> bool:
    """Say whether this is the process that prints and writes, or the only one."""
    return number_in_launch()[0] == 0


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other processes that torch's launcher has started, if it has, for as long as the block lasts.

    A process group that exists is used and left; else one is made (nccl on CUDA, gloo elsewhere) and destroyed.
    ``device`` "auto" or "cuda" is the accelerator of this process's number on its machine.

    Raises
    ------
    InvalidInputError
        There are more processes on this machine than CUDA devices.
    """
    rank, count = number_in_launch()
    if count == 1:
        yield ALONE
        return
    with ExitStack() as leaving:
        on_cuda = torch.cuda.is_available() and device != "cpu"
        if on_cuda and torch.device("cuda" if device == "auto" else device).index is None:
            leaving.enter_context(torch.cuda.device(own_accelerator()))
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_cuda else "gloo")
            leaving.callback(distributed.destroy_process_group)
            group = distributed.new_group(backend="gloo", timeout=WAIT)
        else:
            group = distributed.new_group(backend="gloo", timeout=WAIT)
            leaving.callback(distributed.destroy_process_group, group)
        ranks = Ranks(rank=rank, count=count, group=group)
        with ranks.telling():
            ranks.meet()
            yield ranks


def own_accelerator() -> int:
    """Return the number of the CUDA device that belongs to this process: its number on this machine."""
    local, n_devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= n_devices:
        raise wrong_parameter(
            "torchrun", "--nproc-per-node", f"at most {n_devices}, one process for each CUDA device", local + 1
        )
    return local
