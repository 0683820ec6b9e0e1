"""`autotune study`, and our storage in Optuna's own tools."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.report.files import table_csv
from autotune.storage.trials import named_constraints
from costmodel.errors import InputError
from tests.command import autotune

STUDY = Path(__file__).parents[2] / "studies" / "reference-128.toml"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reference study's trials."""
    out = tmp_path_factory.mktemp("stored")
    assert CliRunner().invoke(cli, ["tune", str(STUDY), "--out", str(out), "--json"]).exit_code == 0
    return out


def _json(*arguments: str) -> Any:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_list_and_show(stored: Path) -> None:
    """A storage's studies come with their trials, the feasible ones, and first the plan that `tune` names first."""
    plans = json.loads((stored / "result.json").read_text())["plans"]
    best = plans[0]
    assert best["feasible"]
    (study,) = _json("study", "list", "--storage", str(stored))["studies"]
    assert study["best_plan"] == best["plan"]
    assert study["ours"]
    shown = _json("study", "show", study["name"], "--storage", str(stored), "--top", "3")
    assert [t["attributes"]["plan"] for t in shown["trials"]] == [p["plan"] for p in plans[:3]]
    assert optuna.load_study(study_name=None, storage=_storage(stored)).best_trial.user_attrs["plan"] == best["plan"]
    assert shown["trials"] == sorted(shown["trials"], key=lambda t: -t["values"][0])
    assert sum(shown["broken"].values()) > 0


def test_an_older_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older model scored is said by `tune`, once, and by the list, with the settings that it was asked with."""
    command = ["tune", str(STUDY), "--out", str(tmp_path), "--json", "--set", "constraints.ttft_ms=9000"]
    monkeypatch.setattr("autotune.study.fingerprint.MODEL_VERSION", 0)
    assert CliRunner().invoke(cli, command).stderr == ""
    monkeypatch.undo()
    (old,) = _json("study", "list", "--storage", str(tmp_path))["studies"]
    assert "version 0" in old["earlier_model"]
    again = CliRunner().invoke(cli, command)
    assert old["name"] in again.stderr
    assert json.loads(again.stdout)["scored_now"] == old["trials"]
    assert CliRunner().invoke(cli, command).stderr == ""
    listed = {s["name"]: s for s in _json("study", "list", "--storage", str(tmp_path))["studies"]}
    assert len(listed) == 2
    assert [s["earlier_model"] is None for name, s in listed.items() if name != old["name"]] == [True]
    assert all(s["overrides"] == ["constraints.ttft_ms=9000"] for s in listed.values())


def test_a_damaged_trial_is_said(tmp_path: Path) -> None:
    """A warning from `tune`, a count in the list, a mark in the export."""
    command = ["tune", str(STUDY), "--out", str(tmp_path), "--json"]
    first = json.loads(CliRunner().invoke(cli, command).stdout)
    journal = tmp_path / "journal.log"
    journal.write_text(journal.read_text().replace('"engine":"vllm"', '"engine":"vlln"', 1))
    again = CliRunner().invoke(cli, command)
    assert study_name(tmp_path) in again.stderr
    assert "damaged" in again.stderr
    assert json.loads(again.stdout)["plans"] == first["plans"]
    (study,) = _json("study", "list", "--storage", str(tmp_path))["studies"]
    assert study["damaged"] == 1
    document = _json("study", "export", study["name"], "--storage", str(tmp_path), "--format", "json")
    assert sum(t.get("damaged", False) for t in document["trials"]) == 1


def test_export_holds_every_trial(stored: Path) -> None:
    """CSV and JSON both hold every trial with parameters, value, excesses and plan."""
    (study,) = _json("study", "list", "--storage", str(stored))["studies"]
    document = _json("study", "export", study["name"], "--storage", str(stored), "--format", "json")
    text = CliRunner().invoke(cli, ["study", "export", study["name"], "--storage", str(stored)]).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(document["trials"]) == study["trials"]
    assert rows[5]["user_attrs_plan"] == document["trials"][5]["attributes"]["plan"]
    assert int(rows[5]["params_pp"]) == document["trials"][5]["params"]["pp"]


def test_delete_asks_and_leaves_the_others(tmp_path: Path) -> None:
    """Deleting asks first, removes one study, and leaves the other with its trials."""
    for limit in ("10000", "9000"):
        command = ["tune", str(STUDY), "--set", f"constraints.ttft_ms={limit}", "--out", str(tmp_path), "--json"]
        assert CliRunner().invoke(cli, command).exit_code == 0
    first, second = (s["name"] for s in _json("study", "list", "--storage", str(tmp_path))["studies"])
    command = ["study", "delete", first, "--storage", str(tmp_path)]
    assert CliRunner().invoke(cli, command, input="n\n").exit_code != 0
    assert len(_json("study", "list", "--storage", str(tmp_path))["studies"]) == 2
    assert CliRunner().invoke(cli, command, input="y\n").exit_code == 0
    (left,) = _json("study", "list", "--storage", str(tmp_path))["studies"]
    assert left["name"] == second
    assert left["trials"] > 0


@pytest.mark.parametrize("where", ["nowhere.log", "sqlite:///{}/nothing.db"])
def test_looking_makes_nothing(tmp_path: Path, where: str) -> None:
    """Listing a storage that is not there is an error that names it, and makes no file."""
    location = where.format(tmp_path) if "{}" in where else str(tmp_path / where)
    with pytest.raises(InputError, match="is not there"):
        CliRunner().invoke(cli, ["study", "list", "--storage", location], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []


def test_unknown_study_is_named(stored: Path) -> None:
    """A study that the storage does not hold is an error that lists what it holds."""
    with pytest.raises(InputError, match=r"has no study 'other'; it has reference-128-"):
        CliRunner().invoke(cli, ["study", "show", "other", "--storage", str(stored)], catch_exceptions=False)


def test_no_cell_is_a_formula() -> None:
    """Text that a spreadsheet would run as a formula is written as text; numbers stay numbers."""
    rows = list(csv.reader(io.StringIO(table_csv([{"a": "=cmd()", "b": -1.5}, {"a": "@x", "c": "+1"}]))))
    assert rows == [["a", "b", "c"], ["'=cmd()", "-1.5", ""], ["'@x", "", "'+1"]]


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_optuna_dashboard_opens_our_storage(kind: str, stored: Path, tmp_path: Path) -> None:
    """optuna-dashboard's own pages and API serve our studies: every trial, its plan, and by how much it breaks what."""
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    storage: Any = _storage(stored)
    if kind == "sqlite":
        location = f"sqlite:///{tmp_path}/plans.db"
        assert CliRunner().invoke(cli, ["tune", str(STUDY), "--storage", location, "--json"]).exit_code == 0
        storage = optuna.storages.RDBStorage(location)
    app = dashboard.wsgi(storage)
    (summary,) = _get(app, "/api/studies")["study_summaries"]
    detail = _get(app, f"/api/studies/{summary['study_id']}", "after=0")
    trials = storage.get_all_trials(summary["study_id"])
    assert len(detail["trials"]) == len(trials)
    for shown, trial in zip(detail["trials"], trials, strict=True):
        attributes = {a["key"]: a["value"] for a in shown["user_attrs"]}
        assert attributes["plan"] == trial.user_attrs["plan"]
        assert sorted(shown["constraints"]) == sorted(named_constraints(trial).values())
        feasible = all(excess <= 0.0 for excess in shown["constraints"])
        assert feasible is trial.user_attrs["feasible"]
        assert all(v["excess"] in shown["constraints"] for v in json.loads(attributes["violations"]))
        assert set(trial.params) < {"engine", "replicas", "pp", "attn_tp", "attn_dp", "moe_tp", "moe_ep", "concurrency",
                                    "max_num_batched_tokens"}  # fmt: skip
    assert {all(e <= 0.0 for e in t["constraints"]) for t in detail["trials"]} == {True, False}
    assert b"<html" in _body(app, "/dashboard/").lower()


def test_optuna_visualization_draws_our_studies(stored: Path) -> None:
    """optuna.visualization draws history, importances, slices and parallel coordinates of our study."""
    storage = _storage(stored)
    study = optuna.load_study(study_name=None, storage=storage)
    vis = optuna.visualization
    figures = [
        vis.plot_optimization_history(study),
        vis.plot_param_importances(study, params=["pp", "attn_tp"]),
        vis.plot_slice(study, params=["pp", "moe_ep"]),
        vis.plot_parallel_coordinate(study, params=["pp", "attn_tp"]),
    ]
    assert all(len(figure.data) > 0 for figure in figures)


def test_one_of_our_studies_goes_on_in_plain_optuna(tmp_path: Path) -> None:
    """Plain Optuna continues a study of ours: its sampler's trials are added, and what we answer stays."""
    first = CliRunner().invoke(cli, ["tune", str(STUDY), "--out", str(tmp_path), "--json"])
    study = optuna.load_study(study_name=None, storage=_storage(tmp_path))
    before, best = len(study.trials), study.best_trial.user_attrs["plan"]

    def objective(trial: optuna.Trial) -> float:
        distribution = study.trials[0].distributions["pp"]
        assert isinstance(distribution, optuna.distributions.IntDistribution)
        stages = trial.suggest_int("pp", distribution.low, distribution.high, log=distribution.log)
        return -float(stages)

    study.optimize(objective, n_trials=3)
    assert len(study.trials) == before + 3
    assert study.best_trial.user_attrs["plan"] == best
    again = CliRunner().invoke(cli, ["tune", str(STUDY), "--out", str(tmp_path), "--json"])
    assert json.loads(again.stdout)["plans"] == json.loads(first.stdout)["plans"]


def study_name(folder: Path) -> str:
    """Name of the one study of a storage."""
    (study,) = _json("study", "list", "--storage", str(folder))["studies"]
    return str(study["name"])


def _get(app: Any, path: str, query: str = "") -> Any:
    """What a WSGI application answers, read as JSON."""
    return json.loads(_body(app, path, query))


def _body(app: Any, path: str, query: str = "") -> bytes:
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    answer = app(environ, lambda status, _headers, _error=None: statuses.append(status))
    body = b"".join(answer)
    getattr(answer, "close", lambda: None)()
    assert statuses == ["200 OK"]
    return body


def _storage(folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def test_a_user_without_a_data_folder_is_answered(tmp_path: Path) -> None:
    """Where nothing can be kept, that is said and the question answered; its file is written here."""
    words = ("tune", "--model", "llama-3.1-8b", "--gpus", "2", "--gpu", "h100", "--isl", "1000", "--osl", "200")
    (tmp_path / "file").touch()  # no folder can be made in it
    done = autotune(*words, "--table", cwd=tmp_path, data=tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert "--storage" in done.stderr
    (study,) = tmp_path.glob("*.toml")
    assert study.name in done.stdout
    refused = autotune("tune", study.name, "--shard", "1/2", cwd=tmp_path, data=tmp_path / "file")
    assert refused.returncode == 2
    assert "--storage" in refused.stderr
