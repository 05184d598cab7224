"""The episode browser: a local web page over a run directory, live while training goes on."""
