"""One module per command, of the same name."""
