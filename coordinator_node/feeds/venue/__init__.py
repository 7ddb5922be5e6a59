"""What the sources of real venues share: sampling, fetching page after page, and listening without a gap."""
