"""The commands together, and what an error looks like to the shell.

Exit codes: 0 done, 1 an error of ours, 2 bad input or usage (one paragraph on standard error), 3 a program that cannot
finish (deadlock), 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from gblr_hw.cli.interruption import Interruption, stems_from_interruption
from simulator.base.errors import DeadlockError, InputError
from simulator.base.text import printable, shortened

# Click's, of the click that typer brings along.
_UsageError: type[Exception] = typer.BadParameter.__base__  # type: ignore[assignment]
_MOST_TOLD = 800  # characters of a message that repeats what was typed
# Name -> where it is, and what the list says of it, its help's first sentence: so the list waits for none.
_COMMANDS = {
    "demo": (
        "demo_command:demo_command",
        "Train every family on real digits, lower and simulate it, check its outputs against PyTorch, draw the front.",
    ),
    "train": (
        "train_command:train_command",
        "Train a small vision transformer on images, or a model of your own, so that it meets a latency (or an energy) "
        "on a machine.",
    ),
    "convert": (
        "convert_command:convert_command",
        "Convert dense layers of a checkpoint, or of a model, to layers of one structure family, at a budget of the "
        "whole network.",
    ),
    "advise": (
        "advise_command:advise_command",
        "What to do with each layer: dense int8, int4, a structure, or both, at one error, by tokens and bandwidth.",
    ),
    "codesign": (
        "codesign_command:codesign_command",
        "Search P, banks, memories and structures together; `--machine` gives clock, DRAM and what is not searched.",
    ),
    "lower": (
        "lower_command:lower_command",
        "Lower a checkpoint, layer after layer in the form that runs fastest, or a whole model with all its operators.",
    ),
    "show": (
        "show_command:show_command",
        "Show a program (tiles, forms, listing) or a checkpoint (layers, sizes, multiplications, block map).",
    ),
    "simulate": (
        "simulate_command:simulate_command",
        "Simulate a program: cycles per layer or operator and per unit, with causes; bytes, energy by component, "
        "roofline.",
    ),
    "sweep": (
        "explore.sweep_command:sweep_command",
        "Sweep machines, their fields, networks, structures, sizes: cycles, energy, bytes and area of every point.",
    ),
    "compare": (
        "explore.compare_command:compare_command",
        "Compare programs operator by operator: where the cycles, bytes and joules of one differ from another's.",
    ),
    "report": (
        "explore.report_command:report_command",
        "One page of results, which opens without a network: verdict, fronts, table, roofline, cycles, maps, timeline.",
    ),
    "verify": (
        "verify_command:verify_command",
        "Compile the RTL of the program's machine, run the program on it, and compare every event's cycle and every "
        "output code with the engine's and with int8 execution.",
    ),
    "front": (
        "front_command:front_command",
        "Which networks are not beaten in both latency and accuracy, machine by machine; as a table and a picture.",
    ),
    "sensitivity": (
        "sensitivity_command:sensitivity_command",
        "Whether the order of families survives every entry's interval and every DRAM; a sentence for each claim.",
    ),
    "machine": (
        "machine_command:machine_app",
        "List the machines that come with the toolkit, or show one as a file to start from.",
    ),
}


class _LazyGroup(TyperGroup):
    """Imports a command's module when it is called for, so that none waits for what another one needs.

    Types are those of the click that typer brings along, which has moved between its releases.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # What has not been called for is listed, and what was typed compared with its name.
        for name, (_, told) in _COMMANDS.items():
            self.commands.setdefault(name, TyperCommand(name, help=told))
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _COMMANDS:
            self.commands[args[0]] = _load(args[0])
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _interruptions():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _interruptions():
            return super().invoke(ctx)


@contextmanager
def _interruptions() -> Iterator[None]:
    """Ctrl-C as what typer does not take for its own: it would end the process without a word."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interruption from None
    except Exception as error:
        if stems_from_interruption(error):
            raise Interruption from None
        raise


def _load(name: str) -> Any:
    module, attribute = _COMMANDS[name][0].split(":")
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
