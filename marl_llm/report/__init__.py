"""A run, or several, as one folder of static pages: what happened, what was learned, and why."""
