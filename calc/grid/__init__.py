"""Grids: specs, files and the SQL over them."""
