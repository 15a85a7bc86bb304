"""Instructions: transfers, tiles, drains and vector work in order, with their dependences."""
