"""Recordings of real cars, where they are: each ends here as it did at the real charger. See bench/field.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import replay
from secc_desk import Desk

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("ROBOT_CHARGER_FIELD", ROOT.parent / "shared" / "field")) / "ccs"
FILES = sorted(CORPUS.glob("*.json"))
sys.path.insert(0, str(ROOT / "bench"))

import field as bench  # noqa: E402


@pytest.mark.skipif(not FILES, reason=f"no recordings of real cars in {CORPUS}")
@pytest.mark.parametrize("path", FILES or [CORPUS], ids=lambda path: path.stem)
def test_a_recording_ends_as_it_did_then(path: Path) -> None:
    outcome = replay.play(path)
    assert bench.as_then(bench.then(path), outcome), outcome
    assert outcome.unanswered == 0


def test_a_session_id_is_written_into_a_message() -> None:
    asked = bytes.fromhex("809a02000000000000000010b8")
    assert replay.with_session_id(asked, "0102030405060708").hex() == "809a02004080c1014181c210b8"


def test_a_desk_offers_one_protocol() -> None:
    made: Desk = replay.desk("din70121")
    assert made.settings.protocols == ("din70121",)
