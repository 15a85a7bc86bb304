"""Ask a script that runs in the peers' own environment (`make peers-env`) over standard input and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS_PYTHON = HERE.parents[1] / ".venv-peers" / "bin" / "python"


def ask(script: str, jobs: list[Any], python: Path = PEERS_PYTHON) -> list[dict[str, Any]]:
    """What ``script`` answers to ``jobs``, on one thread; ends the program where the environment is missing."""
    if not python.is_file():
        sys.exit(f"error: no {python}: `make peers-env` makes the environment of SCALE-Sim and ZigZag.")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [str(python), "-W", "ignore", str(HERE / script)]
    answer = subprocess.run(command, input=json.dumps(jobs), text=True, capture_output=True, env=environment)
    if answer.returncode:
        sys.exit(f"error: {script} failed:\n{answer.stderr}")
    return json.loads(answer.stdout)
