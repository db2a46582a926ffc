"""Days and moments as an operator writes them, also on a machine without a time zone database."""

import sys
import zoneinfo
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from bisonsync.cli.moments import parse_moment
from bisonsync.errors import UsageError
from bisonsync.settings.models import Timezone


@pytest.fixture
def no_zones(monkeypatch):
    """A slim container: neither the system's zones nor the package tzdata."""
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()


@pytest.mark.parametrize("text", ["2026-05-06", "2026-05-06T00:00", "2026-05-06T00:00:00Z", "2026-05-06T02:00+02:00"])
def test_a_moment_in_utc_needs_no_time_zone_database(no_zones, text):
    assert parse_moment(text, "--since", zone="UTC") == datetime(2026, 5, 6, tzinfo=UTC)


def test_a_day_begins_in_the_reporting_zone():
    assert parse_moment("2026-05-06", "--since", zone="Europe/Berlin") == datetime(2026, 5, 5, 22, tzinfo=UTC)


def test_what_is_no_moment_is_refused():
    with pytest.raises(UsageError, match="--since"):
        parse_moment("soon", "--since", zone="UTC")


def test_a_zone_without_a_database_names_the_package(no_zones):
    zone = TypeAdapter(Timezone)

    assert zone.validate_python("UTC") == "UTC"
    with pytest.raises(ValidationError, match="no time zone database: apt-get install tzdata, or pip install tzdata"):
        zone.validate_python("Europe/Berlin")
