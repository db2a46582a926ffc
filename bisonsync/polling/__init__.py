"""What every poll shares: how workspaces are visited, and how a list of one is read, proved and merged."""
