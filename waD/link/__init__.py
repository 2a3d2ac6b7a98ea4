"""One connection: websocket, handshake, requests and answers, keepalive, pairing, login, prekeys."""
