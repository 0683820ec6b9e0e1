"""What an evaluation says of what is served at a request rate."""

from __future__ import annotations

from pathlib import Path

from autotune.evaluation import evaluate, read_claims
from autotune.report.evaluation import evaluation_document
from autotune.study import load_study
from tests.studies import FOLDER


def test_no_more_is_served_than_comes(tmp_path: Path) -> None:
    """A claim of more than the rate is refuted, however unsure the model is of what could be served."""
    path = tmp_path / "claims.toml"
    path.write_text(
        'source = "x"\n[[claims]]\nclaim = "more"\nquantity = "requests_per_s"\nat_least = 8.5\n', encoding="utf-8"
    )
    found = evaluate(load_study(FOLDER / "llama-70b-16xh100.toml"), claims=read_claims(path))
    document = evaluation_document(found)
    assert [c["status"] for c in document["claims"]] == ["refuted"]
    told = document["confidence"]
    assert told["requests_per_s_p10"] == told["requests_per_s_p90"] == 8.0
