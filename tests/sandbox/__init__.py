"""The sandbox on its own."""
