"""Programs: array code traced once, differentiated, simplified and executed; knows nothing of networks."""
