"""The tool that replays recorded sessions, on a recording that is made here."""

from __future__ import annotations

import pytest
from capture import main, read, replay
from gbt_desk import Desk, Phase


def recording(desk: Desk) -> str:
    return "\n".join(f"({1e9 + at:.6f}) can0 {i:08X}#{data.hex().upper()}" for at, (i, data) in desk.raw)


def test_a_session_recorded_on_the_desk_is_accepted(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(charge_seconds=3.0)
    desk.start()
    desk.until(Phase.ENDED)
    text = recording(desk)
    outcome = replay(read(text))
    assert outcome.accepted, outcome.text
    assert outcome.answers[0] == outcome.answers[1] > 20, "every answer of the transport protocol is the recorded one"
    assert set(outcome.ours) == set(outcome.recorded)
    assert outcome.bad == 0
    file = tmp_path / "session.log"
    file.write_text(text)
    assert main([str(file)]) == 0
    assert "accepted: ended" in capsys.readouterr().out


def test_a_session_without_its_identification_is_not_accepted() -> None:
    desk = Desk(faults={"no-brm"})
    desk.start()
    desk.until(Phase.RETRY)
    assert not replay(read(recording(desk))).accepted


def test_what_is_no_log_is_told() -> None:
    with pytest.raises(ValueError, match="candump"):
        read("hello\n(1.0) can0 123#00\n")
