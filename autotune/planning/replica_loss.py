"""Replicas that are lost under load: their requests are sent again, the others serve more, and then they come back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autotune.simulation.simulate_plan import PlanSimulation
from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.requests import Requests
from costmodel.simulation.served import Served
from costmodel.simulation.simulate import simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEvent:
    """What is lost when, and for how long."""

    at_s: float
    lost: int
    """Replicas, the last ones."""
    detect_s: float
    """Until requests go elsewhere; those that the lost replicas hold are sent again then."""
    back_s: float
    """From the loss until the replicas serve again; infinite: not within the simulation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRun:
    """The same requests without and with the loss."""

    without: Served
    with_loss: Served
    """Times are from the first arrival of a request, however often it was sent."""
    retried: int


def run_loss(simulation: PlanSimulation, requests: Requests, replicas: int, event: LossEvent) -> LossRun:
    """Serve requests in turn by replicas of which some are lost.

    `replicas` is their number before the loss, more than are lost.
    """
    number = np.arange(len(requests))
    turn = number % replicas
    without = _serve(simulation, requests, turn, replicas)
    back = event.at_s + event.back_s
    left = replicas - event.lost
    arrival = requests.arrival_s
    doomed = turn >= left
    caught = doomed & (arrival < event.at_s) & (without.finish_s > event.at_s)
    sent_in_vain = doomed & (arrival >= event.at_s) & (arrival < event.at_s + event.detect_s)
    again = caught | sent_in_vain
    away = (arrival >= event.at_s + event.detect_s) & (arrival < back)
    moved = again | away
    sent = np.where(again, event.at_s + event.detect_s, arrival)
    to = np.where(moved, number % left, turn)
    order = np.argsort(sent, kind="stable")
    later = replace(requests, arrival_s=sent).take(order)
    found = _serve(simulation, later, to[order], replicas)
    first, finish = np.empty(len(requests)), np.empty(len(requests))
    first[order], finish[order] = found.first_token_s, found.finish_s
    # what a lost replica had served before is as it was: it had its other requests beside it
    through = doomed & (arrival < event.at_s) & ~caught
    first[through], finish[through] = without.first_token_s[through], without.finish_s[through]
    return LossRun(
        without=without,
        with_loss=Served(requests=requests, first_token_s=first, finish_s=finish),
        retried=int(again.sum()),
    )


def _serve(simulation: PlanSimulation, requests: Requests, replica: Ints, replicas: int) -> Served:
    """Each replica with its own requests."""
    model = simulation.server.paced(simulation.forecast.errors.pace)
    first: Floats = np.full(len(requests), np.inf)
    finish: Floats = np.full(len(requests), np.inf)
    for i in range(replicas):
        index = np.flatnonzero(replica == i)
        if index.size:
            served = simulate(model, requests.take(index)).served
            first[index], finish[index] = served.first_token_s, served.finish_s
    return Served(requests=requests, first_token_s=first, finish_s=finish)
