"""Search over machines and structures together: what each pair costs, which pairs none beats, and what scatter is
worth.
"""
