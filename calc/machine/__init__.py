"""Your own machine: what its memory and its matrix units reach, and layers of a model that run on it."""
