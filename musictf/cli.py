"""``musictf VERB [key=value ...]``: finds the module of the verb and turns errors into an exit status.

Exit status: 0 done; 2 the input is wrong (one line: what, where, what to do); 1 the run failed.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from musictf.commands import VERBS
from musictf.distributed import rank
from musictf.errors import FailedRun, InputError


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the ``musictf`` command."""
    # sys.argv itself stays as it is: Lightning starts the other processes of a run with it.
    verb, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb == "--version":
        from musictf import __version__

        print(__version__)
        return
    if verb in {"-h", "--help", "help"}:
        from musictf.commands.help import overview

        print(overview(), end="")
        return
    try:
        _run(verb, arguments)
    except InputError as error:
        sys.exit(_one_line(verb, str(error), 2))
    except FailedRun as error:
        # Every process of a run fails alike; one message is enough.
        sys.exit(_one_line(verb, str(error), 1) if rank() == 0 else 1)
    except KeyboardInterrupt as stop:
        sys.exit(_one_line(verb, str(stop) or "interrupted", 1))


def _run(verb: str, arguments: Sequence[str]) -> None:
    # Checked before anything is imported: the answer to a misspelt verb is immediate.
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f": one of {', '.join(VERBS)}"
        raise InputError(f"unknown verb {verb!r}{hint}")
    command = importlib.import_module(f"musictf.commands.{verb}")
    if {"-h", "--help"} & set(arguments):
        print(command.help_text(arguments), end="")
    else:
        command.main(arguments)


def _one_line(verb: str, message: str, status: int) -> int:
    print(f"musictf {verb}: {' '.join(message.split())}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
