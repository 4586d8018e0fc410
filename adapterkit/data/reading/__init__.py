"""Files of every kind as texts: listing, opening, decoding, taking apart."""
