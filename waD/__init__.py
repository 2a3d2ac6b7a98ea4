"""WhatsApp sessions as a Unix service: the daemon.

`__version__` is that of the daemon and of `wactl`; the package takes it from here, as it is written.
"""

__version__ = "0.1.0"
