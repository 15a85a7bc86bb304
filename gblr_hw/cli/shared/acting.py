"""Options that can do nothing: whoever gives one is told so, rather than being left to trust that it acted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from simulator.base.errors import InputError

# What stands in a table for an option that acts whatever else is given.
ALWAYS: tuple[str, ...] = ()

_GIVEN = ("COMMANDLINE", "ENVIRONMENT")


def check_acting(context: typer.Context, given: Sequence[str], acts_with: Mapping[str, tuple[str, ...]]) -> None:
    """Raise InputError for an option that was given, and that acts with nothing of what is ``given``.

    given: what this call is about ("a program", "a known network"), then what else options may act with. acts_with:
    parameter's name -> what it acts with, one of which is enough, or ALWAYS; every parameter of the command stands in
    the table.
    """
    parameters = {str(parameter.name): parameter for parameter in context.command.params if parameter.name != "help"}
    unlike = set(parameters) ^ set(acts_with)
    if unlike:
        raise RuntimeError(f"{context.command.name}: the table and the command differ in {', '.join(sorted(unlike))}")
    for name, parameter in parameters.items():
        needed = acts_with[name]
        if needed and not set(needed) & set(given) and _is_given(context, name):
            option = _shown(parameter)
            about = [given[0], *(other for other in given[1:] if other.startswith("--") and other != option)]
            raise InputError(
                f"{option} with {' and '.join(about)}",
                "nothing for it to act on",
                f"it acts with {' or '.join(needed)}",
                "Leave it out.",
            )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in _GIVEN


def _shown(parameter: Any) -> str:
    """An option by its long name, an argument by its own."""
    options = [option for option in parameter.opts if option.startswith("--")]
    return options[0] if options else f"argument {str(parameter.name).upper()}"
