"""Postgres addresses: read as libpq reads them, and no password ever in a message."""

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from bisonsync.settings import dsn

PIECES = [
    "u",
    "p",
    "h",
    "db",
    ":",
    "@",
    "/",
    "?",
    "&",
    "=",
    "%",
    "%2F",
    "%00",
    "%41",
    "%db",
    "[",
    "]",
    "::1",
    ",",
    "5432",
    "host=",
    "user",
    "password",
    "dbname",
    "'",
    "''",
    "\\",
    "#",
    "é",
    "port=",
    "1",
    " ",
    "\n",
]
ADDRESSES = st.builds(
    str.__add__,
    st.sampled_from(["postgresql://", "postgres://", "", "host=h "]),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
)


@settings(deadline=None, database=None, max_examples=1500)
@given(ADDRESSES)
def test_reads_an_address_as_libpq_does(text):
    ours, reason = read_ours(text)
    theirs, their_reason = read_libpqs(text)

    if ours is not None and theirs is not None:
        assert ours == theirs
    elif ours is not None:
        # Which options exist differs between libpq's versions: only libpq can tell.
        assert "invalid connection option" in their_reason or "invalid URI query parameter" in their_reason
    elif theirs is not None:
        assert is_stricter_on_purpose(text, reason, theirs)


def read_ours(text):
    try:
        return {key: value for key, value in dsn.parse(text).items() if value}, ""
    except ValueError as error:
        return None, str(error)


def read_libpqs(text):
    try:
        return {key: value for key, value in conninfo_to_dict(text).items() if value}, ""
    except (psycopg.ProgrammingError, UnicodeDecodeError) as error:
        return None, str(error)


def is_stricter_on_purpose(text, reason, theirs):
    """Tell whether libpq takes what can only be a mistake: an @ or bracket in a host, a port of letters, blanks."""
    rest = text.partition("://")[2]
    odd_host = "host or port" in reason and (
        set("[]@:") & set(rest) or not set(theirs.get("port", "")) <= set("0123456789,")
    )
    return (
        odd_host
        or "port is not a number" in reason
        or "control character" in reason
        or "it is empty" in reason
        or text.endswith("\\")
    )


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:pw@h/db",
        "postgres://:pw@/db",
        "postgresql://me@h/db?password=pw",
        "postgresql://me@h/db?pass%77ord=pw",
        "postgresql://h/db?sslpassword=pw",
        "host=h password=pw",
        "host=h password = 'p w'",
        "postgresql://me:p/w@h/db",
        "postgresql://me:p%zz@h/db",
        "me:pw@h/db",
        "host=h password",
    ],
)
def test_sees_a_password_in_any_form(text):
    assert dsn.holds_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@h:5432/db?sslmode=require",
        "postgresql://me:@h/db",
        "postgresql:///db?host=/run/postgresql",
        "host=/run/postgresql dbname=x",
        "postgresql://me@h:54x32/db",
        "service=main passfile=/etc/pgpass",
    ],
)
def test_sees_no_password_where_there_is_none(text):
    assert not dsn.holds_secret(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@db.example.com:6543/x?sslmode=require", "host=db.example.com port=6543 dbname=x user=me"),
        ("host=h password='p w' dbname=x", "host=h dbname=x"),
        ("postgresql://a,b/x", "host=a,b dbname=x"),
        ("embedded", "embedded"),
    ],
)
def test_describes_where_an_address_points_to(text, shown):
    assert dsn.describe(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "mysql://h/db",
        "https://h/?a=b",
        "jdbc:postgresql://h/db",
        "postgresql://h:0/db",
        "postgresql://me:1,pw/x@h/db",
        "host=h\0x",
    ],
)
def test_refuses_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"it is|it holds|its (host or )?port"):
        dsn.parse(text)


@settings(deadline=None, database=None)
@given(st.lists(st.sampled_from(["Zq7x", *"@:/?#%'&[] \\\n,"]), min_size=1).map("".join))
def test_says_nothing_of_a_password_it_cannot_read(password):
    for address in ("postgresql://me:{}@h/db", "host=h password={}", "postgresql://h/d?password={}"):
        try:
            shown = dsn.describe(address.format(password))
        except ValueError as error:
            shown = str(error)

        assert "Zq7x" not in shown


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        (
            "postgresql://me@h:6543/db?pgbouncer=true",
            "it holds pgbouncer,",
            "remove pgbouncer from it: bisonsync works",
        ),
        (
            "postgresql://h/db?schema=public&connection_limit=1",
            "it holds schema and connection_limit,",
            "remove schema and",
        ),
        ("host=h currentSchema=public", "it holds currentSchema,", "schema public"),
        ("postgresql://h/db?ssl=1", "it holds ssl,", "sslmode=require"),
        ("postgresql://h/db?sslmode=no-verify", "its sslmode", "require"),
        ("postgresql://h/db?connect_timeout=5s", "its connect_timeout", "connect_timeout=5"),
        ("postgresql+psycopg://h/db", "it begins with postgresql+psycopg://", "write postgresql://"),
        ("jdbc:postgresql://h/db", "it begins with jdbc:postgresql://", "write postgresql://"),
        ("https://abc.example.com", "it begins with https://", "API"),
        ("'postgresql://h/db'", "it stands in quotes", "take them away"),
        ("psql postgresql://h/db", "the command psql", "what follows"),
        ("DATABASE_URL=postgresql://h/db", "name of a variable", "what follows the ="),
        ("Host=h;Username=me;Password=Zq7x", "semicolons", "postgresql://USER"),
        ("postgresql://me:[YOUR-PASSWORD]@h/db", "placeholder", "the password of the database"),
        ("me:Zq7x@h/db", "neither a postgresql:// address", "postgresql://USER"),
    ],
)
def test_names_what_another_program_s_address_holds_and_the_next_step(text, says, hint):
    with pytest.raises(dsn.Unusable) as caught:
        dsn.check(text)

    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert "Zq7x" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:p%40w@h:6543/db?sslmode=verify-full&sslrootcert=system&connect_timeout=10",
        "postgres://h1,h2:5433/db?target_session_attrs=read-write&ssl=true",
        "host=/run/postgresql dbname='a;b' options='-c geqo=off'",
    ],
)
def test_takes_what_libpq_takes(text):
    dsn.check(text)
