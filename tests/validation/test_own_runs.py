"""Runs of a user that scatter, contradict each other or physics, or are not of what is asked: what is said of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.engines import traits_by_name
from autotune.report.validation import calibration_report
from autotune.study import load_study
from autotune.validation.report import validation_document
from costmodel.calibration.profile import Profile, profile_text, read_profile
from costmodel.errors import InputError
from costmodel.measured.learn_profile import CellChange, calibrate, learn_cell
from costmodel.measured.runs import Run, prepare_runs
from costmodel.measured.runs_csv import read_runs
from tests.studies import FOLDER

HEADER = "id,gpu,engine,model,precision,isl,osl,concurrency,attn_tp,ttft_ms,tpot_ms\n"
MODEL = "meta-llama/Llama-3.1-70B"
STUDY = FOLDER / "llama-70b-16xh100.toml"


def file_of(path: Path, count: int, *, precision: str = "fp8", osl: int = 512, model: str = MODEL) -> Path:
    """A CSV of runs of one cell, at numbers in flight of 4 and more."""
    rows = [
        f"r{i},h100_sxm,vllm,{model},{precision},1024,{osl},{4 * (i + 1)},{8 if i % 2 else 4},{150 + 20 * i},{14 + i}"
        for i in range(count)
    ]
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def as_predicted(
    path: Path,
    count: int,
    *,
    tpot: Sequence[float] = (),
    ttft: Sequence[float] = (),
    in_flight: float | None = None,
) -> list[Run]:
    """Runs as they are predicted, times a factor each."""
    runs = read_runs(file_of(path / "own.csv", count), traits_by_name())
    runs = tuple(replace(r, concurrency=in_flight or r.concurrency) for r in runs)
    known = prepare_runs(runs).evaluate()
    by_tpot, by_ttft = (np.broadcast_to(factors or (1.0,), (count,)) for factors in (tuple(tpot), tuple(ttft)))
    return [
        replace(run, tpot_s=float(known.tpot_s[i] * by_tpot[i]), ttft_s=float(known.ttft_s[i] * by_ttft[i]))
        for i, run in enumerate(runs)
    ]


def said_of(changes: Sequence[CellChange]) -> str:
    """What the table of `calibrate` has above its blocks and in them."""
    report = calibration_report(changes, "p.toml", 0)
    return "\n".join([*map(str, report.lines), *(line for block in report.blocks for line in map(str, block.lines))])


SCATTERED = np.random.default_rng(3).permutation([1.33, 0.75] * 10).tolist()


def test_intervals_are_as_wide_as_the_runs_scatter(tmp_path: Path) -> None:
    """Runs a third off either way at random: the interval holds them, and it is said how far they scatter."""
    runs = as_predicted(tmp_path, 20, tpot=SCATTERED, ttft=SCATTERED[::-1])
    profile, (change,) = calibrate(runs)
    known = prepare_runs(runs, profile).evaluate()
    for target, of in (("tpot", change.tpot), ("ttft", change.ttft)):
        off = np.abs(np.log([getattr(r, f"{target}_s") for r in runs] / getattr(known, f"{target}_s")))
        assert np.mean(off < 1.2816 * getattr(known, f"{target}_log_sd")) >= 0.8
        assert 0.2 < of.log_sd_after < 0.4
        assert of.scatter > 1.5
        assert not of.apart
    assert "TPOT scatters" in said_of([change])
    assert "TTFT scatters" in said_of([change])


def test_runs_that_agree_say_nothing_of_scatter(tmp_path: Path) -> None:
    """A level of their own and a few per cent between them: a narrow interval, and no variance that is the user's."""
    runs = as_predicted(tmp_path, 10, tpot=[1.28, 1.32] * 5, ttft=[1.25, 1.35] * 5)
    profile, (change,) = calibrate(runs)
    (cell,) = profile.cells.values()
    assert (cell.tpot_noise, cell.ttft_noise, change.tpot.scatter, change.ttft.scatter) == (0.0, 0.0, 1.0, 1.0)
    assert "scatters" not in said_of([change])
    assert "noise" not in profile_text(profile)


@pytest.mark.parametrize("count", [5, 8])
def test_a_run_that_the_others_contradict_is_named(count: int, tmp_path: Path) -> None:
    """One TPOT tripled moves nothing, is no scatter, and is told with what the others make of it."""
    runs = as_predicted(tmp_path, count, tpot=[3.0, *[1.0] * (count - 1)])
    _, (change,) = calibrate(runs)
    (named,) = change.tpot.apart
    assert named.startswith("r0: tpot_ms ")
    assert change.tpot.level == pytest.approx(1.0, abs=0.03)
    assert change.tpot.scatter == 1.0
    assert named in said_of([change])


def test_a_profile_that_predicts_its_own_runs_worse_is_no_gain(tmp_path: Path) -> None:
    """Where the mean error of the runs given grows it is said, and where it falls it is not."""
    _, (change,) = calibrate(as_predicted(tmp_path, 8, tpot=[1.1] * 8))
    assert "predicted worse" not in said_of([change])
    worse = replace(change, ttft=replace(change.ttft, before=0.434, after=0.473))
    assert "TTFT of the runs given is predicted worse with the profile than without (47.3%" in said_of([worse])


def test_microseconds_teach_nothing_however_many_are_in_flight(tmp_path: Path) -> None:
    """A TTFT of a thousand times the prediction is another unit, with a queue or without, and so is such a TPOT."""
    for column in ("ttft", "tpot"):
        runs = as_predicted(tmp_path, 6, in_flight=128.0, **{column: [1000.0] * 6})
        with pytest.raises(InputError, match=rf"got 0; 6 cannot be(.|\n)*r0: {column}_ms .*is it in microseconds"):
            calibrate(runs)


def test_a_ttft_far_from_what_was_known_is_said(tmp_path: Path) -> None:
    """Four times as long throughout is learnt, and told, though TPOT is as it was expected."""
    _, (change,) = calibrate(as_predicted(tmp_path, 8, ttft=[4.0] * 8))
    assert (change.tpot.surprises, change.ttft.surprises) == (False, True)
    assert "TTFT is 4 times as long" in said_of([change])


def test_scatter_is_kept_in_the_profile(tmp_path: Path) -> None:
    """It is written, read back, and stays with the cell when a further run is learnt; a negative one is an error."""
    runs = as_predicted(tmp_path, 20, tpot=SCATTERED)
    profile, _ = calibrate(runs)
    path = tmp_path / "p.toml"
    path.write_text(profile_text(profile), encoding="utf-8")
    (read,), (cell,) = read_profile(path).cells.values(), profile.cells.values()
    assert read.tpot_noise == pytest.approx(cell.tpot_noise, rel=1e-5)
    assert cell.tpot_noise > 0.03
    assert learn_cell(runs[:1], profile).cell.tpot_noise == cell.tpot_noise
    path.write_text(profile_text(profile).replace("tpot_noise = ", "tpot_noise = -"), encoding="utf-8")
    with pytest.raises(InputError, match="tpot_noise must be a variance"):
        read_profile(path)


def profile_of(tmp_path: Path, *, precision: str = "fp8", model: str = MODEL) -> tuple[Path, Profile]:
    """Learnt of six runs, and where it was written."""
    runs = read_runs(file_of(tmp_path / "taught.csv", 6, precision=precision, model=model), traits_by_name())
    profile, _ = calibrate(runs)
    path = tmp_path / "taught.toml"
    path.write_text(profile_text(profile), encoding="utf-8")
    return path, profile


@pytest.mark.parametrize(
    ("given", "searched", "said"),
    [
        ({}, [], "none of its cells (vLLM on h100_sxm in fp8) is searched here (vLLM on h100_sxm in bf16)"),
        ({"precision": "bf16", "model": "Qwen/Qwen3-32B"}, [], "(vLLM on h100_sxm in bf16 of another model)"),
        ({}, ['search.weight_dtype=["bf16", "fp8"]'], "predictions for vLLM on h100_sxm in bf16 are as without it"),
        ({}, ['search.weight_dtype=["fp8"]'], None),
    ],
)
def test_a_profile_that_is_not_of_the_study_is_said(
    given: dict[str, str], searched: list[str], said: str | None, tmp_path: Path
) -> None:
    """Among the study's assumptions, for none of its cells and for those that are not covered."""
    path, _ = profile_of(tmp_path, **given)
    found = load_study(STUDY, [f"calibration={path}", *searched])
    about = [text for text in found.assumptions if text.startswith("calibration profile")]
    assert [said in text for text in about] == ([] if said is None else [True])


def test_a_profile_that_covers_no_run_is_said(tmp_path: Path) -> None:
    """And how many it covers where it is not all; of all there is nothing to say."""
    _, profile = profile_of(tmp_path)
    own = read_runs(file_of(tmp_path / "own.csv", 3), traits_by_name())
    others = read_runs(file_of(tmp_path / "others.csv", 3, precision="bf16"), traits_by_name())
    for runs, said in ((others, "covers none of these"), ((*own, *others), "covers 3 of 6"), (own, "")):
        batch = prepare_runs(runs, profile)
        assumed = validation_document(batch, batch.evaluate(), profile)["assumptions"]
        assert any("calibration profile" in text for text in assumed) == bool(said)
        assert said in " ".join(assumed)


def test_one_output_token_has_no_time_per_output_token(tmp_path: Path) -> None:
    """Whatever a client wrote there: it is neither compared nor learnt from, and no warning of a division is shown."""
    runs = read_runs(file_of(tmp_path / "one.csv", 6, osl=1), traits_by_name())
    assert all(np.isnan(r.tpot_s) for r in runs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = prepare_runs(runs)
        document = validation_document(batch, batch.evaluate())
        with pytest.raises(InputError, match="got 0; 6 of one output token have none"):
            calibrate(runs)
    assert document["overall"]["tpot"] is None
    assert any("6 of 6 runs have one output token" in text for text in document["assumptions"])


def test_the_commands_own_words(tmp_path: Path) -> None:
    """The table has both intervals; a file twice and a plan for rows with layouts of their own are errors."""
    path, out = str(file_of(tmp_path / "own.csv", 6)), str(tmp_path / "p.toml")

    def ask(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["calibrate", *words, "--out", out])
        return done.exit_code, done.output + str(done.exception or "")

    code, shown = ask(path, "--table")
    assert code == 0
    assert shown.count("±") == 4
    code, shown = ask(path, path, "--table")
    assert code != 0
    assert "it holds the same" in shown
    code, shown = ask(path, "--plan", "tp8", "--table")
    assert code != 0
    assert "rows of" in shown
    cell = json.loads(ask(path, "--json")[1])["cells"][0]
    assert {"tpot_before", "tpot_log_sd_after", "ttft_log_sd_before", "ttft_level", "tpot_scatter"} < cell.keys()
