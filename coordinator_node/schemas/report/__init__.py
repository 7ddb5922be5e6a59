"""The shapes of the report API: what its endpoints take and answer."""
