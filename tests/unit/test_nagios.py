"""The line of --nagios, held against the plugin guidelines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_line import read_line

from bisonsync.checks.check import CRITICAL, NOT_IN_USE, OK, UNKNOWN, WARNING, CheckResult, Limit, State
from bisonsync.checks.nagios import status_line

STATES: tuple[State, ...] = (OK, WARNING, CRITICAL, UNKNOWN)


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_said_in_the_first_words(state: State) -> None:
    result = CheckResult("freshness", state, "3 of 27 workspaces", value=720.0, unit="s")

    assert read_line(status_line(state, [result])) == (
        state,
        "1 OK" if state == OK else f"freshness {state} (3 of 27 workspaces), 0 OK",
        ["freshness=720s;;;0"],
    )


def test_nothing_in_use_is_unknown() -> None:
    state, text, data = read_line(status_line(NOT_IN_USE, [CheckResult("inbox", NOT_IN_USE, "no webhooks")]))

    assert (state, text, data) == ("UNKNOWN", "nothing was looked at", [])


def test_why_nothing_could_be_looked_at_is_said_in_one_line() -> None:
    state, text, data = read_line(status_line(UNKNOWN, [], "database down at example.com:\nno | connection"))

    assert (state, text, data) == ("UNKNOWN", "database down at example.com: no connection", [])


def test_the_figure_stands_between_its_thresholds_without_an_exponent() -> None:
    limits = {"warning": Limit(300, "s"), "critical": Limit(600.5, "s"), "page": Limit(3600, "s")}
    results = [
        CheckResult("freshness", CRITICAL, "old", value=1e9, unit="s", thresholds=limits),
        CheckResult("bounce", OK, "few", value=0.00049, unit="%", thresholds={"warning": Limit(5, "%")}),
        CheckResult("database", OK, "small", value=5 * 1024**4, unit="B"),
    ]

    assert read_line(status_line(CRITICAL, results))[2] == [
        "freshness=1000000000s;300;600.5;0",
        "bounce=0%;5;;0",
        "database=5497558138880B;;;0",
    ]


def test_a_threshold_of_something_else_does_not_stand_beside_the_figure() -> None:
    result = CheckResult("completeness", WARNING, "2 lists", value=2, thresholds={"critical": Limit(3600, "s")})

    assert read_line(status_line(WARNING, [result]))[2] == ["completeness=2;;;0"]


def test_the_worst_comes_first_and_what_follows_from_another_last() -> None:
    results = [
        CheckResult("freshness", CRITICAL, "old", caused_by="tokens"),
        CheckResult("runs", WARNING, "partial"),
        CheckResult("tokens", CRITICAL, "1 refused"),
        CheckResult("clock", OK, "right"),
    ]

    assert read_line(status_line(CRITICAL, results))[1] == (
        "tokens CRITICAL (1 refused), runs WARNING (partial), freshness CRITICAL because of tokens, 1 OK"
    )


@given(
    st.lists(
        st.builds(
            CheckResult,
            name=st.sampled_from(("freshness", "account-drop", "tokens", "api")),
            state=st.sampled_from(STATES),
            detail=st.text(max_size=200)
            | st.sampled_from(("x | y=1", "a\nb\r\n", "`id` $(id)", "Größe 'n' = 5;;", "\u2028\x00")),
            value=st.none() | st.floats(min_value=0, max_value=1e15, allow_nan=False),
            unit=st.sampled_from(("", "s", "%", "B")),
        ),
        unique_by=lambda result: result.name,
    ),
    st.sampled_from(STATES),
    st.text(max_size=50),
)
def test_whatever_names_and_details_hold_the_line_stays_readable(
    results: list[CheckResult], state: State, failure: str
) -> None:
    assert read_line(status_line(state, results, failure))[0] == state


def test_500_failing_workspaces_leave_a_short_line() -> None:
    detail = ", ".join(f"maverick/{number} Client | {number}" for number in range(500))

    line = status_line(CRITICAL, [CheckResult("tokens", CRITICAL, detail)])

    assert len(read_line(line)[1]) <= 400
