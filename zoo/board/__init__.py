"""Records to statistics to tables."""
