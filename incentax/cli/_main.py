"""Entry point of the command `incentax`."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType

import jax

from .._cache import enable_cache

# Of a process that an interrupt has ended; seconds in which Python should hear of one.
_INTERRUPTED, _PATIENCE = 130, 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    0 when all went well, 1 for a run that broke off, 2 for a wrong argument or a missing optional
    package, 130 after an interrupt; whatever is not 0 is told in a sentence on standard error.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    cached = "--no-cache" not in tokens
    tokens = [token for token in tokens if token != "--no-cache"]
    try:
        from cyclopts import CycloptsError  # noqa: PLC0415

        from ._commands import app  # noqa: PLC0415
    except ImportError:
        return _told('the command line needs an extra: pip install "incentax[cli]"', 2)
    jax.config.update("jax_enable_x64", True)
    if cached:
        enable_cache()
    try:
        result = app(
            tokens,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        return _told(f"{error}", 2)
    except (ValueError, TypeError, ImportError, OSError) as error:
        return _told(f"{error}", 2)
    except MemoryError as error:
        return _told(f"not enough memory: {error}", 1)
    except KeyboardInterrupt as error:
        notes = getattr(error, "__notes__", ["nothing was written yet"])
        return _told(f"interrupted; {notes[-1]}", _INTERRUPTED)
    except Exception as error:
        sys.stderr.write(traceback.format_exc())
        return _told(f"stopped by {type(error).__name__}: {error}", 1)
    return result or 0


def _told(sentence: str, status: int) -> int:
    sys.stderr.write(f"incentax: {sentence}\n")
    return status


def entry() -> None:
    """What the installed command calls."""
    _answer_interrupts()
    status = main()
    if status == _INTERRUPTED:  # a compiler that is still at work would not outlive Python
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _answer_interrupts() -> None:
    """A compiled program runs on until it is done, and Python hears of Ctrl-C only then: where it
    has not after some seconds, the process ends with a sentence all the same."""
    heard = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        heard.set()
        signal.default_int_handler(number, frame)

    def watch() -> None:
        while os.read(reader, 1)[0] != signal.SIGINT:
            pass
        if not heard.wait(_PATIENCE):
            os.write(2, b"incentax: interrupted in a compiled program; nothing more was written\n")
            os._exit(_INTERRUPTED)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGINT, hear)
    threading.Thread(target=watch, daemon=True).start()
