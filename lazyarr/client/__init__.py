"""The process that faults."""
