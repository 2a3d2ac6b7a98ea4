"""The command line of waD."""
