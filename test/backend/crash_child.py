"""A back end without ROS, driven by lines of JSON on stdin, telling its state on stdout. Killed by the crash test."""

from __future__ import annotations

import json
import sys
import threading
import time

from robot_charger.backend.parameters import BackendParameters, plan
from robot_charger.backend.records import Reading, SessionView, Token
from robot_charger.backend.service import Callbacks, Service, clock
from robot_charger.words.values import Authorization, Phase


def main() -> None:
    url, store, version = sys.argv[1:4]
    service = Service(
        plan(
            BackendParameters(
                version=version,
                url=url,
                security_profile=0,
                allow_plain=True,
                store=store,
                sample_s=0,
                backoff__minimum_s=0,
                backoff__random_s=0,
                ping_s=0,
            )
        ),
        Callbacks(),
    )
    service.start()
    told = None

    def tell() -> None:
        nonlocal told
        while True:
            state = service.state()
            now = [state.transactions[0], state.queued]
            if now != told:
                told = now
                print(json.dumps(now), flush=True)
            time.sleep(0.002)

    threading.Thread(target=tell, daemon=True).start()
    for line in sys.stdin:
        kind, *values = json.loads(line)
        moment = clock()
        if kind == "meter":
            import_wh, current_a = values
            reading = Reading(moment.iso, moment.mono_ns, import_wh, current_a=current_a)
            service.post(service.station.meter, 1, reading, moment)
        elif kind == "authorize":
            service.post(service.station.evses[1].authorized, values[0], Token("DEADBEEF"))
        else:
            session_id, phase, since_ns, reason = values
            accepted = Authorization.ACCEPTED if session_id else Authorization.NONE
            view = SessionView(
                1, session_id, Phase(phase), since_ns, accepted, output_on=phase == Phase.CHARGING, stop_reason=reason
            )
            service.post(service.station.session, view, moment)


if __name__ == "__main__":
    main()
