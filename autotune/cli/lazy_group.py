"""Groups of commands that are imported when they are named."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own, and which may do something without a command.

    Args:
        homes: command -> module of `autotune.cli` that defines it under that name, or `module:name`; in the order of
            `--help`.
        default: the command, defined in the group, that is meant where no other is named.
    """

    def __init__(self, *, homes: Mapping[str, str], default: str | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._homes = homes
        self._default = default

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands; the default has none for users."""
        return [name for name in super().list_commands(ctx) if name != self._default] + list(self._homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or nothing."""
        if cmd_name not in self._homes:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._homes[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"autotune.cli.{module}"), attribute or cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named first.

        Raises:
            click.UsageError: there is none of that name; the nearest is named.
        """
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no such command {args[0]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default before arguments that name no command."""
        if self._default and args and args[0] not in ("-h", "--help", *self.list_commands(ctx)):
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every way of calling it."""
        if self._default:
            command = self.commands[self._default]
            needed = [p for p in command.get_params(ctx) if p.required and isinstance(p, click.Option)]
            options = [f"{p.opts[0]} {p.metavar}" for p in needed]
            formatter.write_usage(ctx.command_path, " ".join([*command.collect_usage_pieces(ctx), *options]))
        super().format_usage(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the default, then the commands."""
        if self._default:
            click.Command.format_options(self.commands[self._default], ctx, formatter)
            self.format_commands(ctx, formatter)
        else:
            super().format_options(ctx, formatter)
