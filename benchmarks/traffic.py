"""Speed and memory of reading a request log: `python -m benchmarks.traffic [--requests 10000000] [--gzip]`.

A CSV log of the Azure traces' form is made in a temporary folder, then read and profiled in a process of its own, whose
peak memory is printed beside that of one which only imports the reader. The file is removed. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CHUNK = 500_000
START = np.datetime64("2024-01-01T00:00:00", "us")
READ = """
import sys, time
from pathlib import Path
from autotune.traffic import read_traffic
if len(sys.argv) > 1:
    begin, used = time.perf_counter(), time.process_time()
    log = read_traffic(sys.argv[1])
    read, read_used = time.perf_counter() - begin, time.process_time() - used
    profile = log.profile()
    whole, whole_used = time.perf_counter() - begin, time.process_time() - used
    print(log.num_requests, read, read_used, whole, whole_used, profile.rate.mean_per_s, end=" ")
# not getrusage: its peak is that of the parent where that was larger
held = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(held["VmHWM"].split()[0]) * 1024)
"""


def write_log(path: Path, requests: int, *, packed: bool) -> None:
    """Poisson arrivals at 1,000 requests/s, log-normal lengths."""
    random = np.random.default_rng(1)
    at_us = 0.0
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as out:
        out.write(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for done in range(0, requests, CHUNK):
            count = min(CHUNK, requests - done)
            times = at_us + random.exponential(1000.0, count).cumsum()
            at_us = float(times[-1])
            stamps = np.datetime_as_string(START + times.astype("timedelta64[us]"), unit="us").tolist()
            prompts = np.maximum(random.lognormal(6.5, 1.0, count), 1.0).astype(np.int64).tolist()
            outputs = np.maximum(random.lognormal(5.0, 0.8, count), 1.0).astype(np.int64).tolist()
            rows = zip(stamps, prompts, outputs, strict=True)
            out.write("".join(f"{t.replace('T', ' ')},{p},{o}\n" for t, p, o in rows).encode())


def measured(*arguments: str) -> list[float]:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", READ, *arguments], check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Print requests per second, and bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--gzip", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("log.csv.gz" if given.gzip else "log.csv")
        write_log(path, given.requests, packed=given.gzip)
        size = path.stat().st_size
        count, read_s, read_cpu_s, whole_s, whole_cpu_s, rate, peak = measured(str(path))
        (bare,) = measured()
    print(f"{count:,.0f} requests, {size / 1e6:,.0f} MB {'gzip' if given.gzip else 'CSV'}, mean rate {rate:,.1f}/s")
    for what, wall_s, cpu_s in (("read", read_s, read_cpu_s), ("read and profiled", whole_s, whole_cpu_s)):
        print(
            f"{what}: {wall_s:.1f} s, {count / wall_s:,.0f} requests/s; "
            f"{cpu_s:.1f} s of processor time, {count / cpu_s:,.0f} requests per second of it"
        )
    print(f"peak memory {peak / 1e6:,.0f} MB, of which imports {bare / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
