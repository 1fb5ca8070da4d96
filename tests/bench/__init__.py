"""What a command costs, side by side with what the same work costs without us: `make bench`."""
