"""Makes and tries the tokens of workspaces, each of which acts in one alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from bisonsync.api.client import InstanceClient
from bisonsync.api.lanes import side_by_side
from bisonsync.errors import (
    ApiRefused,
    ApiUnavailable,
    BisonsyncError,
    ConfigError,
    CredentialsError,
    DatabaseError,
    GuardRefused,
    Stopped,
)
from bisonsync.keys import AdminKeyName, WorkspaceKey
from bisonsync.models import MintedToken
from bisonsync.run import InstanceAccess, Problem, Result, SetupRun, WorkspaceOutcome
from bisonsync.store import tokens
from bisonsync.store.registry import WorkspaceRow

TokenState = Literal["valid", "mismatch", "refused", "missing", "unknown"]


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What the API says of one workspace's token."""

    state: TokenState
    problem: Problem | None = None


def mint_tokens(run: SetupRun, rows: Sequence[WorkspaceRow]) -> Result:
    """Make one api-user token for each workspace that has no valid one, and store it.

    The intent is committed before the API is asked, the token at once when it comes. A token whose answer was lost
    is named in a problem once, for it may exist; the next run asks for another.
    """
    stored = _stored_tokens(run)

    def work(row: WorkspaceRow) -> tuple[str, Problem | None]:
        access = run.instances.get(row.bison_instance)
        if access is None:
            return "failed", Problem.of(_not_configured(row), str(row.key))
        check = check_token(access, row, stored.get(row.key))
        if not run.dry_run and row.key in stored and check.state != "unknown":
            _note(run, row, check)
        if check.state in ("valid", "unknown"):
            return ("kept" if check.state == "valid" else "failed"), check.problem
        if row.bison_workspace_id in access.workspace_keys:
            return "failed", check.problem
        if access.api_key is None:
            missing = CredentialsError(
                f"instance {row.bison_instance} has no api_key to make tokens with",
                hint="give instances.NAME.api_key_file, the super-admin's key",
            )
            return "failed", Problem.of(missing, str(row.key))
        if run.dry_run:
            return "minted", None
        _mint(run, access.client, access.api_key, row)
        return "minted", None

    problems = _lost_intents(run, rows)
    outcomes = _side_by_side(run, rows, work)
    counts = {"workspaces_total": len(rows), **{name: _count(outcomes, name) for name in ("minted", "kept", "failed")}}
    return Result(
        counts,
        workspaces=tuple(_as_outcome(row, *outcomes[row.key]) for row in rows),
        problems=tuple(problems),
        summary=f"{counts['minted']} tokens made, {counts['kept']} valid already, {counts['failed']} failed",
    )


def verify(run: SetupRun, rows: Sequence[WorkspaceRow]) -> Result:
    """Ask for each workspace's token in which workspace it acts, and note the answer."""
    stored = _stored_tokens(run)
    states: dict[WorkspaceKey, TokenState] = {}

    def work(row: WorkspaceRow) -> tuple[str, Problem | None]:
        access = run.instances.get(row.bison_instance)
        if access is None:
            return "unknown", Problem.of(_not_configured(row), str(row.key))
        check = check_token(access, row, stored.get(row.key))
        states[row.key] = check.state
        if not run.dry_run and row.key in stored and check.state != "unknown":
            _note(run, row, check)
        return check.state, check.problem

    outcomes = _side_by_side(run, rows, work)
    names = ("valid", "mismatch", "refused", "missing", "unknown", "failed")
    counts = {"workspaces_total": len(rows), **{name: _count(outcomes, name) for name in names}}
    return Result(
        counts,
        workspaces=tuple(_as_outcome(row, *outcomes[row.key]) for row in rows),
        summary=", ".join(f"{counts[name]} {name}" for name in names if counts[name]) or "no workspace",
        details={"tokens": [{"workspace": str(row.key), "state": outcomes[row.key][0]} for row in rows]},
    )


def check_token(access: InstanceAccess, row: WorkspaceRow, stored: str | None) -> TokenCheck:
    """Ask a token in which workspace it acts."""
    name = str(row.key)
    token = access.workspace_keys.get(row.bison_workspace_id) or stored
    if not token:
        hint = "run 'bisonsync workspaces mint-tokens'"
        return TokenCheck("missing", Problem("credentials", f"workspace {name} has no token", hint, name, 4))
    try:
        acting = access.client.get_acting_workspace(token, who=f"the token of workspace {name}")
    except CredentialsError as error:
        hint = (
            "run 'bisonsync workspaces mint-tokens' to replace it"
            if row.vanished_at is None
            else f"it vanished from the host's list: 'bisonsync workspaces disable {name}' if it is gone for good"
        )
        return TokenCheck("refused", replace(Problem.of(error, name), hint=hint))
    except (ApiUnavailable, ApiRefused) as error:
        return TokenCheck("unknown", Problem.of(error, name))
    if acting.id != row.bison_workspace_id:
        return TokenCheck(
            "mismatch",
            Problem(
                GuardRefused.kind,
                f"the token of workspace {name} acts in workspace {acting.id} ({acting.shown})",
                "run 'bisonsync workspaces mint-tokens' to give it one of its own",
                name,
                GuardRefused.exit_code,
            ),
        )
    return TokenCheck("valid")


def _stored_tokens(run: SetupRun) -> dict[WorkspaceKey, str]:
    return {row.key: row.token for row in run.bookkeeping.run(tokens.list_tokens)}


def _note(run: SetupRun, row: WorkspaceRow, check: TokenCheck) -> None:
    error = check.problem.message if check.problem else None
    run.bookkeeping.run(lambda conn: tokens.set_status(conn, *row.key, check.state, error))


def _mint(run: SetupRun, client: InstanceClient, key: str, row: WorkspaceRow) -> None:
    """Make, store and try one token. Raises what the API or the new token's identity gives cause for."""
    name = f"bisonsync {run.host} {str(run.run_id)[:8]}"
    intent = run.bookkeeping.run(lambda conn: tokens.open_intent(conn, *row.key, name))
    try:
        minted = client.create_token(key, row.bison_workspace_id, name, who=AdminKeyName(row.bison_instance))
    except BisonsyncError as error:
        # Only a request that was sent and not answered may have made a token.
        if not isinstance(error, ApiUnavailable) or error.is_carried_out is False:
            _close(run, intent, "failed", error.message)
            raise
        _close(run, intent, "unknown", error.message)
        raise ApiUnavailable(
            f"workspace {row.key}: whether the token {name!r} was made is not known: {error.message}",
            hint=f"look for {name!r} under the workspace's API tokens, delete it there, and run mint-tokens again",
        ) from error
    _store(run, row, minted, name, intent)
    acting = client.get_acting_workspace(minted.plain_text_token, who=f"the new token of workspace {row.key}")
    is_right = acting.id == row.bison_workspace_id
    run.bookkeeping.run(lambda conn: tokens.set_status(conn, *row.key, "valid" if is_right else "mismatch"))
    if not is_right:
        raise GuardRefused(
            f"the new token of workspace {row.key} acts in {acting.id} ({acting.shown}); it is not used",
            hint="make an api-user token of that workspace by hand: 'bisonsync workspaces add --token-file'",
        )


def _store(run: SetupRun, row: WorkspaceRow, minted: MintedToken, name: str, intent: int) -> None:
    def work(conn: Any) -> None:
        tokens.store_token(
            conn, *row.key, token=minted.plain_text_token, token_name=name, token_id=minted.id, status="minting"
        )
        tokens.close_intent(conn, intent, "stored")

    run.bookkeeping.run(work)


def _close(run: SetupRun, intent: int, outcome: str, detail: str) -> None:
    run.bookkeeping.run(lambda conn: tokens.close_intent(conn, intent, outcome, detail))


def _lost_intents(run: SetupRun, rows: Sequence[WorkspaceRow]) -> list[Problem]:
    """Tokens that an earlier run asked for before it was killed; told once."""
    keys = {row.key for row in rows}
    lost = [intent for intent in run.bookkeeping.run(tokens.list_open_intents) if intent.key in keys]
    if not run.dry_run:
        for intent in lost:
            _close(run, intent.id, "unknown", "the run that asked for it ended before the answer came")
    return [
        Problem(
            "lost_token",
            f"workspace {intent.key}: a token {intent.token_name!r} "
            f"was asked for at {intent.intent_at:%Y-%m-%d %H:%M} UTC and never arrived",
            "look for it under the workspace's API tokens and delete it there",
            str(intent.key),
        )
        for intent in lost
    ]


def _side_by_side(
    run: SetupRun, rows: Sequence[WorkspaceRow], work: Callable[[WorkspaceRow], tuple[str, Problem | None]]
) -> dict[WorkspaceKey, tuple[str, Problem | None]]:
    """Do ``work`` for every row on each instance's lanes; an error becomes the row's own problem."""

    def guarded(row: WorkspaceRow) -> tuple[str, Problem | None]:
        try:
            return work(row)
        except (Stopped, DatabaseError):
            raise
        except BisonsyncError as error:
            return "failed", Problem.of(error, str(row.key))

    widths = {name: access.concurrency for name, access in run.instances.items()}
    return side_by_side(widths, {row.key: partial(guarded, row) for row in rows}, name="setup")


def _as_outcome(row: WorkspaceRow, state: str, problem: Problem | None) -> WorkspaceOutcome:
    is_good = state in ("minted", "kept", "valid")
    return WorkspaceOutcome(
        *row.key,
        row.workspace_name,
        "complete" if is_good else "guarded" if problem and problem.exit_code == GuardRefused.exit_code else "failed",
        problems=(problem,) if problem else (),
        committed=is_good,
    )


def _count(outcomes: Mapping[WorkspaceKey, tuple[str, Problem | None]], state: str) -> int:
    return sum(outcome[0] == state for outcome in outcomes.values())


def _not_configured(row: WorkspaceRow) -> ConfigError:
    return ConfigError(
        f"workspace {row.key}: instance {row.bison_instance!r} is not in the settings",
        hint=f"add [instances.{row.bison_instance}] with base_url",
    )
