"""The Dockerfile fits the repository, and the manifest that names its image."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from click.testing import CliRunner

from autotune.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def steps(instruction: str) -> list[str]:
    """Arguments of every step of one kind, in order."""
    return re.findall(rf"^{instruction} (.*)$", DOCKERFILE, flags=re.MULTILINE)


def copied() -> list[str]:
    """Paths that are copied into the image."""
    return [path for step in steps("COPY") for path in step.split()[:-1]]


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    """Every path that is copied is in the repository and passes .dockerignore."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied()
    for path in copied():
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored


def test_all_that_the_package_is_built_of_is_copied() -> None:
    """The packages, the readme and the licence that pyproject.toml names are in the image when it is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    named = [project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "requirements.lock"]
    assert {*packages, *named} <= set(copied())


def test_it_runs_the_command_as_nobody_in_particular() -> None:
    """The user is a number other than root's, set after everything is installed; the entry is the console script."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (user,) = steps("USER")
    assert int(user) > 0
    assert DOCKERFILE.index("\nUSER ") > DOCKERFILE.rindex("\nRUN ")
    (entry,) = steps("ENTRYPOINT")
    assert yaml.safe_load(entry) == list(project["scripts"])
    (base,) = steps("FROM")
    assert tuple(map(int, base.removeprefix("python:").removesuffix("-slim").split("."))) >= (3, 11)


def test_the_manifest_names_the_image() -> None:
    """The tag that the Dockerfile is built under is the image of the CronJob, which demands a user that is not root."""
    tag = re.search(r"docker build -t (\S+) \.", DOCKERFILE)
    words = ["schedule", "studies/x.toml", "--traffic", "log.csv", "--state", "state", "--emit", "k8s"]
    job = yaml.safe_load(CliRunner().invoke(cli, words, catch_exceptions=False).output)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert tag is not None
    assert container["image"] == tag[1]
    assert pod["securityContext"]["runAsNonRoot"]
    assert [str(pod["securityContext"]["fsGroup"])] == steps("USER")  # who may write the state into the volume
    assert [container["workingDir"]] == steps("WORKDIR")[-1:]
    assert container["command"] == yaml.safe_load(steps("ENTRYPOINT")[0])
