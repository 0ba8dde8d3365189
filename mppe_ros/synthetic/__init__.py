"""Generated people: bodies, clothes, motion, places and a small renderer."""
