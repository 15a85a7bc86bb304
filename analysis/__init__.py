"""Pictures, traces and tables of simulation reports and plain records. Knows nothing of torch."""

from simulator.base.pictures import add_picture

# What ``plot`` of the simulator's objects draws: class, kind, module and function.
for _entry in (
    ("Report", "bars", "analysis.pictures.layer_bars", "draw_layer_bars"),
    ("Report", "roofline", "analysis.pictures.roofline", "draw_roofline"),
    ("Report", "timeline", "analysis.pictures.timeline", "draw_timeline"),
    ("Program", "bars", "analysis.pictures.plots", "draw_program_bars"),
    ("Program", "roofline", "analysis.pictures.plots", "draw_program_roofline"),
    ("Program", "timeline", "analysis.pictures.plots", "draw_program_timeline"),
    ("Machine", "area", "analysis.pictures.plots", "draw_machine_area"),
):
    add_picture(*_entry)
