"""Request logs as public traces, proxies, gateways and agents write them: read as the requests they were made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autotune.traffic.options import ReadOptions, read_options
from autotune.traffic.read import read_traffic
from costmodel.errors import InputError
from tests.traffic.helpers import START_S, Request, iso, lines, requests, written

REQUESTS = requests()
MEAN_PROMPT = sum(r.prompt for r in REQUESTS) / len(REQUESTS)
MEAN_OUTPUT = sum(r.output for r in REQUESTS) / len(REQUESTS)
PER_S = len(REQUESTS) / REQUESTS[-1].at_s


def csv(header: str, row: Callable[[Request], str]) -> str:
    """A CSV file of the requests."""
    return header + "\n" + "".join(row(r) + "\n" for r in REQUESTS)


def jsonl(row: Callable[[int, Request], dict[str, Any]]) -> str:
    """A file of JSON lines of the requests."""
    return lines(row(i, r) for i, r in enumerate(REQUESTS))


def blocks(i: int, tokens: int, each: int) -> list[int]:
    """Hashes of a prompt's blocks, none of them shared."""
    return list(range(i * 1000, i * 1000 - (-tokens // each)))


def attribute(key: str, value: Any) -> dict[str, Any]:
    """An attribute of a span, as OpenTelemetry's JSON has it."""
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}


def dated(r: Request, form: str) -> str:
    """A request's time in another form."""
    return datetime.fromtimestamp(START_S + r.at_s, UTC).strftime(form)


def span(r: Request) -> dict[str, Any]:
    """A span of a chat."""
    return {
        "name": "chat",
        "startTimeUnixNano": str(int((START_S + r.at_s) * 1e9)),
        "status": {},
        "attributes": [
            attribute("gen_ai.operation.name", "chat"),
            attribute("gen_ai.usage.input_tokens", r.prompt),
            attribute("gen_ai.usage.output_tokens", r.output),
        ],
    }


FORMATS = {
    "azure_2024": csv("TIMESTAMP,ContextTokens,GeneratedTokens", lambda r: f"{iso(r.at_s)},{r.prompt},{r.output}"),
    "azure_2025": csv(
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens", lambda r: f"{iso(r.at_s)},1,{r.prompt},{r.output}"
    ),
    "servegen": csv("timestamp,input_tokens,output_tokens", lambda r: f"{r.at_s:.3f},{r.prompt},{r.output}"),
    "vidur": csv("arrived_at,num_prefill_tokens,num_decode_tokens", lambda r: f"{r.at_s:.6f},{r.prompt},{r.output}"),
    "splitwise": csv(
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size",
        lambda r: f"0,2,0,{r.at_s:.4f},1,{r.prompt},{r.output}",
    ),
    "milliseconds_by_name": csv(
        "arrival_time_ms,prompt_tokens,output_tokens", lambda r: f"{r.at_s * 1e3:.0f},{r.prompt},{r.output}"
    ),
    "american_dates": csv(
        "time,prompt_tokens,output_tokens", lambda r: f"{dated(r, '%m/%d/%Y %I:%M:%S.%f %p')},{r.prompt},{r.output}"
    ),
    "german_dates": csv(
        "time,prompt_tokens,output_tokens", lambda r: f"{dated(r, '%d.%m.%Y %H:%M:%S')},{r.prompt},{r.output}"
    ),
    "a_zone_in_words": csv(
        "time,prompt_tokens,output_tokens", lambda r: f"{dated(r, '%Y-%m-%d %H:%M:%S.%f UTC')},{r.prompt},{r.output}"
    ),
    "date_and_time_apart": csv(
        "date,time,prompt_tokens,output_tokens", lambda r: f"{dated(r, '%Y-%m-%d,%H:%M:%S.%f')},{r.prompt},{r.output}"
    ),
    "semicolons": csv("start time;input tokens;output tokens", lambda r: f"{iso(r.at_s)};{r.prompt};{r.output}"),
    "mooncake": jsonl(
        lambda i, r: {
            "timestamp": int(r.at_s * 1e3), "input_length": r.prompt, "output_length": r.output,
            "hash_ids": blocks(i, r.prompt, 512),
        }
    ),
    "bailian": jsonl(
        lambda i, r: {
            "chat_id": i, "parent_chat_id": -1, "timestamp": round(r.at_s, 3), "input_length": r.prompt,
            "output_length": r.output, "type": "text", "turn": 1, "hash_ids": blocks(i, r.prompt, 16),
        }
    ),
    "whole_seconds_with_blocks": jsonl(
        lambda i, r: {
            "timestamp": int(r.at_s), "input_length": r.prompt, "output_length": r.output,
            "hash_ids": blocks(i, r.prompt, 64),
        }
    ),
    "litellm_spend": jsonl(
        lambda _, r: {
            "call_type": "acompletion", "startTime": iso(r.at_s), "endTime": iso(r.at_s + 2), "status": "success",
            "prompt_tokens": r.prompt, "completion_tokens": r.output,
        }
    ),
    "openai_responses": jsonl(
        lambda _, r: {"created_at": START_S + r.at_s, "usage": {"input_tokens": r.prompt, "output_tokens": r.output}}
    ),
    "anthropic": jsonl(
        lambda _, r: {
            "timestamp": iso(r.at_s),
            "usage": {
                "input_tokens": 20, "cache_read_input_tokens": r.prompt - 30, "cache_creation_input_tokens": 10,
                "output_tokens": r.output,
            },
        }
    ),
    "langfuse": jsonl(
        lambda _, r: {
            "type": "GENERATION", "startTime": iso(r.at_s), "input": [{"role": "user", "content": "5"}],
            "output": "7", "usage": {"input": r.prompt, "output": r.output, "unit": "TOKENS"},
        } | ({"output": "text"})
    ),
    "envoy": jsonl(
        lambda _, r: {
            "start_time": iso(r.at_s), "method": "POST", "response_code": 200, "path": "/v1/chat/completions",
            "gen_ai.usage.input_tokens": r.prompt, "gen_ai.usage.output_tokens": r.output,
        }
    ),
    "gateway_text": "".join(
        f'[{iso(r.at_s).replace("+00:00", "Z")}] "POST /v1/chat/completions HTTP/1.1" 200 model_name=m '
        f"tokens={r.prompt}/{r.output} timings=23ms(4+1+5)\n"
        for r in REQUESTS
    ),
    "logfmt": "".join(
        f'time="{iso(r.at_s)}" level=info prompt_tokens={r.prompt} completion_tokens={r.output}\n' for r in REQUESTS
    ),
    "aiperf_records": jsonl(
        lambda _, r: {
            "metadata": {"request_start_ns": int((START_S + r.at_s) * 1e9), "benchmark_phase": "profiling"},
            "metrics": {
                "input_sequence_length": {"value": r.prompt, "unit": "tokens"},
                "output_sequence_length": {"value": r.output, "unit": "tokens"},
            },
            "error": None,
        }
    ),
    "one_document": json.dumps(
        {"data": [{"startTime": iso(r.at_s), "promptTokens": r.prompt, "outputTokens": r.output} for r in REQUESTS]},
        indent=1,
    ),
    "a_list": json.dumps([{"ts": iso(r.at_s), "prompt_tokens": r.prompt, "output_tokens": r.output} for r in REQUESTS]),
    "spans": json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span(r) for r in REQUESTS]}]}]}),
    "spans_of_jaeger": json.dumps(
        {
            "data": [
                {
                    "traceID": "a",
                    "spans": [
                        {
                            "startTime": int((START_S + r.at_s) * 1e6), "duration": 5,
                            "tags": [
                                {"key": "gen_ai.usage.prompt_tokens", "type": "int64", "value": r.prompt},
                                {"key": "gen_ai.usage.completion_tokens", "type": "int64", "value": r.output},
                            ],
                        }
                    ],
                }
                for r in REQUESTS
            ]
        }
    ),
    "spans_of_tempo": json.dumps({"batches": [{"scopeSpans": [{"spans": [span(r) for r in REQUESTS]}]}]}),
    "lines_of_loki": json.dumps(
        {
            "status": "success",
            "data": {
                "resultType": "streams",
                "result": [
                    {
                        "stream": {"app": "gateway"},
                        "values": [
                            [
                                str(int((START_S + r.at_s) * 1e9)),
                                json.dumps({"prompt_tokens": r.prompt, "completion_tokens": r.output}),
                            ]
                            for r in REQUESTS
                        ],
                    }
                ],
            },
        }
    ),
    "hits_of_elasticsearch": json.dumps(
        {
            "hits": {
                "hits": [
                    {
                        "_source": {
                            "@timestamp": iso(r.at_s),
                            "usage": {"prompt_tokens": r.prompt, "completion_tokens": r.output},
                        }
                    }
                    for r in REQUESTS
                ]
            }
        }
    ),
    "after_comments": "# exported\nsep=;\n"
    + csv("time;prompt_tokens;output_tokens", lambda r: f"{iso(r.at_s)};{r.prompt};{r.output}"),
    "sessions_of_agents": lines(
        {
            "session_id": i,
            "turns": [
                {"timestamp": iso(r.at_s), "usage": {"prompt_tokens": r.prompt, "completion_tokens": r.output}}
                for r in REQUESTS[i : i + 3]
            ],
        }
        for i in range(0, len(REQUESTS), 3)
    ),
    "calls_since_the_session": lines(
        {
            "start_time": iso(first.at_s),
            "requests": [
                {"t": r.at_s - first.at_s, "type": "n", "in": r.prompt, "out": r.output} for r in REQUESTS[i : i + 3]
            ],
        }
        for i, first in enumerate(REQUESTS)
        if i % 3 == 0
    ),
    "calls_since_the_session_in_milliseconds": lines(
        {
            "start_time": iso(first.at_s),
            "calls": [
                {"offset_ms": 1e3 * (r.at_s - first.at_s), "prompt_tokens": r.prompt, "completion_tokens": r.output}
                for r in REQUESTS[i : i + 3]
            ],
        }
        for i, first in enumerate(REQUESTS)
        if i % 3 == 0
    ),
    "bars": csv("time|prompt_tokens|completion_tokens", lambda r: f"{iso(r.at_s)}|{r.prompt}|{r.output}"),
    "thousands": csv("time,prompt_tokens,output_tokens", lambda r: f'{iso(r.at_s)},"{r.prompt:,}",{r.output}'),
    "log_of_a_container": jsonl(
        lambda _, r: {
            "log": json.dumps({"ts": iso(r.at_s), "prompt_tokens": r.prompt, "completion_tokens": r.output}),
            "stream": "stdout",
        }
    ),
    "sglang_requests": "".join(
        lines(
            [
                {"timestamp": iso(r.at_s - 2), "event": "request.received", "rid": "a", "obj": {"text": "b"}},
                {
                    "timestamp": iso(r.at_s), "event": "request.finished", "rid": "a",
                    "out": {"meta_info": {"prompt_tokens": r.prompt, "completion_tokens": r.output}},
                },
            ]
        )
        for r in REQUESTS
    ),
    "bedrock": jsonl(
        lambda _, r: {
            "timestamp": iso(r.at_s), "operation": "InvokeModel",
            "input": {"inputBodyJson": {"status": "failed"}, "inputTokenCount": r.prompt},
            "output": {"outputTokenCount": r.output},
        }
    ),
    "vertex": jsonl(
        lambda _, r: {
            "logging_time": iso(r.at_s),
            "full_response": {"usageMetadata": {"promptTokenCount": r.prompt, "candidatesTokenCount": r.output}},
        }
    ),
    "kong": jsonl(
        lambda _, r: {
            "started_at": int((START_S + r.at_s) * 1e3), "response": {"status": 200},
            "ai": {"proxy": {"usage": {"prompt_tokens": r.prompt, "completion_tokens": r.output}}},
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read_as_its_requests(name: str, tmp_path: Path) -> None:
    """Every request, its lengths and the rate; nothing counts as damage."""
    log = read_traffic(written(tmp_path, FORMATS[name]))
    assert log.refusal is None
    assert (log.num_requests, log.failed, dict(log.problems)) == (len(REQUESTS), 0, {})
    profile = log.profile()
    assert profile.prompt_mean == pytest.approx(MEAN_PROMPT)
    assert profile.output_mean == pytest.approx(MEAN_OUTPUT)
    assert profile.rate.mean_per_s == pytest.approx(PER_S, rel=0.01)


def test_burstgpt_with_its_failures(tmp_path: Path) -> None:
    """Requests without a token in the answer have failed: they are counted, and are neither damage nor traffic."""
    rows = [f"{int(r.at_s * 10)},ChatGPT,{r.prompt},{r.output if i % 5 else 0}" for i, r in enumerate(REQUESTS)]
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    log = read_traffic(written(tmp_path, head + "".join(f"{row},1,Conversation log\n" for row in rows)))
    assert (log.refusal, log.num_requests, log.failed) == (None, 240, 60)
    assert log.profile().rate.mean_per_s == pytest.approx(240 / (int(REQUESTS[-1].at_s * 10)), rel=0.02)


@pytest.mark.parametrize(
    "failure",
    [
        {"status": "failure"},
        {"status_code": 503},
        {"response_code": "429"},
        {"error": {"type": "timeout"}},
        {"success": False},
    ],
)
def test_what_was_not_served_is_no_traffic(failure: dict[str, Any], tmp_path: Path) -> None:
    """However a log says so, with or without token counts."""
    rows = [{"time": iso(r.at_s), "prompt_tokens": r.prompt, "completion_tokens": r.output} for r in REQUESTS]
    log = read_traffic(written(tmp_path, lines([*rows, {**rows[0], **failure}, {"time": iso(9), **failure}])))
    assert (log.num_requests, log.failed) == (len(REQUESTS), 2)


@pytest.mark.parametrize(
    ("dates", "first", "span_s", "said"),
    [
        (("12/31/2026 23:00", "1/1/2027 01:00"), "12/31", 7200.0, False),
        (("31/12/2026 23:00", "1/1/2027 01:00"), "31/12", 7200.0, False),
        (("3/11/2026 10:00", "4/11/2026 10:00"), "3/11", 86400.0, True),
        (("3/11/2026 10:00", "3/12/2026 10:00"), "3/11", 86400.0, True),
    ],
)
def test_the_order_of_a_date_is_recognised_or_said(
    dates: tuple[str, ...], first: str, span_s: float, said: bool, tmp_path: Path
) -> None:
    """By what is a date in one order alone; else by the shorter log, which is said."""
    log = read_traffic(written(tmp_path, "time,prompt_tokens,output_tokens\n" + "".join(f"{d},9,9\n" for d in dates)))
    assert dates[0].startswith(first)
    assert log.profile().end_s - log.profile().start_s == pytest.approx(span_s)
    assert any("dates are taken as" in text for text in log.assumptions) == said


def test_a_status_column(tmp_path: Path) -> None:
    """Rows of a CSV log whose status is an error are left out, by whole blocks as line by line."""
    rows = [f"{iso(r.at_s)},{r.prompt},{r.output},{200 if i % 4 else 500}" for i, r in enumerate(REQUESTS)]
    log = read_traffic(written(tmp_path, "time,prompt_tokens,completion_tokens,status\n" + "\n".join(rows) + "\n"))
    assert (log.num_requests, log.failed, dict(log.problems)) == (225, 75, {})


def test_lines_about_something_else(tmp_path: Path) -> None:
    """Health checks and embeddings among the requests are neither requests nor damage."""
    rows = [{"time": iso(r.at_s), "prompt_tokens": r.prompt, "completion_tokens": r.output} for r in REQUESTS]
    others = [{"time": iso(1), "method": "GET", "path": "/health"}, {"time": iso(1), "call_type": "aembedding"}] * 50
    log = read_traffic(written(tmp_path, lines([*rows, *others])))
    assert (log.num_requests, log.failed, dict(log.problems)) == (len(REQUESTS), 0, {})


@pytest.mark.parametrize("digits", [0, 2])
def test_a_unit_that_is_not_clear_is_asked_for(digits: int, tmp_path: Path) -> None:
    """Numbers that may be seconds or milliseconds: asked for, and taken as they are said to be."""
    rows = "".join(f"{r.at_s * 1e3:.{digits}f},{r.prompt},{r.output}\n" for r in REQUESTS)
    source = written(tmp_path, "timestamp,prompt_tokens,output_tokens\n" + rows)
    with pytest.raises(InputError, match=r"--time-unit: is required.*seconds or .*milliseconds"):
        read_traffic(source)
    said = read_traffic(source, options=ReadOptions(time_unit="ms"))
    assert said.profile().rate.mean_per_s == pytest.approx(PER_S, rel=0.01)


@pytest.mark.parametrize("each", [16, 32, 64, 128, 256, 512])
def test_the_size_of_a_block_is_recognised(each: int, tmp_path: Path) -> None:
    """By prompts and how many blocks they have; half of every other prompt was there before."""
    rows: list[dict[str, Any]] = []
    shared = 0
    for i, r in enumerate(REQUESTS):
        ids = blocks(i, r.prompt, each)
        if i % 2:
            same = min(len(ids), len(rows[-1]["hash_ids"])) // 2
            ids[:same] = rows[-1]["hash_ids"][:same]
            shared += same * each
        rows.append({"timestamp": iso(r.at_s), "input_length": r.prompt, "output_length": r.output, "hash_ids": ids})
    log = read_traffic(written(tmp_path, lines(rows)))
    assert log.profile().shared_prefix_frac == pytest.approx(shared / sum(r.prompt for r in REQUESTS))
    found = log.cache_shares()
    assert found is not None
    shares = list(found.values())
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(log.profile().shared_prefix_frac)


def test_blocks_of_no_known_size_are_asked_for(tmp_path: Path) -> None:
    """They are left out and said; told their size, they count."""
    rows = [
        {"timestamp": iso(r.at_s), "input_length": 1000, "output_length": 5, "hash_ids": [1, 2, 3, 4, i + 9]}
        for i, r in enumerate(REQUESTS)
    ]
    source = written(tmp_path, lines(rows))
    log = read_traffic(source)
    assert log.profile().shared_prefix_frac is None
    assert any("--block-tokens" in text for text in log.assumptions)
    told = read_traffic(source, options=ReadOptions(block_tokens=200))
    assert told.profile().shared_prefix_frac == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_only_what_is_asked_for_counts(form: str, tmp_path: Path) -> None:
    """`--match` by a column or field; a column that is not there is an error, several models are said."""
    rows = [(iso(r.at_s), r.prompt, r.output, "one" if i % 3 else "two") for i, r in enumerate(REQUESTS)]
    names = ("time", "prompt_tokens", "completion_tokens", "model")
    content = {
        "csv": ",".join(names) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows),
        "jsonl": lines(dict(zip(names, row, strict=True)) for row in rows),
    }[form]
    source = written(tmp_path, content)
    assert any("2 models are taken together" in text for text in read_traffic(source).assumptions)
    chosen = read_options(match=("model_name=two",))
    assert read_traffic(source, options=chosen).num_requests == 100
    none = read_traffic(source, options=read_options(match=("model=three",)))
    assert none.refusal is not None
    assert "not of --match" in none.refusal


def test_options_that_cannot_be_meant() -> None:
    """A match without a value and a share beyond one are named."""
    with pytest.raises(InputError, match="--match: must read NAME=VALUE"):
        read_options(match=("model",))
    with pytest.raises(InputError, match="--max-bad: must be a share"):
        read_options(max_bad_frac=3.0)


def test_the_limit_on_damage_can_be_set(tmp_path: Path) -> None:
    """A tenth of the lines is rubbish: refused as a rule, taken where that is borne."""
    content = FORMATS["azure_2024"] + "rubbish\n" * 30
    assert read_traffic(written(tmp_path, content)).refusal is not None
    assert read_traffic(written(tmp_path, content), options=replace(ReadOptions(), max_bad_frac=0.2)).refusal is None


def test_parquet_says_what_it_needs(tmp_path: Path) -> None:
    """Without pyarrow the extra is named; with it the columns are read as everywhere."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        with pytest.raises(InputError, match=r"autotune-serving\[parquet\]"):
            read_traffic(written(tmp_path, "PAR1 and more"))
        return
    table = pyarrow.table(
        {
            "start_time": [START_S + r.at_s for r in REQUESTS],
            "prompt_tokens": [r.prompt for r in REQUESTS],
            "completion_tokens": [r.output for r in REQUESTS],
        }
    )
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(table, path)
    assert read_traffic(str(path)).profile().prompt_mean == pytest.approx(MEAN_PROMPT)
