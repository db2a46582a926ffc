"""The files under sql/ as migrate reads them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bisonsync.errors import SchemaMismatch
from bisonsync.queries import sql_dir
from bisonsync.store.schema_files import checksum, newest_migration, read_schema_files


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    """A copy of the package's SQL that a test may spoil."""
    return shutil.copytree(sql_dir(), tmp_path / "sql")


@pytest.mark.parametrize(
    "same",
    [
        "SELECT 1;\r\nSELECT 2;\r\n",
        "SELECT 1;\rSELECT 2;\r",
        "SELECT 1;  \nSELECT 2;\t\n",
        "SELECT 1;\nSELECT 2;",
        "SELECT 1;\nSELECT 2;\n \n\r\n\t\n",
    ],
)
def test_checksum_ignores_line_ends_and_trailing_blanks(same: str) -> None:
    assert checksum(same) == checksum("SELECT 1;\nSELECT 2;\n")


@pytest.mark.parametrize(
    "other",
    ["SELECT 1;\nSELECT 3;\n", "SELECT 1;\n\nSELECT 2;\n", " SELECT 1;\nSELECT 2;\n", "SELECT  1;\nSELECT 2;\n"],
)
def test_checksum_tells_other_texts_apart(other: str) -> None:
    assert checksum(other) != checksum("SELECT 1;\nSELECT 2;\n")


def test_reads_migrations_by_number_and_ignores_what_is_no_sql_file(sql: Path) -> None:
    (sql / "migrations" / "0100_later.sql").write_text("SELECT 1;")
    (sql / "migrations" / "._0100_later.sql").write_bytes(b"\x00\x05")
    (sql / "migrations" / "0100_later.sql~").write_text("SELECT 2;")

    versions = [item.version for item in read_schema_files(sql).migrations]

    assert versions == sorted(versions)
    assert versions[0] == 1
    assert versions[-1] == 100
    assert newest_migration(sql) == (len(versions), 100)


def test_a_byte_order_mark_is_no_change(sql: Path) -> None:
    before = read_schema_files(sql).migrations[0]
    path = sql / "migrations" / before.name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    after = read_schema_files(sql).migrations[0]

    assert (after.text, after.checksum) == (before.text, before.checksum)


def test_refuses_two_files_of_one_number_and_names_both(sql: Path) -> None:
    (sql / "migrations" / "0001_other.sql").write_text("SELECT 1;")

    with pytest.raises(SchemaMismatch, match=r"0001_initial\.sql and 0001_other\.sql"):
        read_schema_files(sql)


@pytest.mark.parametrize("name", ["3_short.sql", "00003_long.sql", "0003-dash.sql", "later.sql"])
def test_refuses_a_file_that_is_not_named_like_a_migration(sql: Path, name: str) -> None:
    (sql / "migrations" / name).write_text("SELECT 1;")

    with pytest.raises(SchemaMismatch, match=re.escape(name)):
        read_schema_files(sql)


def test_refuses_an_object_in_a_file_of_another_name(sql: Path) -> None:
    shutil.copy(sql / "views" / "data_freshness.sql", sql / "views" / "freshness.sql")

    with pytest.raises(SchemaMismatch, match=r"freshness\.sql"):
        read_schema_files(sql)


def test_every_object_comes_after_those_it_needs() -> None:
    seen: set[str] = set()
    for item in read_schema_files().objects:
        assert item.needs <= seen, item.name
        seen.add(item.name.partition(".")[2])


def test_every_mention_of_another_object_is_declared() -> None:
    objects = {item.name: item for item in read_schema_files().objects}
    for item in objects.values():
        code = re.sub(r"--.*|'[^']*'", "", item.text)
        mentioned = {name.partition(".")[2] for name in objects if re.search(rf"\b{re.escape(name)}\b", code)}
        assert mentioned - {item.name.partition(".")[2]} <= item.needs, item.name


def test_knows_what_a_migration_makes() -> None:
    made = {name for item in read_schema_files().migrations for name in item.created}

    assert {"public.client_registry", "public.sender_emails_cache", "bisonsync_private.workspace_tokens"} <= made


def test_migrations_leave_the_transaction_to_migrate() -> None:
    for item in read_schema_files().migrations:
        code = re.sub(r"--.*|'(?:[^']|'')*'", "", item.text)
        assert not re.search(r"\b(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|EXCEPTION|CASCADE;|CONCURRENTLY)\b", code), item.name


def test_views_run_with_the_rights_of_who_asks() -> None:
    for item in read_schema_files().objects:
        if item.kind == "view":
            assert "WITH (security_invoker = true)" in item.text, item.name
        elif "SECURITY DEFINER" in item.text:
            assert "SET search_path" in item.text, item.name
