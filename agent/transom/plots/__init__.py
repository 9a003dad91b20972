"""Events to pictures, as plain SVG: what a replay saw, for people to look at. Pure: no file, no clock.

Written here: matplotlib would bring 30 MB to a gateway, and its pictures know no dark screen and hold no sentences.
"""
