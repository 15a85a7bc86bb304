"""Options of a command as the fields of a frozen dataclass: they are defined there, and the command gets one value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature
from typing import Any, TypeVar, get_type_hints

import typer

Options = TypeVar("Options")


def takes(options: type[Options]) -> Callable[[Callable[[typer.Context, Options], None]], Callable[..., None]]:
    """A decorator: the command, to which the command line gives the fields of ``options``, in their order.

    options: dataclass whose fields are annotated as typer's parameters are. A field that is of such a dataclass itself
    stands for its own fields, so that options which go together are defined once.
    """
    parameters = [Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context), *_parameters(options)]

    def command(run: Callable[[typer.Context, Options], None]) -> Callable[..., None]:
        @wraps(run)
        def called(context: typer.Context, **given: Any) -> None:
            run(context, _made(options, given))

        # What typer reads, in place of the signature of ``run``.
        called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return command


def _parameters(options: Any) -> Iterator[Parameter]:
    kinds = get_type_hints(options, include_extras=True)
    for field in fields(options):
        kind = kinds[field.name]
        if is_dataclass(kind):
            yield from _parameters(kind)
        else:
            default = Parameter.empty if field.default is MISSING else field.default
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _made(options: Any, given: Mapping[str, Any]) -> Any:
    kinds = get_type_hints(options)
    return options(
        **{
            field.name: _made(kinds[field.name], given) if is_dataclass(kinds[field.name]) else given[field.name]
            for field in fields(options)
        }
    )
