"""``gblr-hw``: the program's entry. It loads nothing before it can say that it was stopped."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from gblr_hw.cli.interruption import Interruption


def main() -> None:
    """Run the command line; see `gblr_hw.cli.app`. SIGTERM (of schedulers and containers) ends it as Ctrl-C does."""
    terminated: list[int] = []
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that was forked: nobody waits for a word of it
            os._exit(128 + number)
        terminated.append(number)
        raise KeyboardInterrupt

    # Pydantic would look for plugins of its own in every installed package, whenever a command starts; none is used.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        # Imported here: that takes a second, in which people change their minds.
        from gblr_hw.cli.app import run

        run()
    except (KeyboardInterrupt, Interruption):
        how = "terminated" if terminated else "interrupted"
        print(f"{how}; files that were complete are kept", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
