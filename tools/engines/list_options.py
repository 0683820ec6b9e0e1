"""Run by the engines' own Python: the options of a server's parser as JSON, with their spellings, defaults and choices.

Its argument is the engine; the list goes to standard output, after whatever the engine says while it is imported.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import read_sglang
import read_vllm
from stand_ins import stand_in


def _parser(engine: str) -> argparse.ArgumentParser:
    if engine == "vllm":
        stand_in(*read_vllm.NAMES)
        read_vllm.pretend_h100()
        from vllm.entrypoints.common.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        return make_arg_parser(FlexibleArgumentParser())
    stand_in(*read_sglang.NAMES)
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return parser


def _plain(value: Any) -> str | int | float | bool | None:
    """A default as our lists keep it: objects and callables are found at start, and count as none."""
    if value == {} or value == argparse.SUPPRESS:
        return "{}" if value == {} else None
    return value if isinstance(value, (str, int, float, bool)) else None


def main() -> None:
    """Writes the list; a second way to say a value, which the parser keeps under the same name, goes by its own."""
    found = dict[str, dict[str, Any]]()
    for action in _parser(sys.argv[1])._actions:  # noqa: SLF001  # argparse has no other list
        if not action.option_strings or action.dest == "help":
            continue
        own = action.option_strings[0].lstrip("-").replace("-", "_")
        found[own if action.dest in found else action.dest] = {
            "flags": list(action.option_strings),
            "default": _plain(action.default),
            "choices": sorted(map(str, action.choices or ())),
        }
    sys.stdout.write("\n@options " + json.dumps(found))


if __name__ == "__main__":
    main()
