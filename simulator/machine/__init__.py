"""The machine as data, with what its events cost in energy and its parts in area."""
