"""One matrix at a tile budget: candidates, chunk choice, least-squares refits."""
