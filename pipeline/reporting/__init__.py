"""In: results as JSON, and rows of papers.
Out: tables, plots and pages.
Enters: stages; inspection for colours and the canvas of contact sheets.
"""
