"""The dashboard's pages, one file each, and what they share.

``calculator`` is a page: a function ``page`` that ``app.py`` registers. Shared are ``question`` (the inputs, which
live in the URL), ``answers`` (cached calls of the calculator and the dictionary's words) and ``formula_bar``.
"""
