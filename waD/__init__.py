"""WhatsApp sessions as a Unix service: the daemon."""
