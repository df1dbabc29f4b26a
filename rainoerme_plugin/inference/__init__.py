"""Using a trained network: pictures, folders, video, export."""
