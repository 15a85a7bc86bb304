"""One page: figures, pictures and tables of results in a single HTML file that needs no network."""
