"""A caching job on a Dask cluster: the only door to ``distributed``, which is optional.

The engine hands parts out, moves those of a dead worker to another, and balances fast and slow ones. Added here is what
it leaves to its users: a worker that reports trouble of its own (a full disk, a broken device) gets no more parts of
this job, and a scheduler that was started again gets those that the old one has forgotten.
"""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bottleneck.errors import WorkerError, listed
from bottleneck.optional import require

if TYPE_CHECKING:
    from bottleneck.features.worker import PartReport

TICK_SECONDS = 1.0
"""How often the driver looks whether there still are workers and a scheduler."""
PATIENCE_SECONDS = 600.0
"""How long a job waits for workers, or for a scheduler that has gone."""
CONNECT_SECONDS = 30.0
"""How long a scheduler may take to answer for the first time."""
PARTS_AHEAD = 2
"""Parts handed out for each worker: one that it computes, and one that it has when that is done."""

logger = logging.getLogger(__name__)


@contextmanager
def connected(scheduler: str | None, n_workers: int) -> Iterator[Any]:
    """Yield a client of the scheduler at an address, or else the current one, once it has ``n_workers``.

    Raises
    ------
    WorkerError
        There is no scheduler there, or not enough workers within ``PATIENCE_SECONDS``.
    MissingDependencyError
        Dask is not installed.
    """
    distributed = _distributed()
    client = _connect(distributed, scheduler) if scheduler is not None else _current(distributed)
    try:
        _wait_for_workers(client, n_workers)
        yield client
    finally:
        if scheduler is not None:
            client.close()


def this_worker() -> tuple[str, int] | None:
    """Return the address of the Dask worker that this runs in, and its threads; None where it is none."""
    if "distributed" not in sys.modules:
        return None
    distributed = _distributed()
    try:
        worker = distributed.get_worker()
    except ValueError:  # what it says outside of a task
        return None
    return worker.address, worker.state.nthreads


def run_once(client: Any, function: Callable[..., Any], *arguments: object) -> Any:
    """Return what a function returns on some worker."""
    return client.submit(function, *arguments, pure=False).result()


def count_workers(client: Any) -> int:
    """Return how many workers a cluster has now."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


def run_parts(
    client: Any,
    function: Callable[..., "PartReport"],
    order: object,
    parts: Iterator[range],
    arguments: Callable[[range], tuple[object, ...]],
) -> Iterator["PartReport | None"]:
    """Yield what ``function(order, *arguments(part))`` returns of every part as it is done, and None now and then.

    The order is sent to each worker once.

    Raises
    ------
    WorkerError
        Parts that no worker could do, once all others are done; or the scheduler or all workers are gone.
    """
    run = _Run(client=client, function=function, order=order, parts=parts, arguments=arguments)
    with closing(run.reports()) as reports:
        yield from reports


@dataclass(kw_only=True, slots=True)
class _Run:
    """Parts on their way through a cluster."""

    client: Any
    function: Callable[..., "PartReport"]
    order: object
    parts: Iterator[range]
    arguments: Callable[[range], tuple[object, ...]]
    running: dict[Any, tuple[range, frozenset[str]]] = field(default_factory=dict)
    again: deque[range] = field(default_factory=deque)
    in_trouble: dict[str, str] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    sent: Any = None
    is_cut: bool = False
    workers: frozenset[str] = frozenset()
    asked: float = float("-inf")
    last_seen: float = field(default_factory=time.monotonic)

    def reports(self) -> Generator["PartReport | None"]:
        distributed = _distributed()
        try:
            while True:
                self._look_after_cluster()
                self._hand_out(distributed)
                if self.is_cut and not self.running and not self.again:
                    break
                if not self._await_some(distributed):
                    yield None
                yield from self._collect(distributed)
        finally:
            if self.running and self.client.status == "running":
                self.client.cancel(list(self.running))
        if self.given_up:
            raise WorkerError(f"Some rows could not be extracted; all others are cached:\n{listed(self.given_up)}")

    def _await_some(self, distributed: ModuleType) -> bool:
        """Wait until a part is done; False if none is after ``TICK_SECONDS``, or if parts got lost."""
        if not self.running:
            time.sleep(TICK_SECONDS)
            return False
        try:
            with self.client.as_current():
                distributed.wait(list(self.running), timeout=TICK_SECONDS, return_when="FIRST_COMPLETED")
        except (TimeoutError, distributed.CancelledError):
            return False
        return True

    def _workers(self) -> frozenset[str]:
        """Return the addresses of the workers that were there a moment ago and have not been in trouble."""
        if self.client.status != "running":
            return frozenset()
        if time.monotonic() - self.asked > TICK_SECONDS:  # a call to the scheduler
            self.workers = frozenset(self.client.scheduler_info(n_workers=-1)["workers"])
            self.asked = time.monotonic()
        return self.workers - self.in_trouble.keys()

    def _look_after_cluster(self) -> None:
        """Wait for a scheduler and workers, but not for ever; take back what only workers that are gone may do."""
        workers = self._workers()
        if workers:
            self.last_seen = time.monotonic()
        elif self.in_trouble and self.client.status == "running":
            raise WorkerError(f"No worker could go on; what was extracted is cached:\n{listed(self._troubles())}")
        elif time.monotonic() - self.last_seen > PATIENCE_SECONDS:
            raise WorkerError(
                f"The cluster has had no scheduler or no workers for {PATIENCE_SECONDS:.0f} s. Run the same command "
                "again once it is back: what was extracted is cached."
            )
        for future, (part, allowed) in [*self.running.items()]:
            if allowed and workers and not allowed & workers:
                del self.running[future]
                self.client.cancel([future])
                self.again.append(part)

    def _hand_out(self, distributed: ModuleType) -> None:
        workers = self._workers()
        # Free to go to workers that come later, unless one has to be kept out.
        allowed = workers if self.in_trouble else frozenset[str]()
        while len(self.running) < PARTS_AHEAD * len(workers):
            if not self._send_order(distributed):
                return
            part = self.again.popleft() if self.again else next(self.parts, None)
            if part is None:
                self.is_cut = True
                return
            future = self.client.submit(
                self.function, self.sent, *self.arguments(part), workers=sorted(allowed) or None, pure=False
            )
            self.running[future] = (part, allowed)

    def _send_order(self, distributed: ModuleType) -> bool:
        """Have the order on every worker; False if they have just gone."""
        if self.sent is None:
            try:
                self.sent = self.client.scatter(self.order, broadcast=True, hash=False)
            except (OSError, TimeoutError, distributed.CancelledError) as exc:
                logger.warning("the job's order does not reach the workers: %s", exc)
                return False
        return True

    def _collect(self, distributed: ModuleType) -> Iterator["PartReport"]:
        for future, (part, _) in [*self.running.items()]:
            match future.status:
                case "finished":
                    report: PartReport = future.result()
                    if report.trouble:
                        self.in_trouble[report.worker] = report.trouble
                        self.again.append(part)
                    else:
                        yield report
                case "error":
                    self._note_error(part, future.exception(), distributed)
                case "cancelled" | "lost":  # by a scheduler that is gone, with all that was sent to its workers
                    logger.warning("rows %d to %d are handed out again", part.start, part.stop - 1)
                    self.again.append(part)
                    self.sent = None
                case _:
                    continue
            self.running.pop(future, None)

    def _note_error(self, part: range, error: BaseException, distributed: ModuleType) -> None:
        if not isinstance(error, distributed.scheduler.KilledWorker):
            raise error
        self.given_up.append(
            f"rows {part.start} to {part.stop - 1}: every worker that tried died, {error.last_worker.address} the last"
        )

    def _troubles(self) -> list[str]:
        return [f"{worker}: {trouble}" for worker, trouble in self.in_trouble.items()]


def _connect(distributed: ModuleType, scheduler: str) -> Any:
    """Return a client that waits for a scheduler that has gone, but not for one that was never there."""
    try:
        distributed.Client(scheduler, set_as_default=False, timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError) as exc:
        raise WorkerError(f"No Dask scheduler answers at {scheduler}: {exc}. Start one with: dask scheduler") from exc
    return distributed.Client(scheduler, set_as_default=False, timeout=PATIENCE_SECONDS)


def _wait_for_workers(client: Any, n_workers: int) -> None:
    try:
        client.wait_for_workers(n_workers, timeout=PATIENCE_SECONDS)
    except TimeoutError as exc:
        raise WorkerError(
            f"The scheduler {client.scheduler.address} has fewer than {n_workers} workers after "
            f"{PATIENCE_SECONDS:.0f} s. Start some with: dask worker {client.scheduler.address} --nthreads 1"
        ) from exc


def _current(distributed: ModuleType) -> Any:
    try:
        return distributed.get_client()
    except ValueError as exc:
        raise WorkerError(
            "engine='dask' needs a cluster. Name its scheduler (tcp://HOST:8786), or make a dask.distributed.Client "
            "first."
        ) from exc


def _distributed() -> ModuleType:
    require("dask", extra="dask")
    return require("distributed", extra="dask")
