"""Reading traffic: real traces, every form, what is wrong with lines, and bounded memory."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.traffic.drift import traffic_drift
from autotune.traffic.profile import profile_from_json, profile_of_arrays
from autotune.traffic.read import read_traffic
from autotune.traffic.requests import Gathered
from costmodel.errors import InputError
from tests.conftest import DATA
from tests.traffic.helpers import iso

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def written(tmp_path: Path, text: str | bytes, name: str = "log.csv") -> str:
    """A file with this content."""
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "requests", "prompt", "span_s"), [("code", 1200, 2073.1825, 572.9), ("conv", 3000, 1150.1027, 628.7)]
)
def test_azure_traces(name: str, requests: int, prompt: float, span_s: float) -> None:
    """Both real traces: every request, and the means and the span that a plain sum gives."""
    log = read_traffic(str(DATA / f"azure_llm_2023_{name}.csv"))
    assert (log.form, log.num_requests, log.refusal, dict(log.problems)) == ("csv", requests, None, {})
    profile = log.profile()
    assert profile.prompt_mean == pytest.approx(prompt, rel=1e-6)
    assert profile.span_s == pytest.approx(span_s, abs=0.1)
    assert sum(p.weight for p in profile.points) == pytest.approx(1.0)
    assert sum(p.weight * p.isl for p in profile.points) == pytest.approx(profile.prompt_mean)
    assert profile_from_json(json.loads(json.dumps(profile.to_json()))) == profile


def test_csv_by_hand(tmp_path: Path) -> None:
    """Three requests: times, lengths, a rate, and a window that leaves the first one out."""
    rows = "2023-11-16 18:00:00.5,10,1\n2023-11-16 18:01:00.5,20,2\n2023-11-16T18:02:00.5Z,30,3\n"
    source = written(tmp_path, HEADER + rows)
    log = read_traffic(source)
    assert log.columns is not None
    assert log.columns.times_s.tolist() == [1700157600.5, 1700157660.5, 1700157720.5]
    assert (log.columns.prompt.tolist(), log.columns.output.tolist()) == ([10, 20, 30], [1, 2, 3])
    assert log.profile().rate.mean_per_s == pytest.approx(3 / 120)
    late = read_traffic(source, window_s=90.0)
    assert late.num_requests == 2
    assert late.fingerprint != log.fingerprint
    assert read_traffic(source, window_s=90.0).fingerprint == late.fingerprint


def test_what_is_wrong_is_counted(tmp_path: Path) -> None:
    """One line of each kind of problem among good ones; the clock's jump is no lost line."""
    good = [f"2023-11-16 18:{i // 60:02d}:{i % 60:02d}.0,100,10" for i in range(600)]
    bad = [
        "2023-11-16 18:03:00.0,-5,10",
        "2023-11-16 18:03:00.0,99999999999,10",
        "2023-11-16 18:03:00.0,0,10",
        "yesterday,100,10",
        "2023-11-16 18:03:00.0,abc,10",
        "2023-11-16 18:03:00.0,100",
    ]
    log = read_traffic(written(tmp_path, HEADER + "\n".join([*good, *bad, good[0]]) + "\n2023-11-16 18:0"))
    assert log.refusal is None
    assert log.problems == {
        "absurd_tokens": 1, "bad_time": 1, "clock_jump": 1, "malformed": 1, "negative_tokens": 1, "no_tokens": 1,
        "truncated": 2,
    }  # fmt: skip
    assert log.num_requests == 601
    refused = read_traffic(written(tmp_path, HEADER + "\n".join(good[:20] + bad) + "\n"))
    assert refused.refusal is not None
    assert "of the lines are of no use, more than 5%" in refused.refusal
    with pytest.raises(ValueError, match="no profile of a refused window"):
        refused.profile()


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "it is empty"), (HEADER, "no request in the window"), (HEADER + "2023-11-16 18:00:00,5,5\n", "one instant")],
)
def test_nothing_to_judge(tmp_path: Path, text: str, reason: str) -> None:
    """Empty files, headers alone and one instant are refused with their reason, not crashed on."""
    refusal = read_traffic(written(tmp_path, text)).refusal
    assert refusal is not None
    assert reason in refusal


def test_an_empty_window_is_refused(tmp_path: Path) -> None:
    """The log has requests, but none in the hour before now."""
    source = written(tmp_path, HEADER + "2023-11-16 18:00:00,5,5\n2023-11-16 18:01:00,5,5\n")
    log = read_traffic(source, window_s=3600.0, now_s=1700157600.0 + 86400.0)
    assert log.refusal == "there is no request in the window (2 lines read)"


def test_mooncake(tmp_path: Path) -> None:
    """Milliseconds from the start; blocks that were seen before are shared prefixes of 512 tokens each."""
    lines = [
        {"timestamp": 0, "input_length": 1024, "output_length": 10, "hash_ids": [1, 2]},
        {"timestamp": 2000, "input_length": 1536, "output_length": 20, "hash_ids": [1, 2, 3]},
        {"timestamp": 4000, "input_length": 512, "output_length": 30, "hash_ids": [9]},
    ]
    log = read_traffic(written(tmp_path, "\n".join(map(json.dumps, lines)), "log.jsonl"))
    profile = log.profile()
    assert (log.form, log.num_requests, log.end_s) == ("jsonl", 3, 4.0)
    assert profile.shared_prefix_frac == pytest.approx(1024 / 3072)
    assert profile.output_mean == 20.0


def test_other_blocks_are_other_traffic(tmp_path: Path) -> None:
    """Logs that differ in the blocks of one prompt alone share other prefixes, and no trials."""

    def fingerprint(third: list[int]) -> str:
        rows = [
            {"timestamp": 1000 * i, "input_length": 1024, "output_length": 10, "hash_ids": ids}
            for i, ids in enumerate(([1, 2], [3, 4], third))
        ]
        return read_traffic(written(tmp_path, "\n".join(map(json.dumps, rows)), "log.jsonl")).fingerprint

    assert fingerprint([1, 2]) != fingerprint([3, 4])
    assert fingerprint([1, 2]) == fingerprint([1, 2])


def test_openai_access_log(tmp_path: Path) -> None:
    """Usage fields wherever the server puts them; requests that failed are left out and said."""
    lines = [
        {"created": 1700000000, "usage": {"prompt_tokens": 100, "completion_tokens": 10}},
        {
            "time": "2023-11-14T22:13:30Z",
            "response": {
                "body": {
                    "usage": {
                        "prompt_tokens": 300,
                        "completion_tokens": 30,
                        "prompt_tokens_details": {"cached_tokens": 150},
                    }
                }
            },
        },
        {"created": 1700000020, "status": 503, "usage": {"prompt_tokens": 100, "completion_tokens": 10}},
        {"created": 1700000030, "usage": {"prompt_tokens": 200, "completion_tokens": 20}},
    ]
    log = read_traffic(written(tmp_path, "\n".join(map(json.dumps, lines)) + "\n", "log.jsonl"))
    assert (log.num_requests, log.failed) == (3, 1)
    profile = log.profile()
    assert profile.prompt_mean == 200.0
    assert profile.shared_prefix_frac == pytest.approx(150 / 300)
    assert any("not served" in text for text in profile.assumptions)


def test_gzip_in_members_and_cut_off(tmp_path: Path) -> None:
    """Appended members read as one log; one that is still written is counted as truncated, damage is refused."""
    rows = [f"2023-11-16 18:00:{i:02d},{i + 1},5\n" for i in range(60)]
    whole = gzip.compress((HEADER + "".join(rows[:30])).encode()) + gzip.compress("".join(rows[30:]).encode())
    assert read_traffic(written(tmp_path, whole, "log.gz")).num_requests == 60
    random = np.random.default_rng(1)
    long = HEADER + "".join(
        f"2023-11-16 18:{i // 60:02d}:{i % 60:02d},{random.integers(1, 9999)},5\n" for i in range(3600)
    )
    packed = gzip.compress(long.encode())
    cut = read_traffic(written(tmp_path, packed[: len(packed) // 2], "log.gz"))
    assert cut.num_requests > 100
    assert cut.problems["truncated"] >= 1
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 40] = bytes(40)
    refusal = read_traffic(written(tmp_path, bytes(damaged), "log.gz")).refusal
    assert refusal is not None
    assert "damaged" in refusal or "no use" in refusal


def test_memory_is_bounded() -> None:
    """Ten times more rows than are held: thinned, and the mean rate still counts all of them."""
    gathered = Gathered(max_rows=10_000)
    for block in range(100):
        times = block * 10.0 + np.arange(1000) / 100.0
        tokens = np.full(1000, 7, dtype=np.int32)
        gathered.add(times, tokens, tokens)
    columns = gathered.columns()
    assert columns.times_s.size <= 10_000
    assert columns.times_s.size * columns.requests_each == pytest.approx(100_000, rel=0.05)


METRICS = """# HELP process_start_time_seconds Start time
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.7e9
# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{le="100.0",model_name="m"} 50.0
vllm:request_prompt_tokens_bucket{le="1000.0",model_name="m"} 100.0
vllm:request_prompt_tokens_bucket{le="+Inf",model_name="m"} 100.0
vllm:request_prompt_tokens_sum{model_name="m"} 30000.0
vllm:request_prompt_tokens_count{model_name="m"} 100.0
# TYPE vllm:request_generation_tokens histogram
vllm:request_generation_tokens_bucket{le="10.0",model_name="m"} 0.0
vllm:request_generation_tokens_bucket{le="100.0",model_name="m"} 100.0
vllm:request_generation_tokens_bucket{le="+Inf",model_name="m"} 100.0
vllm:request_generation_tokens_sum{model_name="m"} 5000.0
vllm:request_generation_tokens_count{model_name="m"} 100.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 100.0
vllm:time_to_first_token_seconds_sum{model_name="m"} 25.0
vllm:time_to_first_token_seconds_count{model_name="m"} 100.0
"""


def test_one_scrape(tmp_path: Path) -> None:
    """Counters since the server's start: means as the sums say, the rate over its life, TTFT as it was served."""
    log = read_traffic(written(tmp_path, METRICS, "metrics"), now_s=1.7e9 + 200.0)
    profile = log.profile()
    assert (log.form, log.num_requests) == ("prometheus", 100)
    assert profile.prompt_mean == pytest.approx(300.0)
    assert profile.output_mean == pytest.approx(50.0)
    assert profile.rate.mean_per_s == pytest.approx(0.5)
    assert any("mean TTFT of 0.25 s" in text for text in profile.assumptions)
    without = METRICS.replace("process_start_time_seconds 1.7e9\n", "")
    refusal = read_traffic(written(tmp_path, without, "metrics")).refusal
    assert refusal is not None
    assert "says no rate" in refusal


def matrix(name: str, labels: dict[str, str], values: list[float]) -> dict[str, object]:
    """A series of a range query, a sample a minute."""
    return {"metric": {"__name__": name, **labels}, "values": [[60.0 * i, str(v)] for i, v in enumerate(values)]}


def test_a_range_of_prometheus(tmp_path: Path) -> None:
    """Increases within the range, a restart counted from nought, the peak of the fullest minute."""
    count = [1000, 1060, 1120, 60, 180]
    result = []
    for name, bound in (("vllm:request_prompt_tokens", "256"), ("vllm:request_generation_tokens", "64")):
        result += [matrix(f"{name}_bucket", {"le": le}, count) for le in (bound, "+Inf")]
        result.append(matrix(f"{name}_count", {}, count))
        result.append(matrix(f"{name}_sum", {}, [c * 20 for c in count]))
    answer = {"status": "success", "data": {"resultType": "matrix", "result": result}}
    log = read_traffic(written(tmp_path, json.dumps(answer), "answer.json"))
    profile = log.profile()
    assert log.num_requests == 60 + 60 + 60 + 120
    assert profile.prompt_mean == pytest.approx(20.0, rel=0.01)  # a bucket has no length below one token
    assert profile.rate.mean_per_s == pytest.approx(300 / 240)
    assert profile.rate.peak_per_s == pytest.approx(2.0)


@contextmanager
def serving(content: bytes, *, wait_s: float = 0.0, status: int = 200) -> Iterator[str]:
    """A server on a free loopback port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            time.sleep(wait_s)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def test_an_endpoint() -> None:
    """Metrics over HTTP, gzip or not; an error status and a slow answer are one clear error."""
    for content in (METRICS.encode(), gzip.compress(METRICS.encode())):
        with serving(content) as address:
            assert read_traffic(address, now_s=1.7e9 + 100.0).num_requests == 100
    with serving(b"", status=503) as address, pytest.raises(InputError, match="answered 503"):
        read_traffic(address)
    with serving(METRICS.encode(), wait_s=2.0) as address, pytest.raises(InputError, match=r"within 0\.3 s"):
        read_traffic(address, timeout_s=0.3)
    with pytest.raises(InputError, match="http:// or https://"):
        read_traffic("file:///etc/passwd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello world\n1,2\n", "must be CSV whose header names a time"),
        ("# TYPE a counter\nvllm:x{ 1\n", "is not Prometheus' text format"),
        ('{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}', "is no answer of Prometheus"),
        ('{"status":"error","data":{},"error":"bad query"}', "bad query"),
    ],
)
def test_none_of_the_forms(tmp_path: Path, text: str, message: str) -> None:
    """One clear error."""
    with pytest.raises(InputError, match=message):
        read_traffic(written(tmp_path, text))
    with pytest.raises(InputError, match="cannot be read"):
        read_traffic(str(tmp_path / "no such file"))


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from(
        [HEADER, '{"timestamp": 1, "input_length": 5, "output_length": 5}\n', "# TYPE x counter\n", ""]
    ),
    body=st.one_of(
        st.binary(max_size=300),
        st.text(alphabet='0123456789,.-:T Z"{}[]eE\n\rnaif', max_size=300).map(str.encode),
    ),
    packed=st.booleans(),
)
def test_anything_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, head: str, body: bytes, packed: bool
) -> None:
    """Whatever follows a header, there is a log, a refusal or an InputError, and no other exception."""
    content = head.encode() + body
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(gzip.compress(content)[: -1 if len(body) % 2 else None] if packed else content)
    try:
        log = read_traffic(str(path))
    except InputError:
        return
    if log.refusal is None:
        assert log.profile().num_requests > 0


def test_rows_that_are_not_plain_read_the_same(tmp_path: Path) -> None:
    """The fast path over whole blocks and the slow one line by line agree."""
    random = np.random.default_rng(3)
    rows = [
        (1700157600 + int(t), int(p), int(o))
        for t, p, o in zip(np.sort(random.integers(0, 3000, 500)), *random.integers(1, 9999, (2, 500)), strict=True)
    ]
    stamp = [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(t)) for t, _, _ in rows]
    plain = HEADER + "".join(f"{s},{p},{o}\n" for s, (_, p, o) in zip(stamp, rows, strict=True))
    quoted = HEADER + "".join(f'"{s}"," {p}","{o}"\n' for s, (_, p, o) in zip(stamp, rows, strict=True))
    assert read_traffic(written(tmp_path, plain)).fingerprint == read_traffic(written(tmp_path, quoted)).fingerprint


TEXTS = ("plain", 'says ""no"", then\nleaves', "a\r\nb,c\n\nd", "")


def test_a_quoted_cell_may_hold_newlines(tmp_path: Path) -> None:
    """Prompts of several lines, with commas and quotes in them, are one request each, in pieces of a file as well."""
    rows = [(10.0 + i, 100 + i, 5 + i % 7, TEXTS[i % 4]) for i in range(8_000)]
    plain = HEADER + "".join(f"{iso(t)},{p},{o}\n" for t, p, o, _ in rows)
    quoted = "text," + HEADER + "".join(f'"{text}",{iso(t)},{p},{o}\n' for t, p, o, text in rows)
    found = read_traffic(written(tmp_path, quoted))
    assert found.fingerprint == read_traffic(written(tmp_path, plain)).fingerprint
    assert (found.lines, dict(found.problems)) == (8_000, {})


def test_a_torn_quote_costs_its_own_line(tmp_path: Path) -> None:
    """A line that ends within quotes is one bad line, whatever follows; the last of a file may be cut off there."""
    good = "".join(f'"a\nb",{iso(10.0 + i)},100,5\n' for i in range(200))
    torn = f'"tor\n"c\nd",{iso(300.0)},100,5\n'
    later = "".join(f'"e",{iso(400.0 + i)},100,5\n' for i in range(200))
    found = read_traffic(written(tmp_path, "text," + HEADER + good + torn + later + '"f\ng'))
    assert found.num_requests == 401
    assert sum(found.problems.values()) == 3


def test_thinned_traffic_that_never_changes_shows_no_burstiness() -> None:
    """Poisson arrivals of which each stands for fifty: the whole is hardly known, and no drift is found."""
    random = np.random.default_rng(5)
    profiles = []
    for _ in range(6):
        times = np.sort(random.random(random.poisson(600))) * 1800.0
        lengths = np.full(times.size, 100.0)
        profiles.append(profile_of_arrays(times, lengths, lengths, start_s=0.0, end_s=1800.0, requests_each=50.0))
    for new, old in pairwise(profiles):
        found = traffic_drift(new, old)
        assert not found.drifted
        assert found.burstiness.interval[0] <= 1.0 <= found.burstiness.interval[1]
        assert found.burstiness.ratio < 50.0


def test_bursts_are_drift() -> None:
    """The same requests in ten bunches instead of at random: the ratio's interval lies beyond what matters."""
    random = np.random.default_rng(5)
    even = np.sort(random.random(3000)) * 3600.0
    bunched = np.sort(random.choice(np.arange(10) * 360.0 + 5.0, 3000) + random.random(3000))
    lengths = np.full(3000, 100.0)
    profiles = [profile_of_arrays(t, lengths, lengths, start_s=0.0, end_s=3600.0) for t in (bunched, even)]
    found = traffic_drift(profiles[0], profiles[1])
    assert found.drifted
    assert found.burstiness.interval[0] > 3.0
    assert "burstiness x" in found.reason
