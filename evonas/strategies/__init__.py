"""What chooses the next candidates: one file a strategy."""
