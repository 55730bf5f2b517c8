"""What a run leaves behind and shows: its directory, metrics, score records, console and summary."""
