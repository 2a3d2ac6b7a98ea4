"""The event model, the durable event log, subscriptions."""
