"""The report API."""
