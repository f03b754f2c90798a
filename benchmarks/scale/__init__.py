"""What happens when there is much: stored, due, waiting, long, or of processes; and what one of anything costs."""
