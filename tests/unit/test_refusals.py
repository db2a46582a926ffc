"""What keeps us out of a database is told as what it is, with the next step; what may pass is waited for."""

import pytest

from bisonsync.store.refusals import explain

AT = 'connection failed: connection to server at "127.0.0.1", port 6543 failed: '
ENTRY = f'{AT}FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "me", database "db"'
ROOT = "Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode."


@pytest.mark.parametrize(
    ("text", "reason", "hint"),
    [
        ("fe_sendauth: no password supplied", "asks for a password, and database_url has none", "database_url_file"),
        ('FATAL:  password authentication failed for user "me"', "password authentication failed", "percent-encoded"),
        ("FATAL:  Tenant or user not found", "Tenant or user not found", "postgres.PROJECT"),
        ('FATAL:  database "db" does not exist', "does not exist", "database's name"),
        ("FATAL:  no such database: db", "no such database: db", "[databases]"),
        ('FATAL:  role "me" does not exist', "does not exist", "CREATE ROLE"),
        ('FATAL:  role "me" is not permitted to log in', "not permitted", "LOGIN"),
        ('FATAL:  permission denied for database "db"', "permission denied", "GRANT CONNECT"),
        ('FATAL:  Peer authentication failed for user "me"', "Peer", "host=127.0.0.1"),
        ("FATAL:  connection requires a valid client certificate", "client certificate", "sslcert="),
        ("FATAL:  SSL required", "SSL required", "sslmode=require"),
        ("server does not support SSL, but SSL was required", "does not support SSL", "sslmode=prefer"),
        (f'root certificate file "/r.crt" does not exist\n{ROOT}', "/r.crt", "sslrootcert=system"),
        ("SSL error: certificate verify failed", "verify failed", "sslrootcert="),
        ('server certificate for "a" does not match host name "b"', 'for "a"', "write the host"),
        ('could not load private key file "/k": wrong', "/k", "mode 0600"),
        ("FATAL:  bad packet header: '0000002300030002'", "version of the protocol", "max_protocol_version=3.0"),
        ("FATAL:  unsupported protocol version 3.2", "version of the protocol", "max_protocol_version=3.0"),
        ('server only supports protocol version 3.0, but "min_protocol_version" was set to 3.2', "3.2", "take min_"),
        ("FATAL:  unsupported startup parameter: options", "parameter: options", "ignore_startup_parameters"),
        ("channel binding required, but server did not", "channel binding", "channel_binding"),
        ("FATAL:  something new", "something new", "check user, password and database name"),
    ],
)
def test_what_no_waiting_cures_is_final_and_names_the_next_step(text, reason, hint):
    found = explain(AT + text)

    assert found is not None
    assert found.is_final
    assert reason in found.reason
    assert "127.0.0.1" not in found.reason
    assert hint in found.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FATAL:  the database system is starting up", ""),
        ("FATAL:  Max client connections reached", "max_connections"),
        ("FATAL:  sorry, too many clients already", "max_connections"),
        ("session is read-only", "target_session_attrs"),
        ("Network is unreachable", "IPv6"),
    ],
)
def test_what_may_pass_is_not_final(text, hint):
    found = explain(AT + text)

    assert found is not None
    assert not found.is_final
    assert hint in found.hint


def test_a_name_server_that_fails_for_a_moment_is_waited_for():
    unknown = explain("failed to resolve host 'h': [Errno -2] Name or service not known")
    for_a_moment = explain("failed to resolve host 'h': [Errno -3] Temporary failure in name resolution")

    assert unknown is not None
    assert unknown.is_final
    assert for_a_moment is not None
    assert not for_a_moment.is_final


def test_a_host_out_of_reach_says_nothing_of_its_own():
    assert explain(f"{AT}Connection refused\n\tIs the server running on that host?") is None


def test_of_two_tries_the_one_that_says_more_counts():
    """With encryption and without; that pg_hba.conf has no entry for one of them is not the cause."""
    refused = f"{ENTRY}, no encryption"
    failed = f'{AT}FATAL:  password authentication failed for user "me"'

    for text in (f"{failed}\n{refused}", f"{ENTRY}, SSL encryption\n{failed}"):
        found = explain(text)
        assert found is not None
        assert found.reason == 'password authentication failed for user "me"'


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"{ENTRY}, no encryption", "sslmode=require"),
        (f"{ENTRY}, SSL encryption\n{ENTRY}, no encryption", "pg_hba.conf must let"),
    ],
)
def test_pg_hba_is_told_by_what_it_lets_in(text, hint):
    found = explain(text)

    assert found is not None
    assert hint in found.hint


def several(*texts):
    lines = [f"- host: 'h{n}', port: '', hostaddr: '10.0.0.{n}': {AT}{text}" for n, text in enumerate(texts, 1)]
    return "\n".join([AT + texts[-1], "Multiple connection attempts failed. All failures were:", *lines])


def test_of_several_hosts_one_that_may_come_back_is_waited_for():
    wrong = 'FATAL:  password authentication failed for user "me"'

    one_down = explain(several("Connection refused", wrong))
    all_refuse = explain(several(wrong, wrong))

    assert one_down is None
    assert all_refuse is not None
    assert all_refuse.is_final
    assert "(host h1)" in all_refuse.reason
