"""Trained configurations: template, lineage, assembly."""
