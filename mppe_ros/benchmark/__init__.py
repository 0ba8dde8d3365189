"""How fast the stages are, next to the reference way and to the bare networks (mppe bench)."""
