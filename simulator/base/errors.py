"""The one exception type that means "your input, not our code": the command line turns it into one paragraph and exit
code 2.
"""

from __future__ import annotations

from typing import NoReturn

from simulator.base.text import printable, shortened

# What to do about a program that breaks a rule which lowering keeps.
NOT_OURS = "The program is damaged or not ours: lower the checkpoint or the model again."

_MOST_VALUE = 200  # characters
_MOST_TOLD = 980  # characters of the paragraph: a terminal's screen holds it
_MOST_PART = 250  # of the place, the rule and the remedy of a paragraph that would be longer


class DeadlockError(RuntimeError):
    """A program that cannot proceed; the message names the instruction that waits and what it waits for."""


class InputError(ValueError):
    """Bad input, told in one paragraph: where it is, its value, the rule that it breaks and what to do about it.

    A long value loses its middle, and the other parts do where the whole would be over some thousand characters; no
    part holds characters that act on a terminal.

    Parameters
    ----------
    where: the file, tensor, field or option at fault, from the outside in (``"ckpt.pt: tensor 'fc1.widths'"``).
    value: what was found there.
    rule: the rule that it breaks, as a statement (``"widths must lie in [0, 1]"``).
    remedy: what the user can do.
    """

    def __init__(self, where: str, value: str, rule: str, remedy: str) -> None:
        where, value, rule, remedy = (printable(part) for part in (where, value, rule, remedy))
        value = shortened(value, _MOST_VALUE)
        if len(_paragraph(where, value, rule, remedy)) > _MOST_TOLD:
            where, rule, remedy = (shortened(part, _MOST_PART) for part in (where, rule, remedy))
        self.where, self.value, self.rule, self.remedy = where, value, rule, remedy
        super().__init__(_paragraph(where, value, rule, remedy))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        return type(self), (self.where, self.value, self.rule, self.remedy)


def _paragraph(where: str, value: str, rule: str, remedy: str) -> str:
    return f"{where}: found {value}; {rule}. {remedy}"


def refuse_program(where: str, value: object, rule: str) -> NoReturn:
    """Raise InputError for a part of a program that lowering does not make."""
    raise InputError(where, str(value), rule, NOT_OURS)
