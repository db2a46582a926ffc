"""Which check's failure is the cause of which other, by what they found."""

from __future__ import annotations

import random

import pytest

from bisonsync.checks.causes import attribute
from bisonsync.checks.check import CheckResult, Finding, State
from bisonsync.keys import WorkspaceKey

POLL = "job:poll-accounts"
CAMPAIGNS = "job:poll-campaigns"
PULL = "job:pull-events"
SNAPSHOT = "job:snapshot-providers"
ACME, OTHER = WorkspaceKey("sim", 1), WorkspaceKey("sim", 2)


def found(*kinds: str, workspace: WorkspaceKey | None = None, state: State = "WARNING") -> Finding:
    return Finding("it", state, "is wrong", workspace, kinds=kinds)


def result(name: str, *findings: Finding, state: State = "WARNING") -> CheckResult:
    return CheckResult(name, state, "is wrong", findings=findings)


def causes(*results: CheckResult) -> dict[str, str | None]:
    return {each.name: each.caused_by for each in attribute(results)}


ABSENT = result("runs", found(POLL, "absent"))
STALE = found(POLL, "late", workspace=ACME)
NO_TOKEN = result("tokens", found(workspace=ACME))
DROPPED = result("account-drop", found(POLL, workspace=ACME))
HELD = result("leases", found(POLL, "held", workspace=ACME))
REFUSED = result("access", found("refused", state="CRITICAL"))
READ_ONLY = result("database", found("unwritable", state="CRITICAL"))
DOWN = result("api", found("instance:sim", "unanswered"))
FAILING = result("workspace-failures", found(POLL, "failing", "error:api_refused", workspace=ACME))


@pytest.mark.parametrize(
    ("effect", "cause"),
    [
        (result("freshness", STALE), ABSENT),
        (result("freshness", STALE), HELD),
        (result("freshness", STALE), FAILING),
        (result("freshness", found(POLL, "late", "error:credentials", workspace=ACME)), NO_TOKEN),
        (result("freshness", found(POLL, "late", "error:guard", workspace=ACME)), NO_TOKEN),
        (result("freshness", found(POLL, "late", "error:guarded", workspace=ACME)), DROPPED),
        (result("freshness", found(POLL, "late", "error:api_unavailable", workspace=ACME)), DOWN),
        (result("completeness", found(POLL, "error:credentials", workspace=ACME)), NO_TOKEN),
        (result("completeness", found(POLL, "error:guarded", workspace=ACME)), DROPPED),
        (result("completeness", found(POLL, "error:api_refused", workspace=ACME)), FAILING),
        (result("workspace-failures", found(POLL, "failing", "error:credentials", workspace=ACME)), NO_TOKEN),
        (result("workspace-failures", found(POLL, "failing", "error:guarded", workspace=ACME)), DROPPED),
        (result("workspace-failures", found("unread", "late", POLL, workspace=ACME)), result("freshness", STALE)),
        (result("runs", found(POLL, "verdict", "error:credentials")), NO_TOKEN),
        (result("runs", found(POLL, "verdict", "error:guard")), NO_TOKEN),
        (result("runs", found(CAMPAIGNS, "verdict", "error:guard")), NO_TOKEN),
        (result("runs", found(PULL, "verdict", "error:guard")), NO_TOKEN),
        (result("completeness", found(CAMPAIGNS, "error:guard", workspace=ACME)), NO_TOKEN),
        (result("freshness", found(CAMPAIGNS, "late", workspace=ACME)), result("runs", found(CAMPAIGNS, "absent"))),
        (result("runs", found(POLL, "verdict", "error:shrink")), DROPPED),
        (result("runs", found(POLL, "verdict", "error:database")), REFUSED),
        (result("freshness", found(POLL, "late", "error:database", workspace=ACME)), REFUSED),
        (result("webhook-silence", found()), READ_ONLY),
        (result("runs", found(POLL, "absent")), READ_ONLY),
        (result("runs", found(POLL, "verdict", "error:validation")), result("validation", found(workspace=ACME))),
        (
            result("runs", found(POLL, "verdict", "error:incomplete")),
            result("completeness", found(POLL, workspace=ACME)),
        ),
        (result("runs", found(SNAPSHOT, "verdict", "error:guard")), result("freshness", STALE)),
        (result("runs", found(SNAPSHOT, "verdict", "error:guard")), result("completeness", found())),
        (result("leases", found(POLL, "gone", "late", workspace=ACME)), ABSENT),
        (result("heartbeat", found(POLL, "late")), ABSENT),
        (result("account-drop", found(POLL, "late", "unread"), state="UNKNOWN"), ABSENT),
        (result("validation", found("unread"), state="UNKNOWN"), result("freshness", found("unread"))),
        (result("api", state="UNKNOWN"), ABSENT),
        (result("disconnects", state="UNKNOWN"), result("freshness", STALE)),
        (result("capacity", state="UNKNOWN"), result("freshness", STALE)),
        (result("provider-drop", found(SNAPSHOT, "late"), state="UNKNOWN"), result("runs", found(SNAPSHOT, "absent"))),
        (result("bounce", found(), state="UNKNOWN"), result("schema", state="CRITICAL")),
        (result("freshness", STALE), result("schema", state="CRITICAL")),
        (ABSENT, result("schema", state="CRITICAL")),
    ],
    ids=lambda each: f"{each.name}-{'-'.join(each.findings[0].kinds) if each.findings else each.state}",
)
def test_a_cause_is_named_whatever_the_order(effect: CheckResult, cause: CheckResult) -> None:
    assert causes(effect, cause) == causes(cause, effect) == {effect.name: cause.name, cause.name: None}


@pytest.mark.parametrize(
    ("effect", "other"),
    [
        # Another workspace's, another job's, another error's.
        (result("freshness", found(POLL, "late", "error:credentials", workspace=OTHER)), NO_TOKEN),
        (result("freshness", found(POLL, "late", "error:deadline", workspace=ACME)), NO_TOKEN),
        (result("freshness", found(POLL, "late", "error:api", workspace=WorkspaceKey("two", 1))), DOWN),
        (result("workspace-failures", found(POLL, "failing", "error:api", workspace=WorkspaceKey("two", 1))), DOWN),
        (result("freshness", found(POLL, "late", "error:api", workspace=ACME)), result("api", found("instance:sim"))),
        (result("runs", found(POLL, "verdict", "error:api")), result("api", found("instance:sim"))),
        (result("freshness", STALE), DROPPED),
        (result("freshness", found(POLL, "late", workspace=OTHER)), HELD),
        (result("freshness", found(POLL, "late", workspace=OTHER)), FAILING),
        (result("freshness", STALE), result("runs", found(SNAPSHOT, "absent"))),
        (result("freshness", STALE), result("runs", found(POLL, "verdict", "error:bug"))),
        (result("freshness", found(CAMPAIGNS, "late", workspace=ACME)), ABSENT),
        (result("freshness", found(CAMPAIGNS, "late", workspace=ACME)), FAILING),
        (result("completeness", found(CAMPAIGNS, "error:shrink", workspace=ACME)), DROPPED),
        (result("runs", found(CAMPAIGNS, "verdict", "error:shrink")), DROPPED),
        (
            result("runs", found(CAMPAIGNS, "verdict", "error:incomplete")),
            result("completeness", found(POLL, "error:incomplete", workspace=ACME)),
        ),
        (result("freshness", STALE), result("leases", found(POLL, "gone", workspace=ACME))),
        (result("completeness", found(POLL, "error:incomplete", workspace=ACME)), DROPPED),
        (result("runs", found(POLL, "verdict", "error:bug")), NO_TOKEN),
        (result("runs", found(POLL, "verdict")), NO_TOKEN),
        (result("runs", found(POLL, "verdict", "error:credentials", "error:database")), NO_TOKEN),
        (result("runs", found("job:prune", "verdict", "error:guard")), NO_TOKEN),
        (result("runs", found(SNAPSHOT, "verdict", "error:guard")), NO_TOKEN),
        (ABSENT, HELD),
        (result("tokens", found(workspace=ACME), state="CRITICAL"), result("schema", state="CRITICAL")),
        (result("freshness", STALE), result("schema", state="WARNING")),
        (result("disconnects", found(workspace=ACME)), result("freshness", STALE)),
        (result("freshness", STALE), CheckResult("runs", "OK", "", findings=(found(POLL, "absent", state="OK"),))),
    ],
)
def test_what_is_no_cause_is_not_named(effect: CheckResult, other: CheckResult) -> None:
    assert causes(effect, other)[effect.name] is None


def test_a_check_is_alarmed_when_one_finding_has_no_cause() -> None:
    stale = result("freshness", found("error:credentials", workspace=ACME), found("error:deadline", workspace=OTHER))

    attributed = {each.name: each for each in attribute((stale, NO_TOKEN))}

    assert attributed["freshness"].caused_by is None
    assert [each.caused_by for each in attributed["freshness"].findings] == ["tokens", None]


def test_the_deepest_cause_comes_first() -> None:
    """A workspace whose token is refused while nobody polls either."""
    stale = result("freshness", found(POLL, "late", "error:credentials", workspace=ACME))

    assert causes(stale, ABSENT, NO_TOKEN)["freshness"] == "tokens"


def test_a_cause_that_a_check_names_itself_stays() -> None:
    told = CheckResult("bounce", "UNKNOWN", "", caused_by="schema")

    assert causes(told)["bounce"] == "schema"


def test_what_is_well_has_no_cause() -> None:
    well = CheckResult("freshness", "OK", "")

    assert attribute((well, result("schema", state="CRITICAL")))[0] is well


def test_causes_never_go_round() -> None:
    """Whatever is found, something is alarmed."""
    chance = random.Random(7)
    for _ in range(20_000):
        results = chance_results(chance)

        assert None in causes(*results).values(), [(r.name, r.findings) for r in results]


def chance_results(chance: random.Random) -> list[CheckResult]:
    """Some checks with some findings of the kinds that they give."""
    errors = [f"error:{kind}" for kind in ("credentials", "guard", "guarded", "shrink", "validation", "incomplete")]
    given = {
        "freshness": [{POLL, "late", "unread"}, {POLL, CAMPAIGNS, "late", *errors}],
        "runs": [{POLL, SNAPSHOT, "absent"}, {POLL, SNAPSHOT, "verdict", *errors}],
        "completeness": [{POLL, "late", "unread"}, {POLL, CAMPAIGNS, *errors}],
        "workspace-failures": [{POLL, "late", "unread"}, {POLL, CAMPAIGNS, "failing", *errors}],
        "account-drop": [{POLL, "late", "unread"}, set[str]()],
        "tokens": [set[str](), {"unread"}],
        "leases": [{POLL, "held"}, {POLL, "gone", "late"}, {POLL, "late"}],
        "validation": [set[str](), {POLL, "late", "unread"}],
        "api": [set[str](), {"instance:sim", "unanswered"}],
        "heartbeat": [{POLL, "late"}],
    }
    results: list[CheckResult] = []
    for name in chance.sample(sorted(given), chance.randint(1, 3)):
        findings = [
            found(
                *(kind for kind in sorted(chance.choice(given[name])) if chance.random() < 0.8),
                workspace=chance.choice([ACME, OTHER, None]),
            )
            for _ in range(chance.randint(1, 2))
        ]
        results.append(result(name, *findings))
    return results
