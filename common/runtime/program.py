"""What both programs do alike around their composition root: signals, exit statuses, the last word in the log.

Exit statuses are those of sysexits.h where one fits: 0 stopped as planned, 1 a mistake of ours, 2 wrong arguments
(argparse's), 69 an address cannot be had, 74 the store failed, 75 the data directory is in use, 78 bad settings.
"""

import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from common.certificates import Unusable
from common.runtime.command_line import EX_CONFIG
from common.runtime.owning import Failed, InUse, StoreError
from common.runtime.ports import CannotListen

OUR_MISTAKE: Final = 1
EX_UNAVAILABLE: Final = 69
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75


COLLECT_AFTER: Final = 20_000  # objects more than there were


def run_program(main: Callable[[], Awaitable[int]]) -> int:
    """Runs a program to its end, and turns what ended it into an exit status and one line in the log."""
    log = structlog.get_logger()
    # A step makes values by the thousand and lets go of them at its end. To look for cycles among them after each few
    # hundred took a sixth of the balancer's time.
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    try:
        return trio.run(main)
    except InUse as error:
        log.critical("store.in_use", problem=str(error))
        return EX_TEMPFAIL
    except Failed as error:
        return _tell_failed(error)
    except StoreError as error:
        log.critical("store.unusable", problem=str(error))
        return EX_IOERR
    except CannotListen as error:
        log.critical("address.unusable", problem=str(error))
        return EX_UNAVAILABLE
    except Unusable as error:  # it was well when the settings were read
        print(error, file=sys.stderr)
        return EX_CONFIG
    except BaseException as error:
        _, rest = BaseExceptionGroup("", [error]).split(_of_the_store)
        if rest is None:
            return _tell_failed(_first(error))
        if not isinstance(rest, Exception):
            raise
        log.critical("program.failed", exc_info=error)
        return OUR_MISTAKE


def _tell_failed(error: BaseException) -> int:
    log = structlog.get_logger()
    log.critical("store.failed", problem=str(error), advice="nothing acknowledged is lost; start again")
    return EX_IOERR


def _of_the_store(error: BaseException) -> bool:
    return isinstance(error, StoreError) or type(error).__module__.partition(".")[0] == "lmdb"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def on_signals(first: Callable[[], None], again: Callable[[], None]) -> None:
    """SIGTERM or SIGINT: `first` the first time, `again` each further time."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as arrived:
        told = False
        async for _ in arrived:
            (again if told else first)()
            told = True
