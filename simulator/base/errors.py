"""The one exception type that means "your input, not our code": the command line turns it into one paragraph and exit
code 2.
"""

from __future__ import annotations


class InputError(ValueError):
    """Bad input, told in one paragraph: where it is, its value, the rule that it breaks and what to do about it.

    Parameters
    ----------
    where: the file, tensor, field or option at fault, from the outside in (``"ckpt.pt: tensor 'fc1.widths'"``).
    value: what was found there.
    rule: the rule that it breaks, as a statement (``"widths must lie in [0, 1]"``).
    remedy: what the user can do.
    """

    def __init__(self, where: str, value: str, rule: str, remedy: str) -> None:
        self.where, self.value, self.rule, self.remedy = where, value, rule, remedy
        super().__init__(f"{where}: found {value}; {rule}. {remedy}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str, str]]:
        return type(self), (self.where, self.value, self.rule, self.remedy)
