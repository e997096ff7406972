"""Importers: a model's own files become a row of models.csv."""
