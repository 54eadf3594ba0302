"""HTTP: what listens, who may ask, and what is answered."""
