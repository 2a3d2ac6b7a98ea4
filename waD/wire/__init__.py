"""Bytes to nodes and back: frames, Noise, the binary node codec, the token dictionary, addresses. Sans-IO."""
