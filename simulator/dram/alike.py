"""A transfer on all channels: those that are alike are served once (machine.md, rules D6 to D11).

Channels do not wait for each other, and a burst's channel is the least significant digit of its number: what a channel
does depends on its state, on the place among its own bursts at which a transfer begins, and on how many it gets. The
last two have at most four values each transfer, so that of channels in the same state at most four are served, and
the others are where one of these is: they have its line, and no state of their own, until a transfer tells them apart.

Two channels are in the same state, whatever their lines say, when nothing waits any more for a command of either and
they have the same rows open: every command of a transfer goes in the clock in which it is asked for or later, so that
a time in a line that lies, with its distance, before that clock is as good as any other, and all times are those of
commands and refreshes. (No refresh is younger than the column command behind it; and none may be due, which begins
when it is due and so asks for the times before.)

As with the controller's kernels, delete ``__pycache__`` of ``simulator/dram`` and ``simulator/timing`` behind a change.
"""

from __future__ import annotations

from simulator.base.kernels import kernel
from simulator.dram.banks import (
    ACTIVATE,
    BANK_ROW,
    BANK_SIZE,
    BEFORE,
    FOUR,
    HITS,
    LINE_OF,
    MEMBERS,
    READ,
    REFRESH_DUE,
    SERVES,
    TAKEN,
    WRITE,
)
from simulator.dram.controller import serve_channel

FEW = 8  # of fewer channels too few are alike to pay for finding them (four: a quarter slower)


@kernel
def serve_run(rules, lines, first, count, write, asked, scratch):
    """Serve ``count`` bursts that lie one after another, from number ``first`` on, all read or all written: a transfer.

    asked: the clock from which on they may be taken. scratch: (6, bursts that a channel gets at most, a queue and
    a burst of each group together) int64, room for what the controller's kernels want. Returns the clock behind the
    last one that was taken, and the first one behind the last data.
    """
    channels, mask = rules.channels, rules.channel_mask
    done = end = asked
    if channels >= FEW:
        _find_alike(rules, lines, asked)
        _tell_apart(rules, lines, first, count)
    for channel in range(channels):
        offset = (channel - first) & mask
        if lines[channel, LINE_OF] != channel or offset >= count:
            continue
        number = (count - offset + mask) >> rules.channel_bits
        others = lines[channel, MEMBERS] - 1
        for at in range(7 if others else 0):
            lines[channel, BEFORE + at] = lines[channel, HITS + at]
        done = max(done, serve_channel(rules, lines[channel], first + offset, number, write, asked, scratch))
        for at in range(7 if others else 0):
            lines[channel, HITS + at] += others * (lines[channel, HITS + at] - lines[channel, BEFORE + at])
        end = max(end, lines[channel, TAKEN] + 1)
    return end, done


@kernel
def _find_alike(rules, lines, asked):
    """Channels that are in the same state, when a transfer is asked for, have one line."""
    for channel in range(1, rules.channels):
        if lines[channel, LINE_OF] != channel or not _is_idle(rules, lines, channel, asked):
            continue
        for other in range(channel):
            if (
                lines[other, LINE_OF] == other
                and _is_idle(rules, lines, other, asked)
                and _same_rows(rules, lines, channel, other)
            ):
                for member in range(channel, rules.channels):  # it is the first of those that have its line
                    if lines[member, LINE_OF] == channel:
                        lines[member, LINE_OF] = other
                break


@kernel(inline="always")
def _is_idle(rules, lines, channel, asked):
    """Whether nothing waits for a command of before, at ``asked`` or later."""
    free = max(
        lines[channel, READ] + rules.read_matters,
        lines[channel, WRITE] + rules.write_matters,
        lines[channel, ACTIVATE] + rules.activate_matters,
    )
    return free <= asked and free <= lines[channel, REFRESH_DUE]


@kernel(inline="always")
def _same_rows(rules, lines, channel, other):
    same = lines[channel, REFRESH_DUE] == lines[other, REFRESH_DUE]
    for bank in range(rules.banks_at + BANK_ROW, rules.columns_at, BANK_SIZE):
        same = same and lines[channel, bank] == lines[other, bank]
    return same


@kernel
def _tell_apart(rules, lines, first, count):
    """Each channel has the line of one in the same state that gets the same bursts; one of them has its own."""
    channels, mask = rules.channels, rules.channel_mask
    begin, more = first & mask, count & mask
    for channel in range(channels):
        if lines[channel, LINE_OF] == channel:
            lines[channel, MEMBERS] = 0
            for kind in range(4):
                lines[channel, SERVES + kind] = -1
            lines[channel, SERVES + _kind(channel, begin, more, mask)] = channel
    for channel in range(channels):
        own = lines[channel, LINE_OF]
        at = SERVES + _kind(channel, begin, more, mask)
        serves = lines[own, at]
        if serves < 0:
            lines[own, at] = serves = channel
            for i in range(HITS):
                lines[channel, i] = lines[own, i]
            for i in range(FOUR, lines.shape[1]):
                lines[channel, i] = lines[own, i]
            lines[channel, MEMBERS] = 0
        lines[channel, LINE_OF] = serves
        lines[serves, MEMBERS] += 1


@kernel(inline="always")
def _kind(channel, begin, more, mask):
    """Which bursts a channel gets: whether from the second one on of those of its number, and one more than others."""
    return (channel < begin) + 2 * (((channel - begin) & mask) < more)
