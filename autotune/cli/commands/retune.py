"""Tuning again as traffic drifts: `autotune retune`, and accept and history below it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from autotune.cli.options import JSON, SET, STUDY, TABLE

TIMEOUT = "30s"
EXIT_REFUSED = 4
EXIT_SWITCH = 10
EXIT_BUSY = 75
ELSEWHERE: dict[str, str] = {"replay": "replay"}
"""Subcommands defined in modules of their own: name -> module of autotune.cli.commands."""

STATE = click.option(
    "--state",
    required=True,
    type=click.Path(file_okay=False),
    help="Folder of the ledger, current.json and the lock; made where it does not exist.",
)
NOW = click.option("--now", metavar="TIME", help="ISO 8601 or Unix seconds. Default: the log's last request, or now.")


class DefaultGroup(click.Group):
    """A group whose first argument may be a subcommand; without one it is the command named `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before arguments that name no subcommand."""
        if args and args[0] not in ("-h", "--help") and args[0] not in self.list_commands(ctx):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Subcommands but `run`, which has no name of its own for users."""
        return [name for name in super().list_commands(ctx) if name != "run"] + list(ELSEWHERE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of that name; imported where it lives elsewhere."""
        if cmd_name in ELSEWHERE:
            command: click.Command = getattr(
                importlib.import_module(f"autotune.cli.commands.{ELSEWHERE[cmd_name]}"), cmd_name
            )
            return command
        return super().get_command(ctx, cmd_name)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both ways of calling it."""
        formatter.write_usage(ctx.command_path, "STUDY --traffic FILE|URL --state DIR [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of `run`, then the subcommands."""
        click.Command.format_options(self.commands["run"], ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=DefaultGroup)
def retune() -> None:
    """Decide whether today's traffic is worth another plan. One shot, for cron, systemd timers and CronJobs.

    The window's traffic is compared with what the current plan was chosen for. Without drift nothing is tuned. Else
    the current plan and the best one are put on the same traffic, and a switch is recommended when its gain over a
    horizon, less what it costs, is large and sure enough (table `retune` of the study; `switch` says what it costs).
    Every decision is a line of the ledger; the same window decides once.

    \b
    autotune retune studies/deepseek-v3-128xh200.toml --traffic requests.csv --state state
    autotune retune history --state state
    autotune retune accept --state state

    Exit code 0 (with --detailed-exitcode 0: keep, 10: switch); 4: the window cannot be judged; 75: another run is at
    work on the state; 2: the input is wrong.
    """


@retune.command(name="run", hidden=True)
@STUDY
@SET
@click.option("--traffic", required=True, metavar="FILE|URL", help="Request log, or metrics of a running server.")
@STATE
@click.option("--window", default="24h", show_default=True, metavar="TIME", help="How far back: 90m, 24h, 7d.")
@NOW
@click.option(
    "--timeout",
    default=TIMEOUT,
    show_default=True,
    metavar="TIME",
    help="Of an address: for each answer, 20 times it in all.",
)
@click.option("--apply", is_flag=True, help="Make a recommended switch the current plan at once.")
@click.option("--detailed-exitcode", is_flag=True, help="0: keep, 10: a switch is recommended.")
@click.option("--metrics", type=click.Path(dir_okay=False), help="Prometheus text file to replace.")
@JSON
@TABLE
def run(**options: Any) -> None:
    """Decide on the window that ends now."""
    from autotune.cli.retune import run_retune

    sys.exit(run_retune(**options))


@retune.command()
@STATE
@click.option("--id", "decision", metavar="ID", help="Beginning of a decision's id. Default: the latest decision.")
@NOW
@JSON
@TABLE
def accept(**options: Any) -> None:
    """Make a recommended switch the current plan: a line in the ledger, and current.json."""
    from autotune.cli.retune import run_accept

    sys.exit(run_accept(**options))


@retune.command()
@STATE
@click.option("--last", default=0, type=click.IntRange(0), help="Entries to show, the newest; 0 for all.")
@JSON
@TABLE
def history(**options: Any) -> None:
    """Show the ledger: what was decided, why, and what was put into production."""
    from autotune.cli.retune import run_history

    run_history(**options)
