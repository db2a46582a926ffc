"""The schedule of this configuration: for cron, or for systemd."""
