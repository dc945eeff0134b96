"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.durations import format_duration, parse_duration
from common.limits import DURATION_MAX_S


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("90", 90.0),
        ("1.5", 1.5),
        ("90s", 90.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("2d", 172_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        ("1m1ms", 60.001),
        ("0ms", 0.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text, plain_unit_s=1.0) == pytest.approx(seconds)


def test_a_plain_number_counts_what_the_caller_says_and_a_suffix_what_it_says_itself() -> None:
    assert parse_duration("5000", plain_unit_s=0.001) == pytest.approx(5.0)
    assert parse_duration("5s", plain_unit_s=0.001) == 5.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1",
        "+1",
        "1e3",
        "1 s",
        "1.",
        ".5",
        "5x",
        "1m1h",
        "1s1s",
        "1S",
        "nan",
        "inf",
        "1_000",
        "१",
        "1s\n",
    ],
)
def test_what_is_no_duration_is_refused_and_the_error_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no duration; write it like 90s, 1h30m.*a plain number is seconds"):
        parse_duration(text, plain_unit_s=1.0)


def test_the_error_says_what_a_plain_number_would_have_meant() -> None:
    with pytest.raises(ValueError, match="a plain number is milliseconds"):
        parse_duration("soon", plain_unit_s=0.001)


def test_ten_years_are_allowed_and_a_second_more_is_not() -> None:
    assert parse_duration(str(DURATION_MAX_S), plain_unit_s=1.0) == DURATION_MAX_S
    for text in (str(int(DURATION_MAX_S) + 1), "3653d", "9" * 500):
        with pytest.raises(ValueError, match="from 0 to 10 years"):
            parse_duration(text, plain_unit_s=1.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1.5, "1.5s"),
        (1.05, "1.05s"),
        (60, "1m"),
        (5400, "1h30m"),
        (86400, "1d"),
        (3601.001, "1h1.001s"),
        (100, "1m40s"),
    ],
)
def test_a_duration_is_written_as_people_write_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=int(DURATION_MAX_S * 1000)))
def test_what_is_written_is_read_back_to_the_millisecond(duration_ms: int) -> None:
    text = format_duration(duration_ms / 1000)
    assert round(parse_duration(text, plain_unit_s=1.0) * 1000) == duration_ms
