"""Learning: samples go in, a better policy comes out."""
