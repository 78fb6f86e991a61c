"""Control pilot and proximity (IEC 61851-1): levels in, states out; commands in, oscillator out."""
