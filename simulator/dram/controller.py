"""The controller's kernels: bursts in, clocks of their commands out (machine.md, rules D8, D9, D10 and D11).

A burst's precharge, activate and column command each go at the first clock that the rules allow, which is known as soon
as the burst is chosen: time is computed, not counted. Column commands of a channel are chosen one after another and
never go back in time; row commands may be earlier than column commands that were chosen before, which is what a
controller does that looks ahead in its queue.

Kernels of other modules are compiled with these within them, and Numba's cache does not see a change of this file:
delete the ``__pycache__`` of ``simulator/dram`` and ``simulator/timing`` behind one.
"""

from __future__ import annotations

import numpy as np

from simulator.base.kernels import kernel
from simulator.dram.banks import (
    ACTIVATE,
    BANK_ACTIVATE,
    BANK_PRECHARGE,
    BANK_READ,
    BANK_ROW,
    BANK_SIZE,
    BANK_WRITE,
    BUSY,
    BUSY_UNTIL,
    CONFLICTS,
    FOUR,
    GROUP_ACTIVATE,
    GROUP_READ,
    GROUP_SIZE,
    GROUP_WRITE,
    GROUPS,
    HITS,
    MISSES,
    PLACE,
    READ,
    READS,
    REFRESH_DUE,
    REFRESHES,
    TAKEN,
    WRITE,
    WRITES,
)

# Rows of ``scratch``, as ``_serve_lanes`` has them. (A row as an array of its own is counted up and down, which costs
# more than a burst.)
_FREES, _NEXTS, _ENDS, _GROUPS, _BANKS, _ROWS = range(6)
_ANOTHER, _REFRESHED = -1, -2  # why the oldest burst was not served


@kernel(inline="always")
def _places(rules, block):
    """Where the group and the bank of a burst stand in a channel's line, and its row."""
    group = (block >> rules.group_shift) & rules.group_mask
    bank = ((block >> rules.bank_shift) & rules.bank_mask) * rules.groups + group
    row = (block >> rules.row_shift) & rules.row_mask
    return GROUPS + GROUP_SIZE * group, rules.banks_at + BANK_SIZE * bank, row


@kernel(inline="always")
def _any_column(rules, line, write):
    """No column command of a direction goes before this clock (tCCD_S, tWTR_S, tRTW)."""
    if write:
        return max(line[WRITE] + rules.column_apart, line[READ] + rules.read_write)
    return max(line[READ] + rules.column_apart, line[WRITE] + rules.write_read_apart)


@kernel(inline="always")
def _column(rules, line, group, bank, row, write, taken, bus):
    """First clock of a burst's column command, and of its activate (-1: its row is open). bus: ``_any_column``."""
    if write:
        bus = max(bus, line[group + GROUP_WRITE] + rules.column_group)
    else:
        bus = max(
            bus, line[group + GROUP_READ] + rules.column_group, line[group + GROUP_WRITE] + rules.write_read_group
        )
    is_open = line[bank + BANK_ROW]
    if is_open == row:
        return max(bus, taken, line[bank + (BANK_WRITE if write else BANK_READ)]), np.int64(-1)
    activate = _activate(rules, line, group, bank, taken)
    return max(bus, activate + (rules.activate_write if write else rules.activate_read)), activate


@kernel(inline="always")
def _activate(rules, line, group, bank, taken):
    """First clock of a burst's activate, behind a precharge where another row is open."""
    ready = max(taken, line[bank + BANK_ACTIVATE])
    if line[bank + BANK_ROW] >= 0:
        ready = max(max(taken, line[bank + BANK_PRECHARGE]) + rules.precharge, line[bank + BANK_ACTIVATE])
    return max(
        ready,
        line[ACTIVATE] + rules.activates_apart,
        line[group + GROUP_ACTIVATE] + rules.activates_group,
        line[FOUR] + rules.four_activates,
    )


@kernel(inline="always")
def _open(rules, line, group, bank, row, activate):
    """The row commands of a burst take place; what it found is counted."""
    line[MISSES if line[bank + BANK_ROW] < 0 else CONFLICTS] += 1
    line[bank + BANK_ROW] = row
    line[ACTIVATE] = line[group + GROUP_ACTIVATE] = activate
    line[FOUR], line[FOUR + 1], line[FOUR + 2], line[FOUR + 3] = (
        line[FOUR + 1],
        line[FOUR + 2],
        line[FOUR + 3],
        activate,
    )
    line[bank + BANK_PRECHARGE] = activate + rules.activate_precharge
    line[bank + BANK_ACTIVATE] = activate + rules.activate_activate
    line[bank + BANK_READ] = activate + rules.activate_read
    line[bank + BANK_WRITE] = activate + rules.activate_write


@kernel(inline="always")
def _serve(rules, line, group, bank, write, column, since, place):
    """The column command of a burst takes place; the first clock behind its data. since: the oldest that waits was
    taken then.
    """
    line[place] = column
    line[PLACE] = place + 1 - rules.columns_at if place + 1 - rules.columns_at < rules.queue else 0
    if write:
        line[WRITE] = line[group + GROUP_WRITE] = column
        line[bank + BANK_PRECHARGE] = max(line[bank + BANK_PRECHARGE], column + rules.write_precharge)
        line[WRITES] += 1
        data = column + rules.write_data
    else:
        line[READ] = line[group + GROUP_READ] = column
        line[bank + BANK_PRECHARGE] = max(line[bank + BANK_PRECHARGE], column + rules.read_precharge)
        line[READS] += 1
        data = column + rules.read_data
    if data > line[BUSY_UNTIL]:
        line[BUSY] += data - max(since, line[BUSY_UNTIL])
        line[BUSY_UNTIL] = data
    return data


@kernel
def _refresh(rules, line):
    """Precharge all banks, refresh, begin anew (rule D11)."""
    ready = begin = line[REFRESH_DUE]
    is_open = False
    for bank in range(rules.banks_at, rules.columns_at, BANK_SIZE):
        if line[bank + BANK_ROW] >= 0:
            is_open = True
            begin = max(begin, line[bank + BANK_PRECHARGE])
        else:
            ready = max(ready, line[bank + BANK_ACTIVATE])
    if is_open:
        ready = max(ready, begin + rules.precharge_all)
    for bank in range(rules.banks_at, rules.columns_at, BANK_SIZE):
        line[bank + BANK_ROW] = -1
        line[bank + BANK_ACTIVATE] = ready + rules.refresh_takes
    line[REFRESH_DUE] += rules.refresh_every
    line[REFRESHES] += 1


@kernel
def _choose(rules, line, blocks, writes, head, entered, taken, finished):
    """Which of the bursts that wait goes next, and when (rule D10): its number, its column command and activate."""
    chosen, best, opens = head, np.int64(-1), np.int64(-1)
    seen = 0
    for i in range(head, entered):
        if finished[i] >= 0:
            continue
        seen += 1
        if seen > rules.window:
            break
        group, bank, row = _places(rules, blocks[i])
        bus = _any_column(rules, line, writes[i])
        column, activate = _column(rules, line, group, bank, row, writes[i], taken[i], bus)
        if best < 0 or column < best:
            chosen, best, opens = i, column, activate
    return chosen, best, opens


@kernel
def serve_list(rules, line, blocks, writes, count, asked, taken, finished, run):
    """Serve bursts of the channel of ``line`` that one transfer brings, in the order in which they are chosen.

    blocks, writes: (count,) numbers of the bursts, and whether they are written (1). asked: the first clock in which
    they may be taken. taken, finished: (count,), room for the clock in which each gets a place in the queue, and the
    first one behind its data. run: it ends where those that were served are the first ones. Returns how many were
    served, and the largest ``finished``.
    """
    before = line[PLACE]
    entered = head = served = np.int64(0)
    end = np.int64(0)
    finished[:count] = -1
    while served < count and (not run or served == 0 or head < served):
        while entered < min(count, served + rules.queue):
            free = line[rules.columns_at + (before + entered) % rules.queue]
            line[TAKEN] = taken[entered] = max(asked, line[TAKEN] + 1, free)
            entered += 1
        chosen, column, activate = _choose(rules, line, blocks, writes, head, entered, taken, finished)
        if column >= line[REFRESH_DUE]:
            _refresh(rules, line)
            continue
        group, bank, row = _places(rules, blocks[chosen])
        if activate >= 0:
            _open(rules, line, group, bank, row, activate)
        else:
            line[HITS] += 1
        place = rules.columns_at + (before + served) % rules.queue
        finished[chosen] = _serve(rules, line, group, bank, writes[chosen], column, taken[head], place)
        end = max(end, finished[chosen])
        served += 1
        while head < count and finished[head] >= 0:
            head += 1
    line[TAKEN] = taken[served - 1]  # of the others it is found again when they are served
    return served, end


@kernel
def _serve_lanes(rules, line, first, count, write, asked, scratch):
    """What ``serve_list`` does with bursts first, first + channels, ... that lie in rows of all groups in turn, first
    ready, up to where those that were served are the first ones. Bursts of one row and bank, a lane, go in their order,
    so that of each lane only the next one needs a look. Returns how many were served, and the first clock behind their
    data.

    frees[i] is the column command that frees the place of burst i. These lie a clock apart at least, and so do those
    that get a place: i is taken at frees[i], or i clocks behind the first one.
    """
    queue, columns_at, place = rules.queue, rules.columns_at, line[PLACE]
    for i in range(place, queue):
        scratch[_FREES, i - place] = line[columns_at + i]
    for i in range(place):
        scratch[_FREES, queue - place + i] = line[columns_at + i]
    since = max(asked, line[TAKEN] + 1)
    served = lanes = end = head = np.int64(0)
    begin, born, behind = np.int64(0), np.int64(0), _bursts_of_row(rules, first)
    while served < count and (served == 0 or head < served):
        entered = min(count, served + queue)
        while born < entered:  # the first one of each group in a row
            scratch[_NEXTS, lanes], scratch[_ENDS, lanes] = born, min(behind, count)
            scratch[_GROUPS, lanes], scratch[_BANKS, lanes], scratch[_ROWS, lanes] = _places(
                rules, first + born * rules.channels
            )
            lanes += 1
            born += 1
            if born == begin + rules.groups or born == behind:
                begin = born = behind
                behind += rules.stripe
        bus = _any_column(rules, line, write)
        chosen, column, activate, oldest = np.int64(-1), np.int64(0), np.int64(0), np.int64(0)
        for lane in range(lanes):
            i = scratch[_NEXTS, lane]
            if i < entered and (chosen < 0 or column > bus or i < oldest):  # none is earlier than the bus is free
                taken = max(since + i, scratch[_FREES, i])
                goes, opens = _column(
                    rules, line, scratch[_GROUPS, lane], scratch[_BANKS, lane], scratch[_ROWS, lane], write, taken, bus
                )
                if chosen < 0 or goes < column or (goes == column and i < oldest):
                    chosen, column, activate, oldest = lane, goes, opens, i
        if column >= line[REFRESH_DUE]:
            _refresh(rules, line)
            continue
        group, bank = scratch[_GROUPS, chosen], scratch[_BANKS, chosen]
        if activate >= 0:
            _open(rules, line, group, bank, scratch[_ROWS, chosen], activate)
        else:
            line[HITS] += 1
        taken = max(since + head, scratch[_FREES, head])
        end = max(end, _serve(rules, line, group, bank, write, column, taken, columns_at + line[PLACE]))
        scratch[_FREES, queue + served] = column
        served += 1
        scratch[_NEXTS, chosen] += rules.groups
        if scratch[_NEXTS, chosen] >= scratch[_ENDS, chosen]:
            lanes -= 1
            scratch[_NEXTS, chosen], scratch[_ENDS, chosen] = scratch[_NEXTS, lanes], scratch[_ENDS, lanes]
            scratch[_GROUPS, chosen], scratch[_BANKS, chosen], scratch[_ROWS, chosen] = (
                scratch[_GROUPS, lanes],
                scratch[_BANKS, lanes],
                scratch[_ROWS, lanes],
            )
        if oldest == head:
            head = entered
            for lane in range(lanes):
                head = min(head, scratch[_NEXTS, lane])
    line[TAKEN] = max(
        since + served - 1, scratch[_FREES, served - 1]
    )  # of the others it is found again when they are served
    return served, end


@kernel(inline="always")
def _serve_hits(rules, line, first, count, write, asked):
    """Bursts first, first + channels, ... for as long as each goes as soon as the bus is free: such a burst is the
    oldest and nobody is earlier, so that it is chosen whatever waits behind it. Returns how many, and the first clock
    behind their data. What ``_column`` and ``_serve`` do stands here once more for bursts of one row and all groups
    in turn, which are taken together: if the first one of each group goes with the bus, all behind it do.
    """
    other = line[READ] + rules.read_write if write else line[WRITE] + rules.write_read_apart
    mine, group_mine, bank_ready = (WRITE, GROUP_WRITE, BANK_WRITE) if write else (READ, GROUP_READ, BANK_READ)
    to_data, to_precharge = (
        (rules.write_data, rules.write_precharge) if write else (rules.read_data, rules.read_precharge)
    )
    apart, in_group, write_read = rules.column_apart, rules.column_group, rules.write_read_group
    due, queue, columns_at, groups = line[REFRESH_DUE], rules.queue, rules.columns_at, rules.groups
    column, taken, until, place = line[mine], line[TAKEN], line[BUSY_UNTIL], line[PLACE]
    to_column = rules.activate_write if write else rules.activate_read
    i = opened = np.int64(0)
    while i < count:
        block = first + i * rules.channels
        got = max(asked, taken + 1, line[columns_at + place])
        goes = max(column + apart, other, got)
        if goes >= due:
            break
        many = min(_bursts_of_row(rules, block), count - i)
        if goes + (many - 1) * apart >= due:
            many = (due - 1 - goes) // apart + 1
        group = (block >> rules.group_shift) & rules.group_mask
        bank = rules.banks_at + BANK_SIZE * groups * ((block >> rules.bank_shift) & rules.bank_mask)
        row = (block >> rules.row_shift) & rules.row_mask
        looks = min(many, groups)
        for ahead in range(looks):
            of_group = (group + ahead) & (groups - 1)
            at, of_bank = GROUPS + GROUP_SIZE * of_group, bank + BANK_SIZE * of_group
            ready = line[at + group_mine] + in_group
            if not write:
                ready = max(ready, line[at + GROUP_WRITE] + write_read)
            activate = np.int64(-1)
            if line[of_bank + BANK_ROW] == row:
                ready = max(ready, line[of_bank + bank_ready])
            elif ahead < queue:
                free = place + ahead - queue if place + ahead >= queue else place + ahead
                activate = _activate(rules, line, at, of_bank, max(got + ahead, line[columns_at + free]))
                ready = max(ready, activate + to_column)
            else:  # its place is not free before one of these has gone
                ready = due
            if ready > goes + ahead * apart:
                many = ahead
                break
            if activate >= 0:
                _open(rules, line, at, of_bank, row, activate)
                opened += 1
        if many == 0:
            break
        place, taken = _fill(line, columns_at, queue, place, goes, apart, many, max(taken, asked - 1))
        column = goes + (many - 1) * apart
        for back in range(min(many, groups)):
            of_group, last = (group + many - 1 - back) & (groups - 1), column - back * apart
            of_bank = bank + BANK_SIZE * of_group
            line[GROUPS + GROUP_SIZE * of_group + group_mine] = last
            line[of_bank + BANK_PRECHARGE] = max(line[of_bank + BANK_PRECHARGE], last + to_precharge)
        if column + to_data > until:  # behind the first one, always some of them wait
            line[BUSY] += column + to_data - (max(got, until) if goes + to_data > until else until)
            until = column + to_data
        i += many
        if many < looks:
            break
    if i:
        line[HITS] += i - opened
        line[PLACE] = place
        line[WRITES if write else READS] += i
        line[mine], line[TAKEN], line[BUSY_UNTIL] = column, taken, until
    return i, column + to_data


@kernel(inline="always")
def _bursts_of_row(rules, block):
    """From a burst on, so many of its channel lie in one row of all groups in turn; 1 where the mapping, or the
    distance within a group, does not let them follow as closely as the bus does.
    """
    return rules.stripe - ((block >> rules.channel_bits) & (rules.stripe - 1))


@kernel(inline="always")
def _fill(line, columns_at, queue, place, column, apart, many, taken):
    """Column commands of ``many`` bursts from ``column`` on, ``apart`` behind each other; the next place, and when the
    last was taken.
    """
    last = place + many - 1
    if many > queue:
        column += (many - queue) * apart
        free, place, kept = column - apart, (last + 1) % queue, queue
    else:
        if last >= queue:
            last -= queue
        free, kept = line[columns_at + last], many
    for i in range(columns_at + place, columns_at + min(queue, place + kept)):
        line[i] = column
        column += apart
    for i in range(columns_at, columns_at + place + kept - queue):
        line[i] = column
        column += apart
    place += kept
    return place - queue if place >= queue else place, max(taken + many, free)


@kernel(inline="always")
def _serve_oldest(rules, line, first, count, write, asked):
    """Serve burst ``first``, behind which first + channels, ... wait, if it is chosen (rule D10). Of the others those
    need a look that are the first of a row in their bank. Returns the first clock behind its data, or
    why it was not served: another one goes first, or all wait for a refresh, which has then taken place.
    """
    place = line[PLACE]
    taken = max(asked, line[TAKEN] + 1, line[rules.columns_at + place])
    bus = _any_column(rules, line, write)
    group, bank, row = _places(rules, first)
    column, activate = _column(rules, line, group, bank, row, write, taken, bus)
    waiting = min(count, rules.window) if column > bus else np.int64(0)  # none is earlier than the bus is free
    begin, size = np.int64(0), _bursts_of_row(rules, first)
    i = np.int64(1)
    while True:
        if i >= begin + min(rules.groups, size):  # on to the next row of all groups
            begin += size
            size = _bursts_of_row(rules, first + begin * rules.channels)
            i = begin
        if i >= waiting:
            break
        at = place + i - rules.queue if place + i >= rules.queue else place + i
        got = max(asked + i, line[TAKEN] + 1 + i, line[rules.columns_at + at])
        other_group, other_bank, other_row = _places(rules, first + i * rules.channels)
        if _column(rules, line, other_group, other_bank, other_row, write, got, bus)[0] < column:
            return np.int64(_ANOTHER)
        i += 1
    if column >= line[REFRESH_DUE]:
        _refresh(rules, line)
        return np.int64(_REFRESHED)
    line[TAKEN] = taken
    if activate >= 0:
        _open(rules, line, group, bank, row, activate)
    else:
        line[HITS] += 1
    return _serve(rules, line, group, bank, write, column, taken, rules.columns_at + place)


@kernel(inline="always")
def serve_channel(rules, line, first, count, write, asked, scratch):
    """Serve bursts first, first + channels, ... of one channel; the first clock behind their data."""
    served, done = np.int64(0), asked
    while True:
        some, data = _serve_hits(rules, line, first + served * rules.channels, count - served, write, asked)
        served, done = served + some, max(done, data)
        if served >= count:
            break
        begin, rest = first + served * rules.channels, count - served
        data = np.int64(_REFRESHED)
        while data == _REFRESHED:
            data = _serve_oldest(rules, line, begin, rest, write, asked)
        some = np.int64(1)
        if data == _ANOTHER and rules.stripe > 1:
            some, data = _serve_lanes(rules, line, begin, rest, write, asked, scratch)
        elif data == _ANOTHER:
            some, data = _serve_reordered(rules, line, begin, rest, write, asked, scratch)
        served, done = served + some, max(done, data)
        if served >= count:
            break
    return done


@kernel
def _serve_reordered(rules, line, first, count, write, asked, scratch):
    """What ``serve_list`` does with bursts first, first + channels, ..., up to where those that were served are the
    first ones.
    """
    blocks, writes, taken, finished = scratch[0], scratch[1], scratch[2], scratch[3]
    for i in range(count):
        blocks[i], writes[i] = first + i * rules.channels, write
    return serve_list(rules, line, blocks, writes, count, asked, taken, finished, True)
