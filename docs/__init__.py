"""What is written about the service, and what writes it."""
