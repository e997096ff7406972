"""Live spreadsheets: workbooks in which cells hold the sheet's formulas, not their values."""
