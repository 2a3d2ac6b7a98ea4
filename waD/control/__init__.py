"""JSON-RPC 2.0 over a Unix socket: wire types, server, methods."""
