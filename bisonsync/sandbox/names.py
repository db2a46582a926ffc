"""The words from which the sandbox makes people, clients and domains."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Alex Amir Anna Ben Carla Chen Clara Dana David Elif Emil Emma Eva Felix Finn Grace Hana Ivan Iris "
    "Jana Jonas Jude Kim Lara Leo Lina Luca Maya Mila Nora Omar Paul Priya Rosa Sam Tara Theo Vera Zoe"
)
LAST_NAMES = _words(
    "Abel Baker Becker Castro Cole Dale Diaz Ellis Fox Frost Grant Haas Hale Ito Jensen Kaya Keller Kent Lane "
    "Lopez Marsh Meyer Nash Novak Okoye Park Patel Quinn Reed Rossi Sato Shah Silva Stone Tran Vance Weber "
    "Wolf Young Zhu"
)
NAME_WORDS = _words(
    "Amber Birch Cedar Copper Delta Ember Falcon Granite Harbor Indigo "
    "Juniper Kestrel Linden Maple Nimbus Orchard Pioneer Quarry River Summit"
)
TRADES = _words(
    "Accounting Analytics Builders Capital Cleaning Dental Energy Fitness Freight Insurance "
    "Labs Law Logistics Media Partners Realty Roofing Software Staffing Travel"
)
DOMAIN_WORDS = _words("try get meet hello with join go team")
