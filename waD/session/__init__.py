"""The life of a session across connections: state machine, policy, outbox, manager."""
