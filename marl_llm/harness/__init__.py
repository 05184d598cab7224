"""Teams as single models in other people's evaluation programs."""
