"""The package's older name; only what older workspaces import stands here."""
