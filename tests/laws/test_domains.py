"""Parameter domains: they accept their samples, refuse all else without stumbling, and say what they hold."""

from typing import Any

import pytest
from cases import every_method, sizes_of
from hypothesis import given
from hypothesis import strategies as st

from normcore import METHODS, Method, NormcoreError
from normcore.core import Divides, OneOf, Range

SIZES = {"n": 6, "c": 6}
DOMAINS = [(method, param.name) for method in METHODS.values() for param in method.params]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.complex_numbers(),
    st.text(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
)


@every_method
def test_sampled_values_are_accepted(method: Method, layout: str) -> None:
    for param in method.params:
        for value in param.domain.samples(sizes_of(layout)):
            assert method.settings({param.name: value}, sizes_of(layout))[param.name] is value
            assert param.domain.problem(value, sizes_of(layout)) is None


@given(st.sampled_from(DOMAINS), ANYTHING)
def test_any_value_is_taken_or_refused_in_a_sentence(case: tuple[Method, str], value: Any) -> None:
    method, name = case
    (domain,) = (param.domain for param in method.params if param.name == name)
    problem = domain.problem(value, SIZES)
    if problem is None:
        assert method.settings({name: value}, SIZES)[name] is value
    else:
        assert problem.startswith("must ")
        with pytest.raises(NormcoreError):
            method.settings({name: value}, SIZES)


@given(st.integers(1, 60), st.integers(-5, 70))
def test_a_divisor_is_one_that_leaves_nothing_over(size: int, value: int) -> None:
    domain = Divides("c", "group", "channel")
    fits = value >= 1 and size % value == 0
    assert (domain.problem(value, {"c": size}) is None) == fits == (value in domain.samples({"c": size}))


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-12, 12))
def test_a_range_holds_its_ends_and_what_lies_between(one: float, two: float, value: float) -> None:
    low, high = sorted((one, two))
    assert (Range(low, high).problem(value, {}) is None) == (low <= value <= high)
    assert Range(low, high).problem(low, {}) is Range(low, high).problem(high, {}) is None


def test_one_of_tells_a_flag_from_a_number() -> None:
    assert OneOf((False, True)).problem(0, {}) == "must be one of False, True"
    assert OneOf((0, None)).problem(False, {}) == "must be one of 0, None"
    assert OneOf((0, None)).problem(None, {}) is None


def test_a_domain_says_what_it_holds() -> None:
    assert Range(0.0, none="off").words() == "a number of at least 0 or None (off)"
    assert Divides("c", "group", "channel").describe(2, {"c": 6}) == "2 groups of 3 channels"
    assert Divides("n", "batch", "sample", counts_members=True).describe(1, {"n": 6}) == "6 batches of 1 sample"
