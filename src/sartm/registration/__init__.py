"""Two cameras onto one grid: the homography, estimated or known."""
