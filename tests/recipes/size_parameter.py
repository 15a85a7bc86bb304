"""A size parameter: KiB at the bottom of the scratchpad that programs leave alone."""

from __future__ import annotations

from tests.recipes.recipe import Edit, Recipe, after

_MACHINE = "simulator/machine/machine.py"

RECIPE = Recipe(
    change="size parameter",
    most=6,
    edits=(
        after(
            _MACHINE,
            "    kib: Annotated[Kib, LAYOUT]\n",
            "    reserved_kib: Annotated[int, Field(ge=0, le=2**24), LAYOUT] = 0\n",
        ),
        Edit(_MACHINE, "        return self.kib * 1024\n", "        return (self.kib - self.reserved_kib) * 1024\n"),
        Edit(
            "docs/machine.md",
            "| scratchpad | activations: two input buffers, and output buffers; one space in a network (M2) |",
            "| scratchpad | activations: two input buffers, and output buffers; one space in a network (M2); "
            "`reserved_kib` of it are left alone |",
        ),
    ),
)


def check() -> None:
    import numpy as np

    from simulator import InputError, Machine, execute, simulate
    from tests.recipes.small_program import dense_program, saved_and_loaded, small_machine

    machine = small_machine().with_(scratchpad={"kib": 64})
    less = machine.with_(scratchpad={"reserved_kib": 48})
    assert less.layout_key != machine.layout_key and Machine.from_dict(less.to_dict(), "file") == less
    program, weight = dense_program(less, inputs=700, outputs=6, tokens=30)
    whole, _ = dense_program(machine, inputs=700, outputs=6, tokens=30)
    assert program.layers[0].block_tokens < whole.layers[0].block_tokens
    x = np.random.default_rng(1).normal(size=(30, 700))
    np.testing.assert_allclose(execute(saved_and_loaded(program), {"layer": x})["layer"], x @ weight.T, atol=1e-4)
    try:
        simulate(program, machine)
    except InputError as error:
        assert "laid out for" in str(error)
    else:
        raise AssertionError("a program ran on a machine of another layout")
