"""Side by side with the peers: maps first, then time and memory."""
