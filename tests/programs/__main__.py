"""Runs one program: ``python -m tests.programs MODULE:FUNCTION ARGUMENTS...``."""

import faulthandler

faulthandler.enable()
faulthandler.dump_traceback_later(150, exit=True)

import importlib  # noqa: E402 - whatever hangs from here on is said
import io  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell's job says so
# Some programs end by os._exit or a signal, and what they have said must have been written then.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(line_buffering=True)


def main(place: str, *arguments: str) -> None:
    """Call a function of a module of programs with the strings that the command line has."""
    module, name = place.split(":")
    getattr(importlib.import_module(f"tests.programs.{module}"), name)(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
