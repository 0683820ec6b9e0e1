"""What `python -m tests.installed` runs in an empty environment is every command that there is."""

from __future__ import annotations

from collections.abc import Iterator

import click

from autotune.cli.main import cli
from tests.installed import steps


def _leaves(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    """Every command by the words that name it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, *before, name)
        else:
            yield (*before, name)


def test_every_command_is_run() -> None:
    """None of the help's commands is left out, and every target of an export is written."""
    given = steps()
    named = list(_leaves(cli))
    assert [name for name in named if not any(tuple(words[: len(name)]) == name for words in given)] == []
    assert any(words[:2] == ["retune", "study.toml"] for words in given)  # a group that does something by itself
    targets = {words[words.index("--target") + 1] for words in given if "--target" in words}
    assert targets == {"vllm", "sglang", "trtllm", "compose", "k8s", "dynamo"}
