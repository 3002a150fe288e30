"""linformer."""
