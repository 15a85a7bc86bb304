"""Code of others while it runs: what it prints stands in no line of ours, and whatever it raises is told."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import NoReturn

import torch

# Of PyTorch's generator, from which a model's random numbers are drawn.
SEED = 0


@contextmanager
def drawn_alike() -> Iterator[None]:
    """While it lasts, a model draws the random numbers that it draws after torch.manual_seed(SEED); then PyTorch's
    generator is as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, no library warns or logs: what stands in the way is said once, by us. What is printed goes to
    standard error, since standard output may be one JSON document.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def unended() -> Iterator[None]:
    """While it lasts, ``os._exit`` raises SystemExit in this process, as ``sys.exit`` does: at once it would end as if
    all were well, or with whatever code it says.
    """
    before, process = os._exit, os.getpid()

    def raising(status: int) -> NoReturn:
        if os.getpid() != process:  # a child that was forked ends so
            before(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = raising
    try:
        yield
    finally:
        os._exit = before


def told_error(error: BaseException) -> str:
    """The type of an error, and the first line of its text if it has one."""
    lines = text_of(error).strip().splitlines()
    return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"


def text_of(error: BaseException) -> str:
    """An error's text; nothing where making it fails."""
    try:
        return str(error)
    except Exception:  # a text is made by the error's own code
        return ""
