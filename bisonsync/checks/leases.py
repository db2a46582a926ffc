"""Does a run keep others out without working: dead, standing still, or for too long?"""

from __future__ import annotations

from collections.abc import Mapping

from bisonsync.checks.check import OK, UNKNOWN, WARNING, CheckResult, Finding, Limit, Look, State, grade
from bisonsync.checks.clock import TOLERANCE_SECONDS
from bisonsync.checks.wording import named, span, worst_first, worst_of
from bisonsync.store import health_jobs, leases
from bisonsync.store.health_jobs import HeldLease

NAME = "leases"
# For how long a run may hold one, and for how long at most without a sign of life.
LIMITS: Mapping[str, Limit] = {"warning": Limit(900, "s"), "critical": Limit(3600, "s"), "silent": Limit(180, "s")}
# A lease is renewed four times in its life; half of it without is silence.
_LIFE_IN_SILENCE = 0.5


def look(look: Look) -> CheckResult:
    """Look at each lease that says it is held. UNKNOWN while no job ever took one."""
    limits = look.limits[NAME]
    held = look.read(health_jobs.list_held_leases)
    if not held and not look.read(health_jobs.count_leases):
        finding = Finding("job_leases", UNKNOWN, "no job took a lease yet", kinds=("job:poll-accounts", "late"))
        return CheckResult(
            NAME, UNKNOWN, finding.detail, "bisonsync poll-accounts", thresholds=limits, findings=(finding,)
        )
    seen = [(lease, _judge(look, lease, limits)) for lease in held]
    bad = worst_first([found for _, found in seen if found.state != OK])
    longest = max(((look.now - row.started_at).total_seconds() for row in held if row.started_at), default=0.0)
    first = next((lease for lease, found in seen if bad and found is bad[0]), None)
    return CheckResult(
        NAME,
        worst_of(bad, OK),
        f"{len(bad)} of {len(held)} held: {bad[0].subject}: {bad[0].detail}"
        if bad
        else f"{len(held)} held, by runs that are at work"
        if held
        else "none is held",
        hint=_hint(first, bad[0]) if first else "",
        value=max(0, round(longest)),
        unit="s",
        thresholds=limits,
        findings=bad,
    )


def _judge(look: Look, lease: HeldLease, limits: Mapping[str, Limit]) -> Finding:
    state, detail, kind = _matter(look, lease, limits)
    where = f" {named(lease.key, lease.name)}" if lease.bison_workspace_id else f" {lease.bison_instance}"
    since = "" if lease.started_at is None else f", since {span((look.now - lease.started_at).total_seconds())}"
    holder = f"pid {lease.pid} on {lease.host}{since}"
    kinds = (f"job:{lease.job}", kind, *(["late"] if kind == "gone" else []))
    return Finding(f"{lease.job}{where}", state, f"{holder}: {detail}", lease.key, kinds=kinds)


def _matter(look: Look, lease: HeldLease, limits: Mapping[str, Limit]) -> tuple[State, str, str]:
    """The state, what is the matter, and whether the holder is gone or still keeps others out."""
    if lease.heartbeat_at is None or lease.expires_at is None:
        return WARNING, "held without an end", "held"
    silent = (look.now - lease.heartbeat_at).total_seconds()
    if silent < -TOLERANCE_SECONDS:
        return UNKNOWN, f"renewed {span(-silent)} in the future: a clock is wrong", "clock"
    if lease.expires_at <= look.now:
        ago = span((look.now - lease.expires_at).total_seconds())
        return WARNING, f"ran out {ago} ago and was not released: it died or stands still", "gone"
    if leases.is_alive(lease.process_key, lease.pid) is False:
        return WARNING, "its process is gone; the next run takes it over", "gone"
    life = (lease.expires_at - lease.heartbeat_at).total_seconds()
    if silent > min(_LIFE_IN_SILENCE * life, limits["silent"].value):
        return WARNING, f"no sign of life for {span(silent)}", "held"
    if lease.status != "running":
        told = "no run of the ledger holds it" if lease.status is None else f"its run has ended ({lease.status})"
        return WARNING, told, "held"
    seconds = (look.now - lease.started_at).total_seconds() if lease.started_at else 0.0
    return grade(seconds, limits), "works on and on", "held"


def _hint(lease: HeldLease, found: Finding) -> str:
    if "gone" in found.kinds:
        return f"bisonsync {lease.job}" if lease.job.startswith("poll-") else "bisonsync runs running"
    if "clock" in found.kinds:
        return "bisonsync health clock"
    known = "running" if lease.status is None else f"show {str(lease.holder)[:8]}"
    return f"bisonsync runs {known}  # and on {lease.host}: ps -fp {lease.pid}"
