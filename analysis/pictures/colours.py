"""Colours of all pictures: those of Okabe and Ito ("Color Universal Design", 2008), told apart under every common
colour blindness. This table and that of families (`family_marks.py`) are the only ones: no picture has colours of its
own, so that an operation, a cause, a kind of operator and a family look the same wherever they are drawn, and on the
page of results.
"""

from __future__ import annotations

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT_GREY = "#666666", "#BBBBBB"
LINE_GREY, GRID_GREY, PALE_GREY = "#444444", "#DDDDDD", "#F2F2F2"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, GREY)
# Ways to hold a layer that are no family's: dense tiles of few bits, and these with ranks beside them.
NARROW, NARROW_AND_RANKS = "#999999", "#7A4FBF"

CAUSE_COLOURS = {
    "compute": BLUE,
    "bank_conflict": VERMILLION,
    "weight_preload": SKY,
    "wait_weights": ORANGE,
    "wait_input": YELLOW,
    "wait_array": GREEN,
    "wait_vector": PURPLE,
    "tail": GREY,
}
