"""Training images: sources, subsets and labels."""
