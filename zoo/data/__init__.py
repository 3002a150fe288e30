"""What tasks build from: cache directories, atomic and resumable generation, batches, export."""
