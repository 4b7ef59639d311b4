"""The classes of Accept change nothing of what the service would have chosen."""

from __future__ import annotations

import pytest

from routers.negotiation import accepted
from tests.deploy.accepts import ACCEPTS


@pytest.mark.parametrize(("sent", "received"), ACCEPTS.items())
def test_a_class_of_accept_chooses_what_the_header_itself_does(sent, received):
    assert accepted(received.encode()) == accepted(sent.encode())


def test_there_are_four_classes():
    assert len(set(ACCEPTS.values())) == 4
