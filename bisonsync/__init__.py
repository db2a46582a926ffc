"""Mirror Email Bison into Postgres: fresh, complete, and says so when it is not."""

__version__ = "0.1.0"
