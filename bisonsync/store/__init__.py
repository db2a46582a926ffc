"""Typed functions over the queries in sql/, one module per family."""
