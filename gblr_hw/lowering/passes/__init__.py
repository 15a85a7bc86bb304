"""The passes over one layer; ``PASSES`` of gblr_hw/lowering/lower_layer.py has their order."""
