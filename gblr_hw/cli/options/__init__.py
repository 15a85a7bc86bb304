"""The options of commands: their definitions, a table for several commands and a record for each long one."""
