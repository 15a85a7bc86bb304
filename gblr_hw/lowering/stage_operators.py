"""Operators of a network with BLAST weights of more ranks than rank memory holds: in stages, as operators of their own.

The codes between the stages are a tensor, a run of channels for each part of the first stage; a product reads the codes
of its output block in each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gblr_hw.lowering.chains.stage_blast import Stages, stages_of
from gblr_hw.lowering.split_wide import part_of
from gblr_hw.weights.stored import LayerWeights
from simulator.machine.machine import Machine
from simulator.network.network import Digit, Network, Operand, Operator, Strides, Tensor
from simulator.program.schedule import Slice


def in_stages(
    network: Network, weights: Mapping[str, LayerWeights], machine: Machine
) -> tuple[Network, dict[str, LayerWeights]]:
    """The same network with such operators in stages, where they run faster so than whole or dense."""
    tensors, operators, numbers = dict(network.tensors), [], dict(weights)
    for operator in network.operators:
        held = weights.get(operator.name)
        stages = None if held is None else stages_of(operator.name, held, machine, operator.rows, equal=True)
        if stages is None or stages.least_cycles > stages.least_whole:
            operators.append(operator)
            continue
        del numbers[operator.name]
        operators += _staged(operator, stages, tensors, numbers)
    if len(operators) == len(network.operators):
        return network, numbers
    return replace(network, tensors=tensors, operators=tuple(operators)), numbers


def _staged(
    operator: Operator, stages: Stages, tensors: dict[str, Tensor], numbers: dict[str, LayerWeights]
) -> list[Operator]:
    """The operators of both stages; their tensors and weights are added to what there is."""
    sizes = [chain.out_features for chain in stages.codes.values()]
    written = tensors[operator.output]
    codes = replace(
        written, name=f"{operator.output}.ranks", groups=1, width=sum(sizes), padded=False, within=None, kind="result"
    )
    tensors[codes.name] = codes
    made = []
    for number, (name, chain) in enumerate(stages.codes.items()):
        own = codes
        if len(sizes) > 1:
            first = sum(sizes[:number])
            own = replace(
                codes, name=f"{codes.name}[{first}:{first + sizes[number]}]", width=sizes[number],
                within=(codes.name, 0, first),
            )  # fmt: skip
            tensors[own.name] = own
        made.append(replace(operator, name=name, output=own.name))
        numbers[name] = chain
    at = 0
    for name, (held, runs) in stages.products.items():
        part, tensor = part_of(operator, written, at, at + held.out_features)
        at += held.out_features
        operand = _operand(codes, runs, sizes[0], operator.tokens)
        tensors[tensor.name], numbers[name] = tensor, held
        made.append(replace(part, name=name, operands=(operand,)))
    return made


def _operand(codes: Tensor, runs: tuple[Slice, ...], size: int, tokens: int) -> Operand:
    """What a product reads: the same run of the codes of each part of the first stage, ``size`` channels apart."""
    width = runs[0].last - runs[0].first
    if len(runs) == 1:
        return Operand(codes.name, tokens, 1, width, channel0=runs[0].first)
    rows = (Digit(codes.batch, batch=1), Digit(tokens, token=1))
    channels = (Digit(len(runs), channel=size), Digit(width, channel=1))
    return Operand(
        codes.name, tokens, 1, len(runs) * width, channel0=runs[0].first, access="strided",
        strides=Strides(rows, channels),
    )  # fmt: skip
