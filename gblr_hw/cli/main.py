"""``gblr-hw``: the program's entry. It loads nothing before it can say that it was interrupted."""

from __future__ import annotations

import sys

from gblr_hw.cli.interruption import Interruption


def main() -> None:
    """Run the command line; see `gblr_hw.cli.app`."""
    try:
        # Imported here: that takes a second, in which people change their minds.
        from gblr_hw.cli.app import run

        run()
    except (KeyboardInterrupt, Interruption):
        print("interrupted; files that were complete are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
