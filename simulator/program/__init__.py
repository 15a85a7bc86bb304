"""The program: instructions, schedules, files, listings, the encoding for hardware, and what is checked of it."""
