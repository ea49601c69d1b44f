"""Engines from entries of the models file. A kind's library is imported when its engine loads, not before."""

import sys
from dataclasses import fields
from typing import Protocol

from worker.engines.base import Bounds, WeightSource
from worker.engines.child_process.engine import UdsEngine
from worker.engines.contract import Engine
from worker.engines.devices import Device
from worker.engines.emulated import EmulatedEngine
from worker.engines.http.calls import ModelServer, Patience
from worker.engines.http.engine import HttpEngine
from worker.engines.latent.engine import LatentEngine
from worker.engines.pipeline.engine import PipelineEngine


class ModelEntry(Protocol):
    """What the models file says of one model; infra.models.ModelEntry fits."""

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def in_process(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def min_width(self) -> int: ...
    @property
    def config(self) -> str: ...
    @property
    def max_width(self) -> int: ...
    @property
    def min_height(self) -> int: ...
    @property
    def max_height(self) -> int: ...
    @property
    def min_num_inference_steps(self) -> int: ...
    @property
    def max_num_inference_steps(self) -> int: ...
    @property
    def min_guidance_scale(self) -> float: ...
    @property
    def max_guidance_scale(self) -> float: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def step_ms(self) -> float: ...
    @property
    def alpha(self) -> float: ...
    @property
    def api(self) -> str: ...
    @property
    def api_key_env(self) -> str: ...
    @property
    def remote_name(self) -> str: ...
    @property
    def request_timeout_s(self) -> float: ...


def build(entry: ModelEntry, *, torch_threads: int, load_s: float = 600.0) -> Engine:
    """The engine of one model, not loaded yet. `load_s`: how many seconds an engine process may take to load it. Raises
    ValueError for an unknown kind.
    """
    match entry.engine:
        case "uds":
            served = _in_process(entry, entry.in_process, torch_threads)
            command = (sys.executable, "-m", "worker", "engine-server", "--model", entry.name)
            return UdsEngine(served, command, load_deadline_s=load_s)
        case "http":
            server = ModelServer(
                base=entry.source,
                api=entry.api,
                remote_name=entry.remote_name,
                api_key_env=entry.api_key_env,
                revision=entry.revision,
            )
            return HttpEngine(
                entry.name,
                server,
                max_batch=entry.max_batch,
                bounds=_bounds(entry),
                patience=Patience(timeout_s=entry.request_timeout_s),
            )
        case kind:
            return _in_process(entry, kind, torch_threads)


def _in_process(entry: ModelEntry, kind: str, torch_threads: int) -> Engine:
    weights = WeightSource(model=entry.name, source=entry.source, revision=entry.revision, config=entry.config)
    device = Device(name=entry.device, dtype=entry.dtype, threads=torch_threads)
    match kind:
        case "emulated":
            return EmulatedEngine(
                model=entry.name,
                step_s=entry.step_ms / 1000,
                alpha=entry.alpha,
                max_batch=entry.max_batch,
                bounds=_bounds(entry),
            )
        case "latent":
            return LatentEngine(weights, device, max_batch=entry.max_batch, bounds=_bounds(entry))
        case "pipeline":
            engine = PipelineEngine(weights, device, max_batch=entry.max_batch, bounds=_bounds(entry))
            engine.look()
            return engine
        case _:
            raise ValueError(f"unknown engine {kind!r}")


def _bounds(entry: ModelEntry) -> Bounds:
    return Bounds(**{each.name: getattr(entry, each.name) for each in fields(Bounds)})
