"""The process that fills pages."""
