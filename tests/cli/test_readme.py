"""Every command and program of the README and of the pages runs, in the order in which a page prints them.

Blocks of `console` and `python` are run; blocks with a title are files of that name. Blocks of `sh` need what a test
does not have (a cluster, a database, Docker), so that of `autotune` commands among them only the options are checked.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import click
import pytest

from autotune.cli.main import cli, main
from autotune.planning import model_tables
from tests.remembered import asked_once

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
EXIT_CODE = re.compile(r"# exit code (\d+)")


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, title and content of each block of a page."""
    yield from BLOCK.findall(page.read_text(encoding="utf-8"))


def lines(content: str) -> list[str]:
    """The commands of a block."""
    return [line for line in content.replace("\\\n", " ").splitlines() if line.strip()]


def run(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one `autotune` command; it ends as the page says, with no word on stderr but the name of a page it wrote."""
    words = shlex.split(command, comments=True)
    monkeypatch.setattr(sys, "argv", words)
    code = 0
    try:
        main()
    except SystemExit as done:
        code = int(done.code or 0)
    said = capsys.readouterr()
    expected = EXIT_CODE.search(command)
    assert (code, said.err) == (int(expected[1]) if expected else 0, "report: report.html\n" * ("--html" in words)), (
        command
    )


@pytest.fixture(scope="module", autouse=True)
def _replicas_found_once() -> Iterator[None]:
    """Commands of a page that ask for the same model on the same cluster, as a table and as a page, find it once."""
    with asked_once((model_tables, "replica_offers")):
        yield


@pytest.mark.usefixtures("few_requests")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other, in a folder that has what a clone has."""
    for name in ("studies", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for language, title, content in blocks(page):
        if title:
            Path(title).parent.mkdir(exist_ok=True)
            Path(title).write_text(content, encoding="utf-8")
        elif language == "python":
            with redirect_stdout(StringIO()) as shown:
                exec(compile(content, f"{page.name}: python", "exec"), {"__name__": "__main__"})  # noqa: S102  # ours
            assert shown.getvalue()
        elif language == "console":
            for command in lines(content):
                if command.startswith("autotune "):
                    run(command, capsys, monkeypatch)


def test_commands_that_need_more() -> None:
    """Of commands that a test cannot run, command and options exist."""
    checked = 0
    for page in PAGES:
        for language, _, content in blocks(page):
            for command in lines(content) if language == "sh" else ():
                words = shlex.split(command, comments=True)
                if words[0] != "autotune":
                    continue
                context, named = click.Context(cli), cli
                while isinstance(named, click.Group):
                    name, found, rest = named.resolve_command(context, words[1:])
                    assert found is not None, command
                    context, named, words = (
                        click.Context(found, info_name=name, parent=context),
                        found,
                        [command, *rest],
                    )
                options = {option for parameter in named.params for option in parameter.opts}
                assert {word for word in words[1:] if word.startswith("--")} <= options, command
                checked += 1
    assert checked


def test_make_targets_exist() -> None:
    """Every `make` target that a page names is in the Makefile, and the README names the two that set up."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        line.split()[1]
        for page in PAGES
        for language, _, content in blocks(page)
        for line in (lines(content) if language in ("console", "sh") else ())
        if line.startswith("make ")
    }
    assert {"tune", "test"} <= named
    for target in named:
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    """Links within the repository lead to files."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
