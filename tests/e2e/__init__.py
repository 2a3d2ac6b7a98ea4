"""The daemon as a process of its own, against a sandbox in this process."""
