"""What travels over a connection: content, device lists, fan-out, decryption, receipts, retries."""
