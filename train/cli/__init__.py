"""The command line's subcommands, displays and plots."""
