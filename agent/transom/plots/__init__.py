"""Events to pictures, as plain SVG: what a replay saw, for people to look at. Pure: no file, no clock."""
