"""The inbox: a delivery's whole life, from its intake to its end."""
