"""The benchmark that checks a plan where it runs: the engine's client, with the study's workload."""

from __future__ import annotations

from math import ceil

from autotune.engines import ENGINES
from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.service import BenchLoad, Service

ROUNDS = 10
"""Requests per place in flight: with 10, start and end are a small part of the run (as InferenceMAX does)."""
RATE_S = 300
"""Length of a run with a given rate of arrivals."""


def in_flight(load: BenchLoad, replicas: int, of: int) -> int:
    """The share of the load's concurrency that so many of all replicas take, rounded up."""
    return max(ceil(load.concurrency * replicas / of), 1)


def rate(load: BenchLoad, replicas: int, of: int) -> float | None:
    """The share of the load's arrivals per second, where it gives a rate."""
    return None if load.request_rate_per_s is None else load.request_rate_per_s * replicas / of


def share_of_load(load: BenchLoad, replicas: int, of: int) -> str:
    """What the client is told to drive so many of all replicas with: requests per second where the study gives a rate,
    else requests in flight."""
    per_s = rate(load, replicas, of)
    return str(in_flight(load, replicas, of)) if per_s is None else f"{per_s:.6g}"


def bench_command(service: Service, drive: Drive) -> BenchCommand:
    """The command of one run, every option checked against the client's own list.

    Raises:
        InputError: the client of this version has no option for something in it.
    """
    engine = ENGINES[service.engine]
    return engine.benchmark(service, engine.bench_options(service.version), drive)


def fixed_command(
    service: Service, *, base_url: str, folder: str, replicas: int, of: int, openai_alone: bool = False
) -> BenchCommand:
    """A run of which nothing is left to a script: against `replicas` of all behind one address.

    The result lies in `folder` under the client's own name for it; `openai_alone` is as in `Drive`. Raises `InputError`
    as `bench_command`.
    """
    load, flight = service.load, in_flight(service.load, replicas, of)
    per_s = rate(load, replicas, of)
    drive = Drive(
        base_url=base_url,
        result=f"{folder}/{ENGINES[service.engine].bench_result}",
        load=share_of_load(load, replicas, of),
        prompts=str(ROUNDS * flight if per_s is None else max(ceil(per_s * RATE_S), 1)),
        warmups=str(flight if per_s is None else 1),
        replicas=str(replicas),
        openai_alone=openai_alone,
    )
    return bench_command(service, drive)
