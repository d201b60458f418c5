"""Programs: array code recorded once, differentiated, simplified and executed; knows nothing of networks."""
