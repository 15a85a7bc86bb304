"""Names of tensors as wrappers write them, matched with the names that a model gives its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from simulator.base.errors import InputError

# What wrappers put before every name: Lightning, data parallel training, torch.compile, averaged weights.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "ema.", "student.", "backbone.", "encoder.")
_DEEPEST = 3  # components of a prefix that are tried


def renamed(names: Iterable[str], rename: Mapping[str, str]) -> dict[str, str]:
    """Each name with the longest prefix that ``rename`` has replaced; InputError for a prefix that no name begins with
    and for two names that become one.
    """
    names = list(names)
    for prefix in rename:
        if not any(name.startswith(prefix) for name in names):
            raise InputError(
                f"renaming '{prefix}'",
                "no tensor of that name",
                f"names begin with {', '.join(sorted({n.split('.')[0] for n in names})[:6])}",
                "Correct the prefix.",
            )
    found: dict[str, str] = {}
    for name in names:
        prefixes = sorted((prefix for prefix in rename if name.startswith(prefix)), key=len)
        found[name] = rename[prefixes[-1]] + name[len(prefixes[-1]) :] if prefixes else name
    if len(set(found.values())) < len(found):
        raise InputError(
            "renaming", "two tensors of one name", "every tensor keeps a name of its own", "Correct the prefixes."
        )
    return found


def matched(names: Collection[str], wanted: Collection[str]) -> dict[str, str]:
    """File name -> the model's name for it, by the prefix that is taken off and the one that is put on so that most of
    the model's names are found; of equals the least change. ``_orig_mod.`` is dropped wherever it stands.
    """
    clean = {name: name.replace("_orig_mod.", "") for name in names}
    if len(set(clean.values())) < len(clean):
        clean = {name: name for name in names}
    target = set(wanted)
    off, on = _prefixes(clean.values()), _prefixes(target)
    best, most = ("", ""), -1
    for taken in sorted(off, key=lambda p: (p.count("."), p not in _WRAPPERS, p)):
        inner = [name[len(taken) :] for name in clean.values() if name.startswith(taken)]
        for put in sorted(on, key=lambda p: (p.count("."), p)):
            hits = sum(put + name in target for name in inner)
            if hits > most:
                best, most = (taken, put), hits
    taken, put = best
    return {n: put + c[len(taken) :] if c.startswith(taken) else n for n, c in clean.items()}


def _prefixes(names: Iterable[str]) -> set[str]:
    found = {""}
    for name in names:
        parts = name.split(".")
        found.update(".".join(parts[:depth]) + "." for depth in range(1, min(_DEEPEST, len(parts) - 1) + 1))
    # Blocks number many; a prefix that ends in a number is never a wrapper's.
    return {prefix for prefix in found if not prefix.rstrip(".").rpartition(".")[2].isdigit()}
