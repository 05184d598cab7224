"""Who may sit in a seat: language models and scripted players."""
