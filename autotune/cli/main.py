"""The command line. Each command imports what it needs when it runs, so that `--help` is immediate."""

from __future__ import annotations

import importlib
import sys

import click

from autotune.cli.options import EXIT_INPUT, EXIT_INTERRUPTED

# Command -> module of autotune.cli.commands that defines it, and its name there where it differs; in the order of
# `--help`.
COMMANDS = {
    "tune": "tune",
    "worker": "worker",
    "space": "inspect",
    "model": "inspect",
    "catalog": "inspect",
    "schema": "inspect",
    "validate": "validate",
    "calibrate": "validate",
    "evaluate": "evaluate",
    "compare": "compare",
    "retune": "retune",
    "schedule": "schedule",
    "dag": "dag",
    "export": "export",
    "import": "importing:import_plan",
    "verify": "validate",
    "study": "study",
}


class LazyGroup(click.Group):
    """A group that imports the definition of a command when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Names of the commands, as a user meets them: the main job first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, or nothing."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"autotune.cli.commands.{module}"), attribute or cmd_name
        )
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="autotune")
def cli() -> None:
    """Choose how to spread an LLM over a GPU cluster for serving.

    A study is a TOML file: the model, the cluster, the traffic, the limits, and the plan in production.

    \b
    autotune tune studies/reference-128.toml     rank every valid plan against the current one
    autotune space studies/reference-128.toml    list the plans without scoring them
    autotune model deepseek-v3                   what we understood of a model
    autotune catalog                             models and GPUs known by name
    """


def main() -> None:
    """Run the command line; a user's mistake ends in a message and exit code 2, never in a traceback."""
    from costmodel.errors import InputError

    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was scored is kept", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except InputError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(EXIT_INPUT)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
