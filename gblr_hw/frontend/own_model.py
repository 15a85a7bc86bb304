"""The user's own model file: whatever their code does, they are told where, and it is not taken for success."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from gblr_hw.frontend.foreign_code import quiet, text_of, told_error, unended
from simulator.base.errors import InputError

Made = TypeVar("Made")
_RETURNS = "the function takes nothing and returns (nn.Module, example inputs) or, with a dict, keyword arguments too"
_YIELDS = "the function takes nothing and returns or yields batches, which the model is called with"
LOADERS_RULE = (
    "the function takes nothing and returns (batches to train on, held-out batches), two loaders or lists of batches "
    "(inputs, wanted), and may return a function (model, batch) -> loss as a third"
)
_REMEDY = "Mend it there, or run the file with Python to see more."


def own_model(name: str) -> tuple[nn.Module, Any, dict[str, Any]]:
    """The model, in evaluation mode, the example inputs and the keyword arguments beside them (none, unless it says)
    that ``FILE.py:FUNCTION`` returns.

    Raises InputError for a file that is not there, whatever running it or the function raises (an exit among it),
    with its line, and for a function that takes arguments or returns anything else.
    """
    path, function, made = _function_of("model", name)
    if callable(made):
        _check_arguments(f"model '{name}'", function, made, _RETURNS)
        built = _run(f"model '{name}'", path, made)
    else:
        built = made
    if not (callable(made) and _is_model(built)):
        if inspect.iscoroutine(built):
            built.close()  # it would warn that nobody awaited it
        raise InputError(
            f"model '{name}'",
            f"{function} = {type(built).__name__}",
            _RETURNS,
            "Write such a function.",
        )
    model, inputs, *kwargs = built
    _run(f"model '{name}'", path, model.eval)
    return model, inputs, dict(kwargs[0]) if kwargs else {}


def own_batches(name: str) -> list[Any]:
    """What ``FILE.py:FUNCTION`` yields: batches that a model is called with.

    Raises InputError as `own_model` does, and for a function that yields nothing.
    """
    path, function, made = _function_of("data", name)
    where = f"data '{name}'"
    if not callable(made):
        raise InputError(where, f"{function} = {type(made).__name__}", _YIELDS, "Write such a function.")
    _check_arguments(where, function, made, _YIELDS)
    found = _run(where, path, lambda: _listed(made()))
    if not found:
        raise InputError(where, "no batch", _YIELDS, "Yield one at least.")
    return found


def own_loaders(name: str) -> tuple[Any, Any, Callable[[nn.Module, Any], Any] | None]:
    """The batches to train on, the held-out ones, and the loss (None: cross entropy) that ``FILE.py:FUNCTION`` returns.

    Raises InputError as `own_model` does, and for loaders that are no two of a length that is not zero.
    """
    path, function, made = _function_of("data", name)
    where = f"data '{name}'"
    if not callable(made):
        raise InputError(where, f"{function} = {type(made).__name__}", LOADERS_RULE, "Write such a function.")
    _check_arguments(where, function, made, LOADERS_RULE)
    given = _run(where, path, made)
    if not isinstance(given, tuple) or len(given) not in (2, 3) or (len(given) == 3 and not callable(given[2])):
        found = f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__
        raise InputError(where, found, LOADERS_RULE, "Return such a tuple.")
    for what, loader in zip(("training", "held-out"), given, strict=False):
        if not isinstance(loader, Sized) or not hasattr(loader, "__iter__") or hasattr(loader, "shape"):
            raise InputError(where, f"{what} batches: {type(loader).__name__}", LOADERS_RULE, "Give a DataLoader.")
        if not len(loader):
            raise InputError(where, f"{what} batches: none", LOADERS_RULE, "Give one at least.")
    return given[0], given[1], given[2] if len(given) == 3 else None


def own_call(where: str, file: Path, call: Callable[[], Made]) -> Made:
    """What a call into the user's code returns; InputError, with the file's line, for whatever it raises."""
    return _run(where, file, call)


def own_training(files: Mapping[str, Path], call: Callable[[], Made]) -> Made:
    """What our own code returns, which calls the user's now and then; files: what is in each, "data 'mine.py:loaders'".

    Raises InputError, with the file's line, for what the user's code raises: an error whose traceback passes through
    one of the files or a neighbour of theirs. Any other error is not theirs, and comes out as it is.
    """
    try:
        with quiet(), unended():
            return call()
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # an exit among it
        for where, path in files.items():
            line = _line_of(error, path)
            if line is not None:
                raise _of_user(error, where, f"{path}:{line}") from error
        for where, path in files.items():
            beside = _place_beside(error, path)
            if beside:
                raise _of_user(error, where, beside) from error
        raise


def _of_user(error: BaseException, where: str, place: str) -> InputError:
    return InputError(
        f"{where}, {place}", told_error(error),
        "the file and its function run to their end, without an error or an exit", _REMEDY,
    )  # fmt: skip


def _place_beside(error: BaseException, path: Path) -> str:
    """Where in a file beside the user's an error was last, as FILE:LINE; nothing where it was in none."""
    folder = path.absolute().parent
    found = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder]
    return f"{Path(found[-1].filename).name}:{found[-1].lineno}" if found else ""


def _listed(given: Any) -> list[Any]:
    if not hasattr(given, "__iter__") or hasattr(given, "shape") or isinstance(given, (str, Mapping)):
        raise TypeError(f"{type(given).__name__} is no series of batches")
    return list(given)


def _function_of(kind: str, name: str) -> tuple[Path, str, Any]:
    """The file of ``FILE.py:FUNCTION``, which has been run, the name of the function, and what it names there."""
    file, _, function = name.rpartition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"model_file_{path.stem}", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise InputError(f"{kind} '{name}'", f"no file '{file}'", "it is FILE.py:FUNCTION", "Check the path.")
    module = importlib.util.module_from_spec(spec)
    # Under a name that no package has: the file may be called as one that others import.
    sys.modules[spec.name] = module
    # Its neighbours are found, as Python finds them for a script, but never in the place of a package.
    folder = str(path.absolute().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    _run(f"{kind} '{name}'", path, lambda: _executed(spec.loader, module))
    made = getattr(module, function, None)
    return path, function, made


def _is_model(built: Any) -> bool:
    """Whether a function's result is (module, example inputs) or (module, example inputs, keyword arguments)."""
    if not (isinstance(built, tuple) and len(built) in (2, 3) and isinstance(built[0], nn.Module)):
        return False
    return len(built) == 2 or (isinstance(built[2], Mapping) and all(isinstance(key, str) for key in built[2]))


def _executed(loader: Any, module: ModuleType) -> None:
    """The module run, without compiled files left beside it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before


def _check_arguments(where: str, function: str, made: Callable[..., Any], rule: str) -> None:
    try:
        inspect.signature(made).bind()
    except TypeError as error:
        raise InputError(
            where,
            f"{function}{inspect.signature(made)}: {error}",
            rule,
            "Give its arguments defaults.",
        ) from error
    except ValueError:  # one that Python cannot look into
        return


def _run(where: str, path: Path, call: Callable[[], Made]) -> Made:
    try:
        with quiet(), unended():
            return call()
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:  # an exit among it
        line = _line_of(error, path)
        raise _of_user(error, where, f"{path}{f':{line}' if line else ''}") from error


def _line_of(error: BaseException, path: Path) -> int | None:
    """The last line of the file that was running, or that does not parse."""
    own = str(path.absolute())  # as Python names a module's file
    if isinstance(error, SyntaxError) and error.filename == own:
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    # A worker of a DataLoader tells its traceback as text.
    lines += [int(line) for line in re.findall(f'File "{re.escape(own)}", line ([0-9]+)', text_of(error))]
    return lines[-1] if lines else None
