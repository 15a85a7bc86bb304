"""Run SCALE-Sim 3.0 on layers read from standard input; needs nothing but scalesim (see `make peers-env`).

Input: a JSON list of {"line", "dataflow", "rows", "cols", "sram_kib"}, a line being a topology line without its name
("197,768,768," is M, N, K; seven numbers are a convolution), the last the size of each of its three memories. Output:
a JSON list of {"compute_cycles", "utilisation", "mapping_efficiency", "cpu_s"} in the same order. CPU seconds are those
of this process from the tool's construction to its last report.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from scalesim.scale_sim import scalesim

BANKS = {"CustomLayout": "False", "SRAMBankBandwidth": 10, "SRAMBankNum": 10, "SRAMBankPort": 2}
CONFIG = {
    "general": {"run_name": "run"},
    "run_presets": {"InterfaceBandwidth": "CALC", "UseRamulatorTrace": "False"},
    "architecture_presets": {
        "IfmapOffset": 0,
        "FilterOffset": 10**9,
        "OfmapOffset": 2 * 10**9,
        "ReadRequestBuffer": 64,
        "WriteRequestBuffer": 64,
    },
    "layout": {f"{name}{key}": value for name in ("Ifmap", "Filter") for key, value in BANKS.items()},
    "sparsity": {"SparsitySupport": "False"},
}


def main() -> None:
    jobs = json.load(sys.stdin)
    json.dump([run(**job) for job in jobs], sys.stdout)


def run(line: str, dataflow: str, rows: int, cols: int, sram_kib: int) -> dict[str, float]:
    """One layer on one array."""
    array = {"ArrayHeight": rows, "ArrayWidth": cols, "Dataflow": dataflow}
    memories = {f"{name}sramszkB": sram_kib for name in ("ifmap", "filter", "ofmap")}
    sections = {**CONFIG, "architecture_presets": {**CONFIG["architecture_presets"], **array, **memories}}
    with tempfile.TemporaryDirectory() as folder:
        config, topology, layout = (Path(folder) / name for name in ("config.cfg", "topology.csv", "layout.csv"))
        config.write_text("\n".join(_section(name, values) for name, values in sections.items()))
        topology.write_text(f"heading,\nlayer,{line}\n")
        # A layout is read whether it is used or not; its numbers are not looked at here.
        layout.write_text("heading,\nlayer," + "1," * 20 + "\n")
        begin = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            tool = scalesim(
                save_disk_space=True,
                verbose=False,
                config=str(config),
                topology=str(topology),
                layout=str(layout),
                input_type_gemm=line.count(",") == 3,
            )
            tool.run_scale(top_path=str(Path(folder) / "out"))
        cpu_s = time.process_time() - begin
        (layer,) = tool.runner.single_layer_sim_object_list
        _, cycles, stalls, utilisation, mapping, _ = layer.get_compute_report_items()
    if stalls:
        raise RuntimeError(f"{line} on {rows} x {cols} {dataflow}: {stalls} stall cycles in a mode without stalls")
    return {
        "compute_cycles": int(cycles),
        "utilisation": float(utilisation) / 100,
        "mapping_efficiency": float(mapping) / 100,
        "cpu_s": cpu_s,
    }


def _section(name: str, values: dict[str, object]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in values.items())])


if __name__ == "__main__":
    main()
