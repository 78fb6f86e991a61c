"""The iso15118 package's own SECC behind one call: bytes of a request in, bytes of its answer out.

It is the witness of the differential test and the plain way that bench/v2g.py measures against: its states, its models
and its simulated controller, with our EXI codec.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from robot_charger.sim import package
from robot_charger.v2g import v2gtp

package.prepare()
with package.quiet_import():
    from iso15118.secc.comm_session_handler import SECCCommunicationSession
    from iso15118.secc.controller.simulator import SimEVSEController
    from iso15118.secc.secc_settings import Config
    from iso15118.shared.messages.enums import AuthEnum, CpState, Protocol
    from iso15118.shared.states import Terminate

PROTOCOLS = {
    "din70121": Protocol.DIN_SPEC_70121,
    "iso15118-2": Protocol.ISO_15118_2,
    "iso15118-20": Protocol.ISO_15118_20_DC,
}


class _Controller(SimEVSEController):
    """Contactors that move at once, and a pilot in state C."""

    async def get_cp_state(self) -> CpState:
        return CpState.C2

    async def is_contactor_closed(self) -> bool:
        return True

    async def is_contactor_opened(self) -> bool:
        return True


class _Writer:
    def get_extra_info(self, name: str) -> Any:
        return ("fe80::2", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        pass

    async def drain(self) -> None:
        pass


class PackageSecc:
    """One session. ``ended`` once it went to its end."""

    def __init__(self, protocol: str) -> None:
        package.use_codec()
        config = Config()
        config.supported_protocols = [PROTOCOLS[protocol]]
        config.supported_auth_options = [AuthEnum.EIM]
        config.allow_cert_install_service = config.free_charging_service = config.enforce_tls = False
        controller = _Controller()
        transport = (asyncio.StreamReader(), _Writer())
        self.session: Any = SECCCommunicationSession(transport, asyncio.Queue(), config, controller, "DE*EKX*E1")
        with contextlib.suppress(AttributeError):
            controller.reset_ev_data_context()
        self.ended = False

    @property
    def session_id(self) -> str:
        return str(self.session.session_id or "00")

    async def answer(self, payload_type: int, payload: bytes) -> tuple[int, bytes]:
        """Payload type and EXI of the answer, (0, b"") where there is none. Raises what the package raises."""
        session = self.session
        await session.process_message(v2gtp.message(payload_type, payload))
        state = session.current_state
        answer = state.next_v2gtp_msg
        self.ended = state.next_state is Terminate
        if not self.ended:
            session.go_to_next_state()
        return (int(answer.payload_type), bytes(answer.payload)) if answer else (0, b"")
