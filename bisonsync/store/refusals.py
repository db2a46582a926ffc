"""What libpq, a server or a pooler says when it lets nobody in: whether waiting may help, and what does."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_TLS_FILES = "check sslrootcert, sslcert and sslkey in database_url: path, owner, and mode 0600 for the key"
_LOGIN_HINT = "check user, password and database name in database_url"

# In this order, in any case: what is said, what that means where its own words do not say so, and the next step.
_PASSING = (
    ("starting up|shutting down|recovery|not yet|wait_timeout|server_login_retry|temporary failure", ""),
    (
        "too many|remaining connection slots|no more connections|max client|maxclients|max_client_conn|emaxconn",
        "all connections are taken: see who holds them (pg_stat_activity), or raise max_connections or pool size",
    ),
    (
        "session is (not )?read-only|server is (not )?in hot standby mode",
        "target_session_attrs in database_url finds no such server: give the primary's address",
    ),
    (
        "network is unreachable|cannot assign requested address",
        "does this host have IPv6? A Supabase project's own host has nothing else; its pooler's has both",
    ),
)
_FINAL = (
    (
        "no password supplied|empty password|password is required",
        "the server asks for a password, and database_url has none",
        "write the whole address with its password into a file of mode 0600 and name it as database_url_file,"
        " or use ~/.pgpass",
    ),
    (
        "tenant or user not found|tenant/user .* not found|tenant_not_found",
        "",
        "Supabase's pooler wants the user postgres.PROJECT and the host of the project's region:"
        " copy the address again from the project's page Connect",
    ),
    (
        "password authentication failed|sasl authentication failed|wrong password|invalid password",
        "",
        "check user and password in database_url; special characters in a password must be percent-encoded",
    ),
    (
        "no such user|role .* does not exist|not permitted to log in",
        "",
        "check the user in database_url, or create it: CREATE ROLE … LOGIN",
    ),
    (
        "no such database|database .* does not exist|bouncer config error",
        "",
        "check the database's name in database_url; behind a pooler, also in the pooler's [databases]",
    ),
    (
        "peer authentication failed|ident authentication failed",
        "",
        "run it as that system user, or give host=127.0.0.1",
    ),
    ("permission denied for database", "", "GRANT CONNECT ON DATABASE … TO the user of database_url"),
    (
        "client certificate|certificate authentication failed",
        "",
        "give the user's certificate in database_url: sslcert=/path&sslkey=/path (the key of mode 0600)",
    ),
    (
        "ssl( connection)? (is )?required|^(?!.*ssl encryption).*no pg_hba\\.conf entry.*no encryption",
        "",
        "it wants an encrypted connection: write sslmode=require into database_url",
    ),
    (
        "pg_hba\\.conf",
        "",
        "its pg_hba.conf must let this user into this database from here; then SELECT pg_reload_conf()",
    ),
    (
        "does not support ssl",
        "",
        "turn SSL on there, or write sslmode=prefer into database_url where the way to it is safe",
    ),
    (
        "root certificate file .* does not exist",
        "",
        "download the CA's certificate and give sslrootcert=/path in database_url, or sslrootcert=system for a CA that"
        " every system knows",
    ),
    (
        "certificate verify failed",
        "",
        "give the CA that signed the server's certificate as sslrootcert=/path in database_url; has either expired?",
    ),
    (
        "certificate for .* does not match",
        "",
        "write the host in database_url as the server's certificate has it",
    ),
    ("certificate|private key|ssl error: .*file", "", _TLS_FILES),
    (
        "only supports protocol version|min_protocol_version|invalid protocol version range",
        "",
        "take min_protocol_version out of database_url, and PGMINPROTOCOLVERSION out of the environment",
    ),
    (
        "bad packet header|unsupported (frontend )?protocol|protocol version",
        "it refuses this version of the protocol, as older poolers do: {}",
        "write max_protocol_version=3.0 into database_url",
    ),
    (
        "unsupported startup parameter",
        "",
        "take it out of database_url (options also comes from PGOPTIONS), or name it in the pooler's"
        " ignore_startup_parameters",
    ),
    (
        "channel binding|authentication method requirement|gssapi encryption required",
        "",
        "check channel_binding, require_auth and gssencmode in database_url",
    ),
    (
        "resolve host|translate host name",
        "the host name is not known",
        "check the host in database_url",
    ),
    (
        "invalid .* value|weak sslmode|may not be used|service|unrecognized configuration parameter",
        "",
        "check the parameters in database_url, and the PG… variables of the environment",
    ),
    ("permission denied", "", "the user that runs this may not use that socket: check the mode of its folder"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody is let in, and what to do. Final is what no waiting cures; ``is_of_server``: it said so itself."""

    reason: str
    hint: str
    is_final: bool
    is_of_server: bool = False


def explain(text: str) -> Refusal | None:
    """What the error of a connection means; None where the server may only be out of reach.

    With several hosts it is final only when it is for each: another one may let us in later.
    """
    attempts = text.split("\n- host: ")[1:]
    if not attempts:
        return _explain(text)
    found = [_explain(attempt) for attempt in attempts]
    passing = [each for each in found if each is None or not each.is_final]
    first = passing[0] if passing else found[0]
    host = attempts[0].partition(",")[0].strip("'")
    return first and (first if passing else replace(first, reason=f"{first.reason} (host {host})"))


def _explain(text: str) -> Refusal | None:
    # It may have been refused twice, with encryption and without; where one says more than pg_hba.conf, that is why.
    fatal = [line.partition("FATAL:")[2].strip() for line in text.splitlines() if "FATAL:" in line]
    reason = next((line for line in fatal if "pg_hba.conf" not in line), "; ".join(dict.fromkeys(fatal)))
    reason = reason or _last_words(text)
    # A database may be called recovery.
    said = re.sub('"[^"]*"', '""', reason)
    for pattern, hint in _PASSING:
        if re.search(pattern, said, re.IGNORECASE):
            return Refusal(reason, hint, is_final=False)
    for pattern, meaning, hint in _FINAL:
        if re.search(pattern, said, re.IGNORECASE):
            return Refusal(meaning.format(reason) or reason, hint, is_final=True, is_of_server=bool(fatal))
    return Refusal(reason, _LOGIN_HINT, is_final=True, is_of_server=True) if fatal else None


def _last_words(text: str) -> str:
    """The first line without where it was tried."""
    line = text.strip().partition("\n")[0]
    return re.sub(r"^.*?(?:connection is bad: |\bport \d+ failed: |\" failed: )", "", line)
