"""waD as systemd sees it."""
