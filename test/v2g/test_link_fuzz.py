"""A few thousand of bench/fuzz.py's cases below the messages; those of the codec are in test_exi_fuzz.py."""

import link_fuzz
import pytest


def test_slac_frames_of_many_damaged_vehicles(caplog: pytest.LogCaptureFixture) -> None:
    came = link_fuzz.slac(3000, seed=11)
    assert came["sessions"] > 50 and came["refused"] > 100
    assert not caplog.records, caplog.text  # a vehicle that fails is no event of its own


def test_discovery_answers_requests_alone_and_no_flood() -> None:
    came = link_fuzz.sdp(3000, seed=11)
    assert came["answers"] > 0 and came["dropped"] > 0


def test_every_stream_ends_its_session_with_a_code() -> None:
    came = link_fuzz.sessions(300, seed=11)
    assert {"V2G_DECODE", "V2G_SEQUENCE", "LINK_LOST"} <= set(came)
