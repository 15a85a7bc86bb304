"""``gblr-hw``: the commands together, and what an error looks like to the shell.

Exit codes: 0 done, 1 an error of ours, 2 bad input or usage (one paragraph on standard error), 3 a program that cannot
finish (deadlock), 130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from simulator.base.errors import InputError
from simulator.timing.engine import DeadlockError

_COMMANDS = {
    "demo": "demo_command:demo_command",
    "train": "train_command:train_command",
    "convert": "convert_command:convert_command",
    "codesign": "codesign_command:codesign_command",
    "lower": "lower_command:lower_command",
    "show": "show_command:show_command",
    "simulate": "simulate_command:simulate_command",
    "verify": "verify_command:verify_command",
    "front": "front_command:front_command",
    "machine": "machine_command:machine_app",
}


class _LazyGroup(TyperGroup):
    """Imports a command's module when it is called for, so that none waits for what another one needs.

    Types are those of the click that typer brings along, which has moved between its releases.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # A misspelt name is compared with all of them.
        for name in [cmd_name] if cmd_name in _COMMANDS else _COMMANDS:
            if name not in self.commands:
                self.commands[name] = _load(name)
        return self.commands.get(cmd_name)


def _load(name: str) -> Any:
    module, attribute = _COMMANDS[name].split(":")
    loaded = getattr(import_module(f"gblr_hw.cli.commands.{module}"), attribute)
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(loaded)
        loaded = app
    command = typer.main.get_command(loaded)
    command.name = name
    return command


app = typer.Typer(
    name="gblr-hw", cls=_LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def _about() -> None:
    """What is a learned block low-rank structure worth on hardware? Train or convert a network, lower it to a
    block-schedule program, simulate it cycle by cycle, and draw the latency-accuracy front.
    """


def main() -> None:
    """Run the command line; errors of the user's become one paragraph and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except DeadlockError as error:
        print(f"error: the program cannot finish: {error}", file=sys.stderr)
        sys.exit(3)
    except KeyboardInterrupt:
        print("interrupted; files that were complete are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
