"""Launch files of the best plans, a folder each, and plans that export refuses."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import autotune

STUDIES = Path(__file__).parents[2] / "studies"
STUDY, DEEPSEEK = str(STUDIES / "llama-70b-16xh100.toml"), str(STUDIES / "deepseek-v3-128xh200.toml")


def test_every_plan_has_a_folder_that_is_an_export(tmp_path: Path) -> None:
    """Folders are named by rank, hold the plans of the ranking in its order, and are replaced by the next export."""
    for _ in range(2):
        done = autotune("export", STUDY, "--top", "2", "--target", "vllm", "--out", "out", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    ranked = json.loads(autotune("tune", STUDY, "--no-storage", "--json", "--top", "2", cwd=tmp_path).stdout)["plans"]
    assert [p["plan"] for p in document["plans"]] == [p["plan"] for p in ranked]
    for rank, plan in enumerate(ranked, start=1):
        mark = json.loads((tmp_path / "out" / f"top{rank}" / "plan.json").read_text())
        assert mark["plan"] == plan["plan"]
        assert (tmp_path / "out" / f"top{rank}" / "study.json").exists()


def test_a_shorter_list_leaves_no_old_plan_beside_it(tmp_path: Path) -> None:
    """A folder that holds a plan of an earlier, longer list, or anything else, is refused and stays as it is."""
    asked = ("export", STUDY, "--target", "vllm", "--out", "out", "--table")
    assert autotune(*asked, "--top", "2", cwd=tmp_path).returncode == 0
    done = autotune(*asked, "--top", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "it holds top2" in done.stderr
    assert (tmp_path / "out" / "top2" / "plan.json").exists()


def test_a_refused_plan_is_named_and_not_written(tmp_path: Path) -> None:
    """Replicas of 31 GPUs on nodes of 8 are passed over with their rule, and no folder is made."""
    settings = ("--set", "cluster.gpus=31", "--set", "baseline=")
    done = autotune(
        "export", DEEPSEEK, "--top", "1", "--target", "vllm", "--out", "out", "--json", *settings, cwd=tmp_path
    )
    document = json.loads(done.stdout)
    assert done.returncode == 3
    assert [plan["why"].partition(":")[0] for plan in document["refused"]] == ["whole_nodes", "whole_nodes"]
    assert document["plans"] == []
    assert not (tmp_path / "out").exists()


def test_one_plan_or_several(tmp_path: Path) -> None:
    """A named plan and a list of plans exclude each other."""
    done = autotune("export", STUDY, "--top", "2", "--plan", "best", "--target", "vllm", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "--top" in done.stderr


def test_a_name_is_of_objects_in_a_cluster(tmp_path: Path) -> None:
    """A name that Kubernetes does not take, one where no objects are, and one for several plans are errors."""
    out = str(tmp_path / "out")
    for words, why in (
        (("--target", "k8s", "--name", "My_servers"), "must be at most 48 lower-case letters"),
        (("--target", "vllm", "--name", "mine"), "of which vllm writes none"),
        (("--target", "k8s", "--name", "mine", "--top", "2"), "--plan, --from or --name"),
    ):
        done = autotune("export", str(STUDY), *words, "--out", out)
        assert done.returncode == 2
        assert why in done.stderr
    done = autotune("export", str(STUDY), "--target", "k8s", "--name", "mine", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert "\n  name: mine\n" in (tmp_path / "out" / "servers.yaml").read_text(encoding="utf-8")
    assert "an export of the same name takes its place" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
