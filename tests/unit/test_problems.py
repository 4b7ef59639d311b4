"""What a client is told of an error."""

from __future__ import annotations

import pytest

from app import errors
from transforms.errors import Stopped

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.ServiceError)
]


@pytest.mark.parametrize("kind", ALL)
def test_whoever_is_told_503_is_told_when_to_come_back(kind):
    problem = errors.problem_of(kind("It is so"))
    assert (problem.retry_after is not None) is (problem.status == 503)
    if problem.status == 503:
        assert errors.problem_of(kind("It is so", retry_after=7)).retry_after == 7


def test_a_render_that_was_stopped_may_be_tried_again():
    problem = errors.problem_of(Stopped("The render was stopped"))
    assert (problem.status, problem.retry_after) == (503, 1)
