"""``gblr-hw lower --model FILE.py:FUNCTION`` where the user's code fails: one paragraph with its line, never success."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from gblr_hw.cli import main as cli
from gblr_hw.frontend import export_network
from gblr_hw.frontend.own_model import own_model
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
        ("import os\nos._exit(0)\n", "own.py:2: found SystemExit: os._exit(0); the file and its function run to their"),
        (HEAD + "def build():\n    from os import _exit\n    _exit(3)\n", "own.py:5: found SystemExit: os._exit(3); the"),
        (MODEL.format(body="__import__('os')._exit(0)"), "model Net: found SystemExit: os._exit(0); torch.export has"),
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
        (MODEL.format(body="raise ValueError('no')"), "own.py:5: raise ValueError('no')."),
        (MODEL.format(body="raise SystemExit(0)"), "model Net: found SystemExit: 0; torch.export has to follow"),
        (MODEL.format(body="return torch.ones(3)"), "model Net: found no output that depends on an input (of 1); a network computes"),
        (MODEL.format(body="return None"), "model Net: found no output that depends on an input (of 0); a network"),
        (MODEL.format(body="return ()"), "model Net: found no output that depends"),
        ("raise GeneratorExit\n", "own.py:1: found GeneratorExit; the file and its function run to their end"),
        ("class Own(BaseException): pass\nraise Own('x')\n", "own.py:2: found Own: x; the file and its function"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n", "own.py:3: found E; the file and its"),
        ("async def build():\n    return None\n", "build = coroutine; the function takes nothing and returns"),
        ("import warnings\nwarnings.warn('mind')\n1 / 0\n", "own.py:3: found ZeroDivisionError"),
        (
            HEAD + "class Net(nn.Module):\n    def eval(self): raise ValueError('no')\n"
            "def build():\n    return Net(), (torch.ones(4, 6),)\n",
            "own.py:4: found ValueError: no; the file and its function run to their end",
        ),
        (MODEL.format(body="raise GeneratorExit"), "model Net: found GeneratorExit; torch.export has to follow"),
        (MODEL.format(body="return x if x.sum() > 0 else 2 * x"), "own.py:5: return x"),
        (HEAD + "def build():\n    return torch.jit.script(nn.Linear(6, 3)), (torch.ones(4, 6),)\n", "found RecursiveScri"),
        (
            HEAD + "def build():\n    return torch.jit.trace(nn.Linear(6, 3), torch.ones(4, 6)), (torch.ones(4, 6),)\n",
            "found TopLevelTracedModule; the front end follows a module's Python code, which TorchScript has left",
        ),
        (
            HEAD + "def build():\n    return nn.Linear(6, 3), (torch.ones(4, 6, dtype=torch.long),)\n",
            "a product of torch.float32 and torch.int64, which PyTorch does not compute",
        ),
    ],
)  # fmt: skip
def test_what_fails_is_told_with_its_line(text: str, message: str, folder: Path, refusal: Refusal) -> None:
    Path("own.py").write_text(text)
    assert message in refusal("lower", "--model", "own.py:build", "-o", "x.program")
    assert not Path("x.program").exists()


def test_places_in_a_list_are_refused_with_their_line_and_taken_as_a_tensor(folder: Path, refusal: Refusal) -> None:
    body = "kept = torch.full_like(x, True).bool()\n        kept[{places}] = False\n        return x * kept"
    inputs = "(torch.ones(4, 6), torch.tensor([[0, 1], [2, 3]]))"
    model = MODEL.replace("(self, x)", "(self, x, at)").replace("(torch.ones(4, 6),)", inputs)
    listed = model.format(body=body.format(places="tuple(zip(*at))"))
    Path("own.py").write_text(listed)
    told = refusal("lower", "--model", "own.py:build", "-o", "x.program")
    assert "own.py:6: kept[tuple(zip(*at))] = False; a tensor's values are taken there one by one" in told
    Path("own.py").write_text(model.format(body=body.format(places="at[:, 0], at[:, 1]")))
    module, example, _ = own_model("own.py:build")
    assert export_network(module, example).network.operators


def test_a_child_of_the_file_may_end_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os._exit
    text = "import os\nchild = os.fork()\nif not child:\n    os._exit(7)\ncode = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
    Path("own.py").write_text(text + "assert code == 7\n" + MODEL.format(body="return x"))
    ran(monkeypatch, "lower", "--model", "own.py:build", "-o", "x.program")
    assert Path("x.program").exists() and os._exit is before


@pytest.mark.parametrize("name", ["own.py", "json.py", "numba.py"])
def test_a_file_of_any_name_that_returns_its_input_is_a_program(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(name).write_text(MODEL.format(body="return x"))
    known = sys.modules.get(name[:-3])
    ran(monkeypatch, "lower", "--model", f"{name}:build", "-o", "x.program")
    assert Path("x.program").exists()
    assert sys.modules.get(name[:-3]) is known


TENSOR = "{where}: tensor '{name}': found {found}; a tensor is dense and stored in full. Give it as .to_dense() does"


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ("torch.ones(4, 6).to_sparse()", "shape (4, 6), layout torch.sparse_coo"),
        ("torch.ones(4, 6).to_sparse_csr()", "shape (4, 6), layout torch.sparse_csr"),
        ("torch.ones(4, 6, device='meta')", "shape (4, 6) on the device 'meta', which holds no numbers"),
        ("torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])", "a nested tensor"),
        ("torch.quantize_per_tensor(torch.ones(4, 6), 0.1, 0, torch.qint8)", "shape (4, 6), layout torch.strided, quant"),
    ],
)  # fmt: skip
def test_tensors_whose_numbers_are_not_there(made: str, found: str, folder: Path, refusal: Refusal) -> None:
    """As an input, a parameter, a buffer: export takes some of them, and ends the process at others."""
    lower = ("lower", "--model", "own.py:build", "-o", "x.program")
    Path("own.py").write_text(f"{HEAD}def build():\n    return nn.Linear(6, 3), ({made},)\n")
    assert TENSOR.format(where="example inputs", name="input", found=found)[:70] in refusal(*lower)
    for held in (f"net.extra = nn.Parameter({made}, requires_grad=False)", f"net.register_buffer('extra', {made})"):
        Path("own.py").write_text(
            f"{HEAD}def build():\n    net = nn.Linear(6, 3)\n    {held}\n    return net, (torch.ones(4, 6),)\n"
        )
        assert TENSOR.format(where="model Linear", name="extra", found=found)[:70] in refusal(*lower)


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["gblr-hw", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0


def test_neighbours_of_the_file_are_found_and_nothing_is_left_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("code").mkdir()
    Path("code/neighbour_of_own.py").write_text("SIZE = 6\n")
    Path("code/numba.py").write_text("raise RuntimeError('not the package')\n")
    Path("code/own.py").write_text(
        f"{HEAD}import numba\nfrom neighbour_of_own import SIZE\n"
        "def build():\n    return nn.Linear(SIZE, 3), (torch.ones(4, SIZE),)\n"
    )
    monkeypatch.setattr("sys.path", [*sys.path])
    ran(monkeypatch, "lower", "--model", "code/own.py:build", "-o", "x.program")
    assert sorted(path.name for path in Path("code").iterdir()) == ["neighbour_of_own.py", "numba.py", "own.py"]


def test_what_the_file_prints_is_in_no_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.py").write_text("print('from the file')\n" + MODEL.format(body="print('from the model'); return 2 * x"))
    ran(monkeypatch, "lower", "--model", "own.py:build", "-o", "x.program", "--json")
    said = capsys.readouterr()
    assert json.loads(said.out)["program"] == "x.program"
    assert "from the file\n" in said.err


@pytest.mark.parametrize("method", ["self, other", "self"])
def test_a_method_called_weights_that_is_the_users_own(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MODEL.format(body="return 2 * x").replace(
        "def forward", f"def weights({method}): return 1 / 0\n    def forward"
    )
    Path("own.py").write_text(text)
    ran(monkeypatch, "lower", "--model", "own.py:build", "-o", "x.program")


def test_gblr_for_a_model_without_a_layer(folder: Path, refusal: Refusal) -> None:
    Path("own.py").write_text(MODEL.format(body="return x.relu()"))
    said = refusal("lower", "--model", "own.py:build", "-o", "x.program", "--gblr", 0.5)
    assert "--gblr 0.5: found no layer to replace in 'own.py:build'; linear layers and ungrouped conv" in said
