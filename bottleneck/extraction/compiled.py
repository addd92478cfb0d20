"""``torch.compile`` with freezing, where the images still to come pay for it.

Compiling takes seconds to minutes and makes the forward pass a little faster: 1.05 to 1.2 times on processors
without matrix units, up to 1.6 times on those with. torch keeps what was compiled on disk
(``TORCHINDUCTOR_CACHE_DIR``), so that later processes take a fraction of the time.
"""

import copy
import logging
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from bottleneck.backbones.base import PENULTIMATE
from bottleneck.extraction.agreement import MIN_COSINE, lowest_cosine
from bottleneck.extraction.devices import Precision, in_precision
from bottleneck.extraction.tapped import TappedNetwork

logger = logging.getLogger(__name__)

CompileSetting = Literal["auto"] | bool

PRIOR_COMPILE_SECONDS = 30.0
"""Before anything has been compiled here: 10 to 100 s were seen for ResNets and MobileNets on one core."""
PRIOR_GAIN, PRIOR_GAIN_WITH_MATRIX_UNITS = 1.1, 1.4
"""Eager seconds by compiled seconds: 1.03 to 1.12 on AVX-512, 1.1 (resnet50) to 1.6 (mobilenet_v2) with AMX."""
SAFETY = 2.0
"""The time saved must be this many times the time that compiling takes: both are forecasts."""
TIMED_CALLS = 3

_compiling = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileFacts:
    """What compiling took and what it gained (eager by compiled seconds), seen or supposed."""

    compile_seconds: float
    gain: float


def supposed_facts(*, matrix_units: bool) -> CompileFacts:
    """Return what to suppose of a network that has never been compiled here."""
    gain = PRIOR_GAIN_WITH_MATRIX_UNITS if matrix_units else PRIOR_GAIN
    return CompileFacts(compile_seconds=PRIOR_COMPILE_SECONDS, gain=gain)


def compiling_pays(images_left: int, eager_seconds_per_image: float, facts: CompileFacts) -> bool:
    """Say whether so many images save more time than compiling takes, with some safety."""
    saved = images_left * eager_seconds_per_image * (1 - 1 / facts.gain) if facts.gain > 0 else 0.0
    return saved > SAFETY * facts.compile_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchKind:
    """What one compiled function is good for: pixels of one shape, in one arithmetic, on a lane of some threads."""

    shape: tuple[int, ...]
    precision: Precision
    threads: int


Forward = Callable[[Tensor], dict[str, Tensor]]


class CompiledNetworks:
    """The compiled functions of one prepared network, by kind of batch."""

    def __init__(self, network: TappedNetwork) -> None:
        self._network = network
        self._settled: dict[BatchKind, Forward | None] = {}

    def ready_for(self, kind: BatchKind) -> Forward | None:
        """Return the compiled function for such batches, if there is one."""
        return self._settled.get(kind)

    def is_settled(self, kind: BatchKind) -> bool:
        """Say whether compiling for such batches has been tried."""
        return kind in self._settled

    def settle(self, kind: BatchKind, pixels: Tensor) -> CompileFacts | None:
        """Compile for one kind of batch, with one as example, and use the result if it is faster and agrees.

        Returns what compiling took and gained, or None where it cannot be done. To be called with the number of
        threads that the function is for.
        """
        with _compiling, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's compiler uses what torch deprecates
            if kind in self._settled:
                return None
            self._settled[kind] = None  # whatever happens below, once is enough
            try:
                forward = _compile(self._network, threads=kind.threads)
                return None if forward is None else self._check(kind, forward, pixels)
            except (RuntimeError, OSError) as exc:  # torch's compiler has many, all RuntimeErrors; files may fail too
                reason = str(exc).strip().splitlines()
                logger.info("not compiled: %s (%s)", type(exc).__name__, reason[0] if reason else "no reason given")
                return None

    def _check(self, kind: BatchKind, forward: Forward, pixels: Tensor) -> CompileFacts:
        """Compile, compare with float32, time against the network as it is, and decide."""
        device = self._network.device
        began = time.perf_counter()
        with in_precision(kind.precision, device):
            layers = forward(pixels)
            compile_seconds = time.perf_counter() - began
            eager, compiled = _seconds_of_both(self._network, forward, pixels)
        exact = self._network(pixels)
        cosine = lowest_cosine(_as_arrays(layers), _as_arrays(exact))
        facts = CompileFacts(compile_seconds=compile_seconds, gain=eager / compiled)
        logger.info("compiled in %.1f s: %.2f times as fast, cosine %.6f", compile_seconds, facts.gain, cosine)
        if cosine >= MIN_COSINE and facts.gain > 1:
            self._settled[kind] = forward
        return facts


def _compile(network: TappedNetwork, *, threads: int) -> Forward | None:
    """Return a function that compiles the network at its first call, or None where the network cannot be traced."""
    traced = _trace(network)
    if traced is None:
        return None
    # Generated code has its number of threads built in, whatever the thread that calls it is set to.
    options: dict[str, str | int | bool | Callable[..., object]] = {"freezing": True, "cpp.threads": threads}
    compiled = torch.compile(traced, dynamic=False, options=options)
    names = [PENULTIMATE, *(stage.name for stage in network.stages)]

    def forward(pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            images = network.preprocess.normalise(pixels.to(network.device))
            return dict(zip(names, compiled(images), strict=True))

    return forward


def _seconds_of_both(eager: Forward, compiled: Forward, pixels: Tensor) -> tuple[float, float]:
    """Return the shortest wall time of a call of each, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED_CALLS):
        for forward, times in zip((eager, compiled), seconds, strict=True):
            began = time.perf_counter()
            forward(pixels)
            times.append(time.perf_counter() - began)
    return min(seconds[0]), min(seconds[1])


def _as_arrays(layers: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {layer: features.float().cpu().numpy() for layer, features in layers.items()}


class _Recorder(fx.Tracer):
    """A tracer that notes what each module returned."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, fx.Proxy] = {}

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.returned[self.path_of_module(m)] = output
        return output


class _AllLayers(nn.Module):
    """Normalised pixels to a tuple of every layer's features, as ``TappedNetwork`` computes them, without its taps."""

    def __init__(self, tapped: TappedNetwork, recorder: _Recorder) -> None:
        super().__init__()
        self.network = _without_taps(tapped)
        self._stages = tapped.stages
        self._returned = recorder.returned

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        penultimate = self.network(images).float()
        # While this runs, proxies stand for tensors.
        pooled = [stage.pool(self._returned[f"network.{stage.module}"]) for stage in self._stages]  # type: ignore[arg-type]
        return (penultimate, *pooled)


def _trace(tapped: TappedNetwork) -> fx.GraphModule | None:
    """Return the network as a graph that returns every layer, or None where torch.fx cannot follow it."""
    recorder = _Recorder()
    layers = _AllLayers(tapped, recorder)
    try:
        graph = recorder.trace(layers)
    except Exception as exc:  # noqa: BLE001  tracing runs the user's forward, which may raise anything
        logger.info("not compiled: %s cannot be traced (%s)", type(tapped.network).__name__, exc)
        return None
    return fx.GraphModule(layers, graph)


def _without_taps(tapped: TappedNetwork) -> nn.Module:
    """Return a copy of the modules that shares every tensor with the tapped ones."""
    network = tapped.network
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    bare = copy.deepcopy(network, shared)
    for stage, tap in zip(tapped.stages, tapped.taps, strict=True):
        del bare.get_submodule(stage.module)._forward_hooks[tap.id]
    return bare
