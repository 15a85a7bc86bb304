"""What to do with each layer of a network, by regime: structures and bits beside each other at one error."""
