"""Side by side with the peers: see README.md in this directory."""
