"""The dense layers of a checkpoint that shell patterns choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from gblr_hw.weights.stored import DenseWeights, LayerWeights
from simulator.base.errors import InputError


def dense_layers(
    layers: Mapping[str, LayerWeights], where: str, include: Sequence[str] | None, exclude: Sequence[str] | None
) -> dict[str, DenseWeights]:
    """Dense layers under a name that some pattern of `include` matches (all, if None) and none of `exclude`.

    Raises InputError, naming `where`, if there is none, and for a pattern that matches no dense layer.
    """
    names = [name for name, weights in layers.items() if isinstance(weights, DenseWeights)]
    for what, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns or ():
            if names and not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"{what} pattern '{pattern}'",
                    f"no dense layer of that name in {where}",
                    f"dense layers are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}",
                    "Check the pattern.",
                )
    dense = {
        name: weights
        for name, weights in layers.items()
        if isinstance(weights, DenseWeights)
        and any(fnmatchcase(name, pattern) for pattern in include or ("*",))
        and not any(fnmatchcase(name, pattern) for pattern in exclude or ())
    }
    if not dense:
        raise InputError(
            where,
            "no dense layer",
            "there must be something to approximate",
            "Check which file it is, and the patterns.",
        )
    return dense
