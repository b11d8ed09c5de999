"""``dpcontrol list | solve | compare | tune | calibrate | check | trial | resume | report``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dpcontrol.cli.commands import COMMANDS
from dpcontrol.cli.display import INTERRUPTED
from dpcontrol.cli.options import parser
from dpcontrol.results import UsageError

WRONG_CALL = 2

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 the run failed, 2 a wrong call, 130 interrupted."""
    try:
        options = parser().parse_args(arguments)
        return COMMANDS[options.command](options)
    except UsageError as error:
        print(f"dpcontrol: {error}", file=sys.stderr)
        return WRONG_CALL
    except KeyboardInterrupt:
        print("dpcontrol: interrupted before anything was stored.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, `dpcontrol list | head` say
        sys.stderr.close()
        return 0
