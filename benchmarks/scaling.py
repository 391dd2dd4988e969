"""Frames per second with 1 and 2 workers in threads, processes and dask's local cluster, against this thread alone.

    python benchmarks/scaling.py [FRAMES] [ROUNDS]

All pools are warm and stay open; each round times them one after the other, and ratios are medians over the rounds. The
cost of a chunk is what 64 chunks of one frame take longer than two of 32, per chunk and worker: this thread's own is
that of calling the stages, what others have above it is the way to the worker and back. Ends with one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from saxs_pipeline import engine
from saxs_pipeline.engine_config import Engine
from saxs_pipeline.plan import Plan, pieces, prepare
from saxs_pipeline.runfile import load
from saxs_pipeline.simulation import simulate

CHUNK = 32
SCHEDULERS = ("threads", "processes", "local")
PLACES = {"synchronous": Engine(scheduler="synchronous", workers=1)} | {
    f"{name} {n}": Engine(scheduler=name, workers=n) for name in SCHEDULERS for n in (1, 2)
}


def timed(pool: engine.Pool, plan: Plan, frames: int, size: int) -> float:
    start = time.perf_counter()
    pool.run(plan, pieces(range(frames), size), lambda chunk: None)
    return time.perf_counter() - start


def measure(plan: Plan, rounds: int) -> tuple[dict[str, float], dict[str, list[float]], dict[str, list[float]]]:
    """Seconds until the workers have processed their first frames; per round: frames per second, ms per chunk."""
    started: dict[str, float] = {}
    rates: dict[str, list[float]] = {name: [] for name in PLACES}
    costs: dict[str, list[float]] = {name: [] for name in PLACES}
    with ExitStack() as stack:
        pools = {}
        for name, where in PLACES.items():
            start = time.perf_counter()
            pools[name] = stack.enter_context(engine.pool(where))
            timed(pools[name], plan, 2 * CHUNK, 1)
            started[name] = time.perf_counter() - start
        for _ in range(rounds):
            for name, pool in pools.items():
                rates[name].append(len(plan) / timed(pool, plan, len(plan), CHUNK))
                longer = timed(pool, plan, 2 * CHUNK, 1) - timed(pool, plan, 2 * CHUNK, CHUNK)
                costs[name].append(1e3 * longer * engine.workers(PLACES[name]) / (2 * CHUNK - 2))
    return started, rates, costs


def ratio(rates: dict[str, list[float]], name: str, to: str) -> float:
    return round(statistics.median(a / b for a, b in zip(rates[name], rates[to], strict=True)), 2)


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 575
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as work:
        plan = prepare(load(simulate("id02-cdse", Path(work) / "beamtime", frames=frames)))
        started, rates, costs = measure(plan, rounds)
    print(f"{'':<13}{'start/s':>9}{'frames/s':>10}{'ratio':>7}{'ms/chunk':>10}")
    for name in PLACES:
        numbers = statistics.median(rates[name]), ratio(rates, name, "synchronous"), statistics.median(costs[name])
        print(f"{name:<13}{started[name]:9.2f}{numbers[0]:10.0f}{numbers[1]:7.2f}{numbers[2]:10.2f}")
    summary = {
        "name": "scaling",
        "ratios": {name: ratio(rates, name, "synchronous") for name in PLACES if name != "synchronous"},
        "speed_up": {name: ratio(rates, f"{name} 2", f"{name} 1") for name in SCHEDULERS},
        "frames": frames,
        "frames_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "ms_per_chunk": {name: round(statistics.median(values), 2) for name, values in costs.items()},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
