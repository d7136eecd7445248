"""Analysis of result tables: memorization curves, EMM and its uncertainty."""
