"""The demo competition's own package."""
