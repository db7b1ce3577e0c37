"""The strategies, which choose the next candidates: one file each."""
