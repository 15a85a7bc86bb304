"""Results as users have them: compared, their front, gathered for one page."""
