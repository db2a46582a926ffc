"""Fills the registry of workspaces and gives each a token that acts in it alone."""
