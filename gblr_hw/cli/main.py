"""``gblr-hw``: the commands together, and what an error looks like to the shell.

Exit codes: 0 done, 1 an error of ours, 2 bad input or usage (one paragraph on standard error), 3 a program that cannot
finish (deadlock), 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from gblr_hw.cli.convert_command import convert_command
from gblr_hw.cli.demo_command import demo_command
from gblr_hw.cli.front_command import front_command
from gblr_hw.cli.lower_command import lower_command
from gblr_hw.cli.machine_command import machine_app
from gblr_hw.cli.show_command import show_command
from gblr_hw.cli.simulate_command import simulate_command
from gblr_hw.cli.train_command import train_command
from simulator.engine import DeadlockError
from simulator.errors import InputError

app = typer.Typer(
    name="gblr-hw",
    help="What is a learned block low-rank structure worth on hardware? Train or convert a network, lower it to a "
    "block-schedule program, simulate it cycle by cycle, and draw the latency-accuracy front.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo_command)
app.command("train")(train_command)
app.command("convert")(convert_command)
app.command("lower")(lower_command)
app.command("show")(show_command)
app.command("simulate")(simulate_command)
app.command("front")(front_command)
app.add_typer(machine_app, name="machine")


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
