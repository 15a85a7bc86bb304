"""The commands together, and what an error looks like to the shell.

Exit codes: 0 done, 1 an error of ours, 2 bad input or usage (one paragraph on standard error), 3 a program that cannot
finish (deadlock), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from gblr_hw.cli.interruption import Interruption, stems_from_interruption
from simulator.base.errors import InputError
from simulator.base.text import printable, shortened
from simulator.timing.engine import DeadlockError

# Click's, of the click that typer brings along.
_UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]
_MOST_TOLD = 800  # characters of a message that repeats what was typed
_COMMANDS = {
    "demo": "demo_command:demo_command",
    "train": "train_command:train_command",
    "convert": "convert_command:convert_command",
    "advise": "advise_command:advise_command",
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

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Typer would end the process without a word.
            raise Interruption from None
        except Exception as error:
            if stems_from_interruption(error):
                raise Interruption from None
            raise


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


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gblr-hw {version('gblr-hw')}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """What is a learned block low-rank structure worth on hardware? Train or convert a network, lower it to a
    block-schedule program, simulate it cycle by cycle, and draw the latency-accuracy front.
    """


def run() -> None:
    """Run the command line, and end the process: errors of the user's, and what the system refuses, are one paragraph
    and exit code 2.
    """
    code: object = 0
    try:
        try:
            code = app(standalone_mode=False, prog_name="gblr-hw")
        finally:
            # A full disk behind standard output is met here, and not when the interpreter has ended.
            sys.stdout.flush()
    except _UsageError as error:
        _stop_usage(error)
    except InputError as error:
        _stop(str(error), 2)
    except DeadlockError as error:
        _stop(f"the program cannot finish: {printable(str(error))}", 3)
    except BrokenPipeError:
        _stop("", 1)
    except OSError as error:
        _stop(str(_refused_by_system(error)), 2)
    except MemoryError as error:
        _stop(str(_out_of_memory(error)), 2)
    except RuntimeError as error:
        # torch has no class of its own for this.
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        _stop(str(_out_of_memory(error)), 2)
    sys.exit(code if isinstance(code, int) else 0)


def _stop_usage(error: Any) -> None:
    """An option or command that is not there, or a value that is not of its type; no command at all gets the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        _stop("", error.exit_code)
    command = error.ctx.command_path if error.ctx is not None else "gblr-hw"
    told = shortened(printable(error.format_message()), _MOST_TOLD)
    _stop(f"{told}{'' if told.endswith(('.', '?')) else '.'} Try `{command} --help`.", error.exit_code)


def _refused_by_system(error: OSError) -> InputError:
    return InputError(
        f"'{error.filename}'" if error.filename else "the system",
        f"'{error.strerror or error}'",
        "the system must let the command read and write there",
        "Check the name, the rights and the space that is left.",
    )


def _out_of_memory(error: Exception) -> InputError:
    lines = str(error).strip().splitlines() or ["none left"]
    return InputError(
        "memory", lines[0], "the work must fit the memory of this computer", "Ask for less, or use a larger one."
    )


def _stop(message: str, code: int) -> NoReturn:
    if message:
        print(f"error: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # What cannot be written would be tried again, and told without a sentence, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
