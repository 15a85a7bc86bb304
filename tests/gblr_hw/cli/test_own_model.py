"""``gblr-hw lower --model FILE.py:FUNCTION`` where the user's code fails: one paragraph with its line, never success."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli
from tests.gblr_hw.cli.conftest import Refusal

HEAD = "import torch\nfrom torch import nn\n"
MODEL = (
    HEAD
    + "class Net(nn.Module):\n    def forward(self, x):\n        {body}\ndef build():\n    return Net(), (torch.ones(4, 6),)\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build():\n    x = 1\n    return x / 0\n", "model 'own.py:build', own.py:3: found ZeroDivisionError: division"),
        ("def build(:\n", "model 'own.py:build', own.py:1: found SyntaxError: "),
        ("x = 1\n  y = 2\n", "own.py:2: found IndentationError: unexpected indent"),
        ("\nimport not_there\n", "own.py:2: found ModuleNotFoundError: No module named 'not_there'; the file and its func"),
        ("from torch import not_there\n", "own.py:1: found ImportError: cannot import name 'not_there'"),
        ("import sys\nsys.exit(0)\n", "own.py:2: found SystemExit: 0; the file and its function run to their end, without"),
        ("def build():\n    raise SystemExit\n", "own.py:2: found SystemExit; the file and its function run to their end"),
        ("def build():\n    return build()\n", "own.py:2: found RecursionError: maximum recursion depth exceeded"),
        ("def build(size):\n    return size\n", "build(size): missing a required argument: 'size'; the function takes no"),
        ("def build(*, size):\n    return size\n", "build(*, size): missing a required argument: 'size'; the function"),
        ("def build():\n    return None\n", "build = NoneType; the function takes nothing and returns (nn.Module, example"),
        ("build = 3\n", "build = int; the function takes nothing and returns"),
        ("def build():\n    import torch\n    return torch.nn.Linear(2, 2)\n", "build = Linear; the function takes nothing"),
        (HEAD + "def build():\n    return nn.Linear(2, 3), (torch.ones(4, 5),)\n", "model Linear: found RuntimeError: "),
        ("raise RuntimeError('\\x1b[2J' + 'a' * 5000)\n", "own.py:1: found RuntimeError: \\x1b[2Jaaa"),
        (MODEL.format(body="raise ValueError('no')"), "model Net: found ValueError: no; torch.export has to follow"),
        (MODEL.format(body="raise SystemExit(0)"), "model Net: found SystemExit: 0; torch.export has to follow"),
        (MODEL.format(body="return torch.ones(3)"), "model Net: found no output that depends on an input (of 1); a network computes"),
        (MODEL.format(body="return None"), "model Net: found no output that depends on an input (of 0); a network"),
        (MODEL.format(body="return ()"), "model Net: found no output that depends"),
    ],
)  # fmt: skip
def test_what_fails_is_told_with_its_line(text: str, message: str, folder: Path, refusal: Refusal) -> None:
    Path("own.py").write_text(text)
    assert message in refusal("lower", "--model", "own.py:build", "-o", "x.program")
    assert not Path("x.program").exists()


@pytest.mark.parametrize("name", ["own.py", "json.py", "numba.py"])
def test_a_file_of_any_name_that_returns_its_input_is_a_program(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(name).write_text(MODEL.format(body="return x"))
    known = sys.modules.get(name[:-3])
    monkeypatch.setattr("sys.argv", ["gblr-hw", "lower", "--model", f"{name}:build", "-o", "x.program"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert Path("x.program").exists()
    assert sys.modules.get(name[:-3]) is known
