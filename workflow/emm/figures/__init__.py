"""Figures and tables of the papers, drawn from result tables alone."""
