"""The front end: any nn.Module in evaluation mode as an operator graph (`export_network`)."""

from gblr_hw.frontend.count import multiplications_of, spent_multiplications
from gblr_hw.frontend.export import ExportedNetwork, export_network

__all__ = ["ExportedNetwork", "export_network", "multiplications_of", "spent_multiplications"]
