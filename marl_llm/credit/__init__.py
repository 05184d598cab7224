"""Credit: episodes go in, advantages come out."""
