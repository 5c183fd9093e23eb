"""The command line: one module for each subcommand of recbole-m3rec."""
