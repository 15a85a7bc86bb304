"""The commands, one a file, and the doors they share."""
