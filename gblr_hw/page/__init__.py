"""Results as users have them, gathered for one page."""
