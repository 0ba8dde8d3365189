"""Training of our own networks on generated people: ``mppe train``."""
