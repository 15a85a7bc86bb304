"""Colours of all pictures: those of Okabe and Ito ("Color Universal Design", 2008), told apart under every common
colour blindness.
"""

from __future__ import annotations

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT_GREY = "#666666", "#BBBBBB"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW, GREY)

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
