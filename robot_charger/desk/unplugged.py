"""Ends when no plug is in an inlet: ``python -m robot_charger.desk.unplugged --evses 1 2``.

Launch runs it once no EVSE is left in service, so that it ends the station only after the vehicles are free.
"""

from __future__ import annotations

import argparse
import time

from robot_charger.common.process import StopSignal, end_with_parent
from robot_charger.desk.observer import Observer

UNKNOWN_S = 10.0  # [s] a supervisor is waited for so long


def wait(observer: Observer, stop: StopSignal) -> None:
    """Until every EVSE has said that no plug is in, or says nothing any more, or ``stop``."""
    said: dict[int, float] = {}
    begin = time.monotonic()
    waiting = set(observer.seen)
    while waiting and not stop.wait(0.1):
        for evse in sorted(waiting):
            plugged = observer.plugged(evse)
            if plugged is not None:
                said[evse] = time.monotonic()
            if plugged is False:
                waiting.discard(evse)
            elif plugged is None and time.monotonic() - said.get(evse, begin) > UNKNOWN_S:
                print(f"EVSE {evse}: no supervisor says whether a plug is in; look before you start again", flush=True)
                waiting.discard(evse)


def main() -> None:
    parser = argparse.ArgumentParser(prog="robot_charger.desk.unplugged", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--evses", type=int, nargs="+", default=[1])
    a = parser.parse_args()
    stop = StopSignal()
    end_with_parent()
    observer = Observer(a.evses, "unplugged")
    try:
        wait(observer, stop)
    finally:
        observer.close()


if __name__ == "__main__":
    main()
