"""What the competition starter-challenge asks, and how it scores."""
