"""`wactl sandbox`: a WhatsApp server with simulated phones, and orders to it."""
